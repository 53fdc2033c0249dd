"""What an action does: ``compose`` adds the residual to the base target, ``limit`` makes the result safe to execute.

Training, evaluation, replay and the real robot all use these two functions and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oc_residual_gym.geometry import clip_norm, matrix_from_quat, quat_from_rotvec, quat_multiply, rotation_between, towards
from oc_residual_gym.worlds.base import Array, BoolArray, IntArray

ACTION_NAMES = ("x", "y", "z", "rotation_x", "rotation_y", "rotation_z", "gripper")

WORKSPACE_LOW = np.array([0.20, -0.45, -0.01])
WORKSPACE_HIGH = np.array([0.78, 0.45, 0.60])
"""Metres, of the TCP in the base frame."""
HAND_CENTER_Z = -0.0704
HAND_HALF_SIZE = np.array([0.0316, 0.1025, 0.0333])
"""Metres in the TCP frame: a box around the hand's body, which must stay above the table however it is tilted."""
HIGHEST_FLOOR = float(np.linalg.norm(HAND_HALF_SIZE)) - HAND_CENTER_Z
"""Metres: no orientation of the hand needs a higher floor."""
RATE_POSITION, RATE_ROTATION = 0.010, 0.03
"""Metres and radians that the executed target moves in one control step at most."""
LEASH_POSITION, LEASH_ROTATION = 0.040, 0.2
"""Metres and radians that the executed target is away from the measured TCP at most; bounds the impedance's force."""
CLOSE_BELOW, OPEN_ABOVE = 0.45, 0.55
"""Openings at which the gripper latch switches."""
LATCH_STEPS = 6
"""Control steps, 0.3 s, before the gripper can be reversed: the Franka Hand cannot be interrupted."""


@dataclass(frozen=True)
class ResidualScales:
    """What a residual action of 1 means."""

    position: float = 0.02
    """Metres along each axis of the base frame."""
    rotation: float = 0.1
    """Radians of the rotation vector, in the tool frame."""
    gripper: float = 0.6
    """Opening, of 0 to 1: enough to overrule a base target at either end."""

    def __post_init__(self) -> None:
        for name in ("position", "rotation", "gripper"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"residual scale {name} is {getattr(self, name)!r}: give a number of at least 0")


class Latch(NamedTuple):
    """The gripper's binary state in N worlds."""

    closed: BoolArray
    """(N,)."""
    steps: IntArray
    """(N,) control steps since it last switched."""


def compose(base_target: Array, residual: Array, scales: ResidualScales) -> Array:
    """Targets (N, 8) of the base policy, corrected by residual actions (N, 7) in [-1, 1].

    Position is added in the base frame, rotation multiplied on the right (tool frame), gripper opening added and
    clipped to [0, 1]. A residual of zeros returns the base target exactly.
    """
    target = np.empty(base_target.shape)
    target[:, :3] = base_target[:, :3] + scales.position * residual[:, :3]
    target[:, 3:7] = quat_multiply(base_target[:, 3:7], quat_from_rotvec(scales.rotation * residual[:, 3:6]))
    target[:, 7] = np.minimum(np.maximum(base_target[:, 7] + scales.gripper * residual[:, 6], 0.0), 1.0)
    return target


def residual_between(base_target: Array, target: Array, scales: ResidualScales) -> Array:
    """Residual actions (N, 7) that ``compose`` the base targets (N, 8) to ``target`` as nearly as [-1, 1] allows."""
    residual = np.empty((len(base_target), 7))
    residual[:, :3] = (target[:, :3] - base_target[:, :3]) / max(scales.position, 1e-12)
    residual[:, 3:6] = rotation_between(base_target[:, 3:7], target[:, 3:7]) / max(scales.rotation, 1e-12)
    residual[:, 6] = (target[:, 7] - base_target[:, 7]) / max(scales.gripper, 1e-12)
    return np.clip(residual, -1.0, 1.0)


def limit(target: Array, previous: Array, tcp_pose: Array, latch: Latch) -> tuple[Array, Latch]:
    """The targets that are executed.

    In this order: workspace box with a floor for the tilted hand, rate, leash, gripper latch. Rotations come first,
    because the floor depends on them.

    Args:
        target: (N, 8) wanted, with unit quaternions.
        previous: (N, 8) executed one control step ago.
        tcp_pose: (N, 7) measured.
        latch: state of the gripper.

    Returns:
        (N, 8) executed targets, their opening 0 or 1, and the new state of the gripper.
    """
    executed = np.empty(target.shape)
    rotation = towards(previous[:, 3:7], target[:, 3:7], RATE_ROTATION)
    executed[:, 3:7] = rotation = towards(tcp_pose[:, 3:], rotation, LEASH_ROTATION)
    position = np.minimum(np.maximum(target[:, :3], WORKSPACE_LOW), WORKSPACE_HIGH)
    if position[:, 2].min() < HIGHEST_FLOOR:
        position[:, 2] = np.maximum(position[:, 2], hand_floor(rotation))
    position = previous[:, :3] + clip_norm(position - previous[:, :3], RATE_POSITION)
    executed[:, :3] = tcp_pose[:, :3] + clip_norm(position - tcp_pose[:, :3], LEASH_POSITION)
    latch = _switch(latch, target[:, 7])
    executed[:, 7] = ~latch.closed
    return executed, latch


def hand_floor(quat: Array) -> Array:
    """(N,) lowest height of the TCP, in metres, at which the hand's body with orientation (N, 4) is above z = 0."""
    up = matrix_from_quat(quat)[:, 2]
    return np.einsum("ni,i->n", np.abs(up), HAND_HALF_SIZE) - up[:, 2] * HAND_CENTER_Z


def _switch(latch: Latch, opening: Array) -> Latch:
    wanted = (latch.closed | (opening < CLOSE_BELOW)) & ~(opening > OPEN_ABOVE)
    switched = (wanted != latch.closed) & (latch.steps >= LATCH_STEPS)
    return Latch(latch.closed ^ switched, np.where(switched, 1, latch.steps + 1))
