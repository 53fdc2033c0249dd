"""The flat observation: what each entry is, in which frame and unit, and by which fixed scale it is divided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import multiply_one, rot6d_one, rotate_inverse_one, rotvec_one
from oc_residual_gym.states import Array, BoolArray, IntArray, RobotState

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


@njit("void(float64[:],float64[:],float64[:])")
def _relative_position(tcp: Array, pose: Array, out: Array) -> None:
    """Into ``out`` (3,) the position of ``pose`` (7,) in the frame of ``tcp`` (7,)."""
    x, y, z = pose[0] - tcp[0], pose[1] - tcp[1], pose[2] - tcp[2]
    out[0], out[1], out[2] = rotate_inverse_one(tcp[3:7], x, y, z)


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
        flat = np.empty((len(phase), self.size))
        _fill(
            robot.tcp_pose,
            robot.tcp_velocity,
            robot.gripper_width,
            closed,
            wrench,
            phase,
            targets,
            objects,
            valid,
            age,
            flat,
        )
        flat *= self._gain
        return np.minimum(np.maximum(flat, -BOUND), BOUND).astype(np.float32)


@njit(
    "void(float64[:,:],float64[:,:],float64[:],boolean[:],float64[:,:],float64[:],float64[:,:,:],float64[:,:,:],"
    "boolean[:,:],int64[:,:],float64[:,:])"
)
def _fill(
    tcp: Array,
    velocity: Array,
    width: Array,
    closed: BoolArray,
    wrench: Array,
    phase: Array,
    targets: Array,
    objects: Array,
    valid: BoolArray,
    age: IntArray,
    flat: Array,
) -> None:
    """Write unscaled observations (N, D), field by field in the order of ``make_layout``."""
    inverse, relative = np.empty(4), np.empty(4)
    count, seen = targets.shape[1], objects.shape[1]
    for n in range(len(tcp)):
        out = flat[n]
        inverse[0], inverse[1], inverse[2], inverse[3] = -tcp[n, 3], -tcp[n, 4], -tcp[n, 5], tcp[n, 6]
        out[:3] = tcp[n, :3]
        rot6d_one(tcp[n, 3:7], out[3:9])
        out[9:15] = velocity[n]
        out[15], out[16] = width[n], 1.0 if closed[n] else 0.0
        out[17:23] = wrench[n]
        out[23] = phase[n]
        position, rotation, opening = 24, 24 + 3 * count, 24 + 6 * count
        for t in range(count):
            _relative_position(tcp[n], targets[n, t], out[position + 3 * t :])
            relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, targets[n, t, 3:7])
            turn = rotvec_one((relative[0], relative[1], relative[2], relative[3]))
            at = rotation + 3 * t
            out[at], out[at + 1], out[at + 2] = turn
            if t > 0:
                out[opening + t - 1] = targets[n, t, 7]
        in_tcp = opening + count - 1
        in_base = in_tcp + 9 * seen
        for k in range(seen):
            _relative_position(tcp[n], objects[n, k], out[in_tcp + 3 * k :])
            relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, objects[n, k, 3:7])
            rot6d_one(relative, out[in_tcp + 3 * seen + 6 * k :])
            out[in_base + 3 * k : in_base + 3 * k + 3] = objects[n, k, :3]
            rot6d_one(objects[n, k, 3:7], out[in_base + 3 * seen + 6 * k :])
            out[in_base + 9 * seen + k] = 1.0 if valid[n, k] else 0.0
            out[in_base + 10 * seen + k] = age[n, k]
