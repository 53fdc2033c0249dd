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


@dataclass(frozen=True)
class _Entry:
    """One entry of the table: one field, or one field per target or object."""

    name: str
    """``{}`` stands for the target's or the object's name."""
    size: int
    unit: str
    frame: str
    scale: float | tuple[float, ...]
    """One for all fields, or one per field."""
    values: Callable[[Seen], NDArray] | str
    """Returns the quantity in ``unit``, (N, ...), with targets or objects along the second axis. Or the argument of
    :func:`_relate` that is written in place: rotations in the observation's format, and poses relative to the TCP."""


_PREVIOUS = ("previous_target",)
_AHEAD = tuple(f"base_target_{step}" for step in (*(f"plus{s}" for s in BASE_TARGET_STEPS), "end"))
_ONE: tuple[str, ...] = ("",)


def _table(objects: tuple[str, ...]) -> list[tuple[tuple[str, ...], _Entry]]:
    """Members and entry of each row. To add an observation, add a row.

    Its name, slice and scale go into `observation_layout` and trained policy files.
    """
    targets = _PREVIOUS + _AHEAD
    return [
        (_ONE, _Entry("tcp_position", 3, "m", "base", 0.5, lambda s: s.robot.tcp_pose[:, :3])),
        (_ONE, _Entry("tcp_rotation", 6, "rot6d", "base", 1.0, "tool")),
        (_ONE, _Entry("tcp_linear_velocity", 3, "m/s", "base", 0.2, lambda s: s.robot.tcp_velocity[:, :3])),
        (_ONE, _Entry("tcp_angular_velocity", 3, "rad/s", "base", 0.5, lambda s: s.robot.tcp_velocity[:, 3:])),
        (_ONE, _Entry("gripper_width", 1, "m", "-", 0.08, lambda s: s.robot.gripper_width)),
        (_ONE, _Entry("gripper_closed", 1, "bool", "-", 1.0, lambda s: s.closed)),
        (_ONE, _Entry("wrench_force", 3, "N", "base", 20.0, lambda s: s.wrench[:, :3])),
        (_ONE, _Entry("wrench_torque", 3, "Nm", "base", 2.0, lambda s: s.wrench[:, 3:])),
        (_ONE, _Entry("chunk_phase", 1, "fraction", "-", 1.0, lambda s: s.phase)),
        (targets, _Entry("{}_position", 3, "m", "tcp", (0.04, 0.05, 0.05, 0.05, 0.05), "target_positions")),
        (targets, _Entry("{}_rotation", 3, "rotvec, rad", "tcp", 0.2, "target_turns")),
        (_AHEAD, _Entry("{}_opening", 1, "fraction", "-", 1.0, lambda s: s.targets[:, 1:, 7])),
        (objects, _Entry("{}_position_in_tcp", 3, "m", "tcp", 0.2, "positions_in_tcp")),
        (objects, _Entry("{}_rotation_in_tcp", 6, "rot6d", "tcp", 1.0, "rotations_in_tcp")),
        (objects, _Entry("{}_position_in_base", 3, "m", "base", 0.5, lambda s: s.objects[..., :3])),
        (objects, _Entry("{}_rotation_in_base", 6, "rot6d", "base", 1.0, "rotations_in_base")),
        (objects, _Entry("{}_valid", 1, "bool", "-", 1.0, lambda s: s.valid)),
        (objects, _Entry("{}_age", 1, "control steps", "-", 20.0, lambda s: s.age)),
    ]


class ObservationBuilder:
    """Builds the flat observations of N worlds.

    Args:
        object_names: names of the observed objects, in order.
        num_worlds: N.
    """

    def __init__(self, object_names: tuple[str, ...], num_worlds: int = 1):
        table, fields = _table(object_names), list[Field]()
        for members, entry in table:
            scales = entry.scale if isinstance(entry.scale, tuple) else (entry.scale,) * len(members)
            for member, scale in zip(members, scales, strict=True):
                start = fields[-1].stop if fields else 0
                fields.append(
                    Field(entry.name.format(member), start, start + entry.size, entry.unit, entry.frame, scale)
                )
        self.layout = tuple(fields)
        self.size = self.layout[-1].stop
        self._gain = 1.0 / np.concatenate([np.full(f.stop - f.start, f.scale) for f in self.layout])
        self._flat = np.zeros((num_worlds, self.size))
        self._plan(table)

    def _plan(self, table: list[tuple[tuple[str, ...], _Entry]]) -> None:
        """Views of the columns that each row of the table fills."""
        n, start = len(self._flat), 0
        self._filled: list[tuple[Array, Callable[[Seen], NDArray]]] = []
        self._related: dict[str, Array] = {}
        for members, entry in table:
            stop = start + entry.size * len(members)
            columns = self._flat[:, start:stop].reshape(n, len(members), entry.size)
            start = stop
            if isinstance(entry.values, str):
                self._related[entry.values] = columns if members != _ONE else columns[:, 0]
            else:
                shape = (n,) + (() if members == _ONE else (len(members),)) + (() if entry.size == 1 else (entry.size,))
                self._filled.append((columns.reshape(shape), entry.values))
        assert all(np.shares_memory(columns, self._flat) for columns, _ in self._filled)

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
        related = self._related
        _relate(
            seen.robot.tcp_pose,
            seen.targets,
            seen.objects,
            related["tool"],
            related["target_positions"],
            related["target_turns"],
            related["positions_in_tcp"],
            related["rotations_in_tcp"],
            related["rotations_in_base"],
        )
        for columns, values in self._filled:
            columns[...] = values(seen)
        observation = np.empty(self._flat.shape, np.float32)
        _scale(self._flat, self._gain, observation)
        return observation


@njit("void(float64[:,:],float64[:],float32[:,:])")
def _scale(flat: Array, gain: Array, out: NDArray[np.float32]) -> None:
    """Write the scaled and clipped values (N, D) into ``out``."""
    for n in range(len(flat)):
        for i in range(len(gain)):
            value = flat[n, i] * gain[i]
            if value > BOUND:
                value = BOUND
            elif value < -BOUND:
                value = -BOUND
            out[n, i] = value


@njit("void(float64[:],float64[:],float64[:])")
def _relative_position(tcp: Array, pose: Array, out: Array) -> None:
    """Write the position of ``pose`` (7,) in the frame of ``tcp`` (7,) into ``out`` (3,)."""
    x, y, z = pose[0] - tcp[0], pose[1] - tcp[1], pose[2] - tcp[2]
    out[0], out[1], out[2] = rotate_inverse_one(tcp[3:7], x, y, z)


@njit(
    "void(float64[:,:],float64[:,:,:],float64[:,:,:],float64[:,:],float64[:,:,:],float64[:,:,:],float64[:,:,:],"
    "float64[:,:,:],float64[:,:,:])"
)
def _relate(
    tcp: Array,
    targets: Array,
    objects: Array,
    tool: Array,
    target_positions: Array,
    target_turns: Array,
    positions_in_tcp: Array,
    rotations_in_tcp: Array,
    rotations_in_base: Array,
) -> None:
    """Write rotations in the observation's format, and poses relative to the TCP.

    Args:
        tcp: (N, 7) measured.
        targets: (N, T, 8).
        objects: (N, K, 7) filtered poses.
        tool: (N, 6) written: 6D rotation, base frame.
        target_positions, target_turns: (N, T, 3) written: positions and rotation vectors, TCP frame.
        positions_in_tcp: (N, K, 3) written.
        rotations_in_tcp, rotations_in_base: (N, K, 6) written: 6D rotations.
    """
    inverse, relative = np.empty(4), np.empty(4)
    for n in range(len(tcp)):
        inverse[0], inverse[1], inverse[2], inverse[3] = -tcp[n, 3], -tcp[n, 4], -tcp[n, 5], tcp[n, 6]
        rot6d_one(tcp[n, 3:7], tool[n])
        # Targets: their rotation relative to the TCP is small, so a rotation vector describes it.
        for t in range(targets.shape[1]):
            _relative_position(tcp[n], targets[n, t], target_positions[n, t])
            relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, targets[n, t, 3:7])
            turn = rotvec_one((relative[0], relative[1], relative[2], relative[3]))
            target_turns[n, t, 0], target_turns[n, t, 1], target_turns[n, t, 2] = turn
        # Objects: any rotation, so six numbers, which have no jump.
        for k in range(objects.shape[1]):
            _relative_position(tcp[n], objects[n, k], positions_in_tcp[n, k])
            relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, objects[n, k, 3:7])
            rot6d_one(relative, rotations_in_tcp[n, k])
            rot6d_one(objects[n, k, 3:7], rotations_in_base[n, k])
