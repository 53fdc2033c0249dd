"""The flat observation: what each entry is, in which frame and unit, and by which fixed scale it is divided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numba import njit
from numpy.typing import NDArray

from oc_residual_gym.geometry import multiply_one, rot6d_one, rotate_inverse_one, rotvec_one
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
        positions = np.empty((n, targets.shape[1] + objects.shape[1], 3))
        rotvecs = np.empty((n, targets.shape[1], 3))
        rotations = np.empty((n, 1 + 2 * objects.shape[1], 6))
        _relate(tcp, targets, objects, positions, rotvecs, rotations)
        first_object, base_frame = targets.shape[1], 1 + objects.shape[1]
        flat = np.concatenate(
            [
                tcp[:, :3],
                rotations[:, 0],
                robot.tcp_velocity,
                robot.gripper_width[:, None],
                closed[:, None],
                wrench,
                phase[:, None],
                positions[:, :first_object].reshape(n, -1),
                rotvecs.reshape(n, -1),
                targets[:, 1:, 7],
                positions[:, first_object:].reshape(n, -1),
                rotations[:, 1:base_frame].reshape(n, -1),
                objects[:, :, :3].reshape(n, -1),
                rotations[:, base_frame:].reshape(n, -1),
                valid,
                age,
            ],
            axis=1,
        )
        flat *= self._gain
        return np.minimum(np.maximum(flat, -BOUND), BOUND).astype(np.float32)


@njit("void(float64[:,:],float64[:,:,:],float64[:,:,:],float64[:,:,:],float64[:,:,:],float64[:,:,:])", cache=True)
def _relate(tcp: Array, targets: Array, objects: Array, positions: Array, rotvecs: Array, rotations: Array) -> None:
    """Poses in the TCP frame.

    Fills positions (N, T + K, 3) of targets, then objects; rotvecs (N, T, 3) of targets; rotations (N, 1 + 2 K, 6) of
    the TCP, of the objects in the TCP frame, and of the objects in the base frame.
    """
    inverse, relative = np.empty(4), np.empty(4)
    first_object, count = targets.shape[1], objects.shape[1]
    for n in range(len(tcp)):
        inverse[0], inverse[1], inverse[2], inverse[3] = -tcp[n, 3], -tcp[n, 4], -tcp[n, 5], tcp[n, 6]
        rot6d_one(tcp[n, 3:7], rotations[n, 0])
        for e in range(first_object + count):
            pose = targets[n, e] if e < first_object else objects[n, e - first_object]
            x, y, z = pose[0] - tcp[n, 0], pose[1] - tcp[n, 1], pose[2] - tcp[n, 2]
            positions[n, e, 0], positions[n, e, 1], positions[n, e, 2] = rotate_inverse_one(tcp[n, 3:7], x, y, z)
            relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, pose[3:7])
            if e < first_object:
                turn = rotvec_one((relative[0], relative[1], relative[2], relative[3]))
                rotvecs[n, e, 0], rotvecs[n, e, 1], rotvecs[n, e, 2] = turn
            else:
                rot6d_one(relative, rotations[n, 1 + e - first_object])
                rot6d_one(pose[3:7], rotations[n, 1 + count + e - first_object])
