"""The flat observation as one table: the meaning, unit, frame and fixed scale of every entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import multiply_one, rot6d_one, rotate_inverse_one, rotvec_one
from oc_residual_gym.states import Array, BoolArray, IntArray, RobotState

BASE_TARGET_STEPS = (1, 4, 8)
"""The observation holds the base policy's targets this many control steps ahead, and the last target of its chunk."""
BOUND = 10.0
"""Entries are clipped to +-10; typical values are of order one."""


@dataclass(frozen=True)
class Field:
    """One named slice, ``start:stop``, of the flat observation. ``frame`` is "base", "tcp" or "-"."""

    name: str
    start: int
    stop: int
    unit: str
    frame: str
    scale: float
    """The observation holds the quantity in ``unit``, divided by this."""

    @property
    def slice(self) -> slice:
        """Where the field is in the flat observation."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Seen:
    """Inputs of the observation for N worlds with K observed objects."""

    robot: RobotState
    """Measured robot state."""
    wrench: Array
    """(N, 6) noisy wrench estimate, N and Nm, base frame."""
    closed: BoolArray
    """(N,) whether the gripper latch is closed."""
    targets: Array
    """(N, 5, 8) previous executed target, then the base targets."""
    phase: Array
    """(N,) executed fraction of the base policy's chunk, 0 to 1."""
    objects: Array
    """(N, K, 7) filtered object poses, base frame."""
    valid: BoolArray
    """(N, K) whether each pose is valid."""
    age: IntArray
    """(N, K) age of each pose in control steps."""


class _Relative:
    """Rotations in the observation's format, and poses relative to the TCP."""

    def __init__(self, seen: Seen):
        n, count, objects = len(seen.phase), seen.targets.shape[1], seen.objects.shape[1]
        self.tcp_rotation = np.empty((n, 6))
        self.targets = np.empty((n, count, 6))
        """Position and rotation vector, TCP frame."""
        self.objects_in_tcp = np.empty((n, objects, 9))
        """Position and 6D rotation, TCP frame."""
        self.objects_in_base = np.empty((n, objects, 9))
        _relate(
            seen.robot.tcp_pose,
            seen.targets,
            seen.objects,
            self.tcp_rotation,
            self.targets,
            self.objects_in_tcp,
            self.objects_in_base,
        )


Values = Callable[[Seen, _Relative], NDArray]


@dataclass(frozen=True)
class _Entry:
    """One entry of the table: one field, or one field per target or object."""

    name: str
    """``{}`` stands for the target's or the object's name."""
    size: int
    unit: str
    frame: str
    scale: float
    values: Values
    """Returns the quantity in ``unit``, (N, ...), with targets or objects along the second axis."""


# To add an observation, add an entry. Its name, slice and scale go into `observation_layout` and trained policy files.
_ROBOT = (
    _Entry("tcp_position", 3, "m", "base", 0.5, lambda s, r: s.robot.tcp_pose[:, :3]),
    _Entry("tcp_rotation", 6, "rot6d", "base", 1.0, lambda s, r: r.tcp_rotation),
    _Entry("tcp_linear_velocity", 3, "m/s", "base", 0.2, lambda s, r: s.robot.tcp_velocity[:, :3]),
    _Entry("tcp_angular_velocity", 3, "rad/s", "base", 0.5, lambda s, r: s.robot.tcp_velocity[:, 3:]),
    _Entry("gripper_width", 1, "m", "-", 0.08, lambda s, r: s.robot.gripper_width),
    _Entry("gripper_closed", 1, "bool", "-", 1.0, lambda s, r: s.closed),
    _Entry("wrench_force", 3, "N", "base", 20.0, lambda s, r: s.wrench[:, :3]),
    _Entry("wrench_torque", 3, "Nm", "base", 2.0, lambda s, r: s.wrench[:, 3:]),
    _Entry("chunk_phase", 1, "fraction", "-", 1.0, lambda s, r: s.phase),
)
_PREVIOUS = ("previous_target",)
_AHEAD = tuple(f"base_target_{step}" for step in (*(f"plus{s}" for s in BASE_TARGET_STEPS), "end"))
_TARGETS = (
    (_PREVIOUS, _Entry("{}_position", 3, "m", "tcp", 0.04, lambda s, r: r.targets[:, :1, :3])),
    (_AHEAD, _Entry("{}_position", 3, "m", "tcp", 0.05, lambda s, r: r.targets[:, 1:, :3])),
    (_PREVIOUS, _Entry("{}_rotation", 3, "rotvec, rad", "tcp", 0.2, lambda s, r: r.targets[:, :1, 3:])),
    (_AHEAD, _Entry("{}_rotation", 3, "rotvec, rad", "tcp", 0.2, lambda s, r: r.targets[:, 1:, 3:])),
    (_AHEAD, _Entry("{}_opening", 1, "fraction", "-", 1.0, lambda s, r: s.targets[:, 1:, 7])),
)
_OBJECTS = (
    _Entry("{}_position_in_tcp", 3, "m", "tcp", 0.2, lambda s, r: r.objects_in_tcp[..., :3]),
    _Entry("{}_rotation_in_tcp", 6, "rot6d", "tcp", 1.0, lambda s, r: r.objects_in_tcp[..., 3:]),
    _Entry("{}_position_in_base", 3, "m", "base", 0.5, lambda s, r: r.objects_in_base[..., :3]),
    _Entry("{}_rotation_in_base", 6, "rot6d", "base", 1.0, lambda s, r: r.objects_in_base[..., 3:]),
    _Entry("{}_valid", 1, "bool", "-", 1.0, lambda s, r: s.valid),
    _Entry("{}_age", 1, "control steps", "-", 20.0, lambda s, r: s.age),
)


class ObservationBuilder:
    """Builds the flat observations of N worlds.

    Args:
        object_names: names of the observed objects, in order.
    """

    def __init__(self, object_names: tuple[str, ...]):
        table = [(("",), entry) for entry in _ROBOT] + list(_TARGETS) + [(object_names, entry) for entry in _OBJECTS]
        fields: list[Field] = []
        for members, entry in table:
            for member in members:
                start = fields[-1].stop if fields else 0
                name = entry.name.format(member)
                fields.append(Field(name, start, start + entry.size, entry.unit, entry.frame, entry.scale))
        self.layout = tuple(fields)
        self.size = self.layout[-1].stop
        self._values = [entry.values for _, entry in table]
        self._gain = 1.0 / np.concatenate([np.full(f.stop - f.start, f.scale) for f in self.layout])

    def space(self) -> spaces.Box:
        """The flat observation space of one world."""
        return spaces.Box(-BOUND, BOUND, (self.size,), np.float32)

    def dict_space(self) -> spaces.Dict:
        """The same space as a Dict of named boxes."""
        return spaces.Dict({f.name: spaces.Box(-BOUND, BOUND, (f.stop - f.start,), np.float32) for f in self.layout})

    def as_dict(self, observation: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Split flat observations (..., D) into their named parts (..., n)."""
        return {f.name: observation[..., f.slice] for f in self.layout}

    def build(self, seen: Seen) -> NDArray[np.float32]:
        """Build the scaled and clipped observations (N, D)."""
        relative, n = _Relative(seen), len(seen.phase)
        flat = np.concatenate([values(seen, relative).reshape(n, -1) for values in self._values], axis=1)
        flat *= self._gain
        return np.minimum(np.maximum(flat, -BOUND), BOUND).astype(np.float32)


@njit("void(float64[:],float64[:],float64[:])")
def _relative_position(tcp: Array, pose: Array, out: Array) -> None:
    """Write the position of ``pose`` (7,) in the frame of ``tcp`` (7,) into ``out`` (3,)."""
    x, y, z = pose[0] - tcp[0], pose[1] - tcp[1], pose[2] - tcp[2]
    out[0], out[1], out[2] = rotate_inverse_one(tcp[3:7], x, y, z)


@njit(
    "void(float64[:,:],float64[:,:,:],float64[:,:,:],float64[:,:],float64[:,:,:],float64[:,:,:],float64[:,:,:])",
)
def _relate(
    tcp: Array, targets: Array, objects: Array, tool: Array, in_tool: Array, in_tcp: Array, in_base: Array
) -> None:
    """Compute the arrays of :class:`_Relative` and write them into the last four arguments."""
    inverse, relative = np.empty(4), np.empty(4)
    for n in range(len(tcp)):
        inverse[0], inverse[1], inverse[2], inverse[3] = -tcp[n, 3], -tcp[n, 4], -tcp[n, 5], tcp[n, 6]
        rot6d_one(tcp[n, 3:7], tool[n])
        # Targets: rotations relative to the TCP are small, so a rotation vector has no jumps.
        for t in range(targets.shape[1]):
            _relative_position(tcp[n], targets[n, t], in_tool[n, t])
            relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, targets[n, t, 3:7])
            turn = rotvec_one((relative[0], relative[1], relative[2], relative[3]))
            in_tool[n, t, 3], in_tool[n, t, 4], in_tool[n, t, 5] = turn
        # Objects: any rotation can occur, so use the 6D form, which has no jumps.
        for k in range(objects.shape[1]):
            _relative_position(tcp[n], objects[n, k], in_tcp[n, k])
            relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, objects[n, k, 3:7])
            rot6d_one(relative, in_tcp[n, k, 3:])
            in_base[n, k, :3] = objects[n, k, :3]
            rot6d_one(objects[n, k, 3:7], in_base[n, k, 3:])
