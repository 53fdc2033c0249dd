"""The flat observation: what each entry is, in which frame and unit, and by which fixed scale it is divided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from oc_residual_gym.geometry import left_matrix, matrix_from_quat, quat_conjugate, rotvec_from_quat
from oc_residual_gym.worlds.base import Array, BoolArray, IntArray, RobotState

BASE_TARGET_STEPS = (1, 4, 8)
"""Control steps ahead at which the base policy's targets are shown, besides the end of its chunk."""
BOUND = 10.0
"""Entries are clipped to +-10; in ordinary operation they are of order one."""


@dataclass(frozen=True)
class Field:
    """One named slice of the flat observation."""

    name: str
    start: int
    stop: int
    unit: str
    frame: str
    scale: float
    """The quantity in ``unit`` is divided by this."""

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


def make_layout(object_names: tuple[str, ...]) -> tuple[Field, ...]:
    """Fields of the observation of a task with these objects, in order."""
    entries: list[tuple[str, int, str, str, float]] = [
        ("tcp_position", 3, "m", "base", 0.5),
        ("tcp_rotation", 6, "rot6d", "base", 1.0),
        ("tcp_linear_velocity", 3, "m/s", "base", 0.2),
        ("tcp_angular_velocity", 3, "rad/s", "base", 0.5),
        ("gripper_width", 1, "m", "-", 0.08),
        ("gripper_closed", 1, "bool", "-", 1.0),
        ("wrench_force", 3, "N", "base", 20.0),
        ("wrench_torque", 3, "Nm", "base", 2.0),
        ("chunk_phase", 1, "fraction", "-", 1.0),
        ("previous_target_position", 3, "m", "tcp", 0.04),
    ]
    steps = [*(f"plus{s}" for s in BASE_TARGET_STEPS), "end"]
    entries += [(f"base_target_{s}_position", 3, "m", "tcp", 0.05) for s in steps]
    entries += [("previous_target_rotation", 3, "rotvec, rad", "tcp", 0.2)]
    entries += [(f"base_target_{s}_rotation", 3, "rotvec, rad", "tcp", 0.2) for s in steps]
    entries += [(f"base_target_{s}_opening", 1, "fraction", "-", 1.0) for s in steps]
    for frame, scale in (("tcp", 0.2), ("base", 0.5)):
        entries += [(f"{o}_position_in_{frame}", 3, "m", frame, scale) for o in object_names]
        entries += [(f"{o}_rotation_in_{frame}", 6, "rot6d", frame, 1.0) for o in object_names]
    entries += [(f"{o}_valid", 1, "bool", "-", 1.0) for o in object_names]
    entries += [(f"{o}_age", 1, "control steps", "-", 20.0) for o in object_names]
    fields, start = [], 0
    for name, size, unit, frame, scale in entries:
        fields.append(Field(name, start, start + size, unit, frame, scale))
        start += size
    return tuple(fields)


class ObservationBuilder:
    """Fills the flat observation of N worlds; one batch of operations serves all poses."""

    def __init__(self, object_names: tuple[str, ...]):
        self.layout = make_layout(object_names)
        self.size = self.layout[-1].stop
        self._gain = 1.0 / np.concatenate([np.full(f.stop - f.start, f.scale) for f in self.layout])

    def space(self) -> spaces.Box:
        """The flat space of one world."""
        return spaces.Box(-BOUND, BOUND, (self.size,), np.float32)

    def dict_space(self) -> spaces.Dict:
        """The same as a Dict of named boxes."""
        return spaces.Dict({f.name: spaces.Box(-BOUND, BOUND, (f.stop - f.start,), np.float32) for f in self.layout})

    def as_dict(self, observation: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The named parts (..., n) of flat observations (..., D)."""
        return {f.name: observation[..., f.slice] for f in self.layout}

    def build(
        self,
        robot: RobotState,
        wrench: Array,
        closed: BoolArray,
        targets: Array,
        phase: Array,
        objects: Array,
        valid: BoolArray,
        age: IntArray,
    ) -> NDArray[np.float32]:
        """Observations (N, D).

        Args:
            robot: what is measured.
            wrench: (N, 6) with noise.
            closed: (N,) gripper latch.
            targets: (N, 5, 8) previous executed target, then the base targets.
            phase: (N,) executed part of the base policy's chunk, 0 to 1.
            objects: (N, K, 7) filtered poses.
            valid, age: (N, K) of those poses.
        """
        n, tcp = len(phase), robot.tcp_pose
        matrices = matrix_from_quat(np.concatenate([tcp[:, None, 3:], objects[:, :, 3:]], axis=1))
        tcp_matrix, object_matrices = matrices[:, 0], matrices[:, 1:]
        inverse = left_matrix(quat_conjugate(tcp[:, 3:]))
        poses = np.concatenate([targets[:, :, :7], objects], axis=1)
        positions = np.einsum("nji,nej->nei", tcp_matrix, poses[:, :, :3] - tcp[:, None, :3])
        rotvecs = rotvec_from_quat(np.einsum("nij,nej->nei", inverse, targets[:, :, 3:7]))
        relative_matrices = np.einsum("nji,nejk->neik", tcp_matrix, object_matrices)
        first_targets = targets.shape[1]
        flat = np.concatenate(
            [
                tcp[:, :3],
                _rot6d(tcp_matrix).reshape(n, -1),
                robot.tcp_velocity,
                robot.gripper_width[:, None],
                closed[:, None],
                wrench,
                phase[:, None],
                positions[:, :first_targets].reshape(n, -1),
                rotvecs.reshape(n, -1),
                targets[:, 1:, 7],
                positions[:, first_targets:].reshape(n, -1),
                _rot6d(relative_matrices).reshape(n, -1),
                objects[:, :, :3].reshape(n, -1),
                _rot6d(object_matrices).reshape(n, -1),
                valid,
                age,
            ],
            axis=1,
        )
        flat *= self._gain
        return np.minimum(np.maximum(flat, -BOUND), BOUND).astype(np.float32)


def _rot6d(matrices: Array) -> Array:
    """First two columns of rotation matrices (..., 3, 3), one after the other, (..., 2, 3)."""
    return matrices[..., :2].swapaxes(-1, -2)
