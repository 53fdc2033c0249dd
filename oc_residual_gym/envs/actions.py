"""What an action does: ``compose`` corrects the base target, and ``limit`` makes the result safe to execute.

Training, evaluation, replay and the real robot all use these two functions. There is no second definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import (
    approach_one,
    multiply_one,
    quat_from_rotvec_one,
    rotation_between,
    towards_one,
)
from oc_residual_gym.states import Array, BoolArray, IntArray

ACTION_NAMES = ("x", "y", "z", "rotation_x", "rotation_y", "rotation_z", "gripper")

WORKSPACE_LOW = np.array([0.20, -0.45, -0.01])
WORKSPACE_HIGH = np.array([0.78, 0.45, 0.60])
"""Workspace box for the TCP: metres, base frame."""
HAND_CENTER_Z = -0.0704
HAND_HALF_SIZE = np.array([0.0316, 0.1025, 0.0333])
"""Metres in the TCP frame: a box around the hand's body. The hand must stay above the table at any tilt."""
RATE_POSITION, RATE_ROTATION = 0.010, 0.03
"""Metres and radians: the most that the executed target moves per control step."""
LEASH_POSITION, LEASH_ROTATION = 0.040, 0.2
"""Metres and radians: largest distance from the measured TCP pose to the executed target. Bounds the contact force."""
CLOSE_BELOW, OPEN_ABOVE = 0.45, 0.55
"""Gripper openings below which the latch closes and above which it opens."""
LATCH_STEPS = 6
"""Control steps (0.3 s) before the gripper can reverse: the Franka Hand cannot be interrupted."""


@dataclass(frozen=True)
class ResidualScales:
    """Corrections for a residual action of 1."""

    position: float = 0.02
    """Metres per axis, base frame."""
    rotation: float = 0.1
    """Radians per axis of the rotation vector, tool frame."""
    gripper: float = 0.6
    """Gripper opening, whose range is 0 to 1. The default can reverse a base target of 0 or 1."""

    def __post_init__(self) -> None:
        for name in ("position", "rotation", "gripper"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ValueError(f"residual scale {name} is {getattr(self, name)!r}: give a finite number from 0 on")


class Latch(NamedTuple):
    """The binary gripper state of N worlds."""

    closed: BoolArray
    """(N,) whether the gripper is commanded to close."""
    steps: IntArray
    """(N,) control steps since it last switched."""


def checked(actions: Array, num_worlds: int) -> Array:
    """Return ``actions`` as float64. Raises ``ValueError`` unless they are finite and have shape (N, 7)."""
    actions = np.asarray(actions, np.float64)
    if actions.shape != (num_worlds, 7):
        raise ValueError(f"actions have shape {actions.shape}; expected {(num_worlds, 7)}: {ACTION_NAMES}")
    if not np.isfinite(actions).all():
        world, entry = np.argwhere(~np.isfinite(actions))[0]
        raise ValueError(
            f"action entry {entry} ({ACTION_NAMES[entry]}) of world {world} is {actions[world, entry]}; "
            "give finite numbers"
        )
    return actions


def compose(base_target: Array, residual: Array, scales: ResidualScales) -> Array:
    """Correct the base policy's targets (N, 8) by residual actions (N, 7) in [-1, 1].

    Positions are added in the base frame, rotations are multiplied on the right (tool frame), and gripper openings are
    added and clipped to [0, 1]. A zero residual returns the base target exactly.
    """
    target = np.empty(base_target.shape)
    _compose(base_target, residual, scales.position, scales.rotation, scales.gripper, target)
    return target


@njit("void(float64[:,:],float64[:,:],float64,float64,float64,float64[:,:])")
def _compose(base: Array, residual: Array, position: float, rotation: float, gripper: float, out: Array) -> None:
    turn = np.empty(4)
    for n in range(len(base)):
        for i in range(3):
            out[n, i] = base[n, i] + position * residual[n, i]
        x, y, z = rotation * residual[n, 3], rotation * residual[n, 4], rotation * residual[n, 5]
        turn[0], turn[1], turn[2], turn[3] = quat_from_rotvec_one(x, y, z)
        out[n, 3], out[n, 4], out[n, 5], out[n, 6] = multiply_one(base[n, 3:7], turn)
        out[n, 7] = min(max(base[n, 7] + gripper * residual[n, 6], 0.0), 1.0)


def residual_between(base_target: Array, target: Array, scales: ResidualScales) -> Array:
    """Residual actions (N, 7) with which ``compose`` brings base targets (N, 8) as close to ``target`` as possible."""
    residual = np.empty((len(base_target), 7))
    residual[:, :3] = (target[:, :3] - base_target[:, :3]) / max(scales.position, 1e-12)
    residual[:, 3:6] = rotation_between(base_target[:, 3:7], target[:, 3:7]) / max(scales.rotation, 1e-12)
    residual[:, 6] = (target[:, 7] - base_target[:, 7]) / max(scales.gripper, 1e-12)
    return np.clip(residual, -1.0, 1.0)


def limit(target: Array, previous: Array, tcp_pose: Array, latch: Latch, speed: float = 1.0) -> tuple[Array, Latch]:
    """Limit the targets to what may be executed.

    The limits apply in this order: workspace box with a floor for the tilted hand, rate, leash, gripper latch. The box
    applies once more at the end, so that no target lies outside it even if the arm does. Rotations are limited before
    positions, because the floor depends on them.

    Args:
        target: (N, 8) requested targets, with unit quaternions.
        previous: (N, 8) targets executed one control step ago.
        tcp_pose: (N, 7) measured TCP poses.
        latch: gripper state.
        speed: fraction of the rate limit to use, below 1 for first trials on a robot.

    Returns:
        (N, 8) executed targets, with openings 0 or 1, and the new gripper state.
    """
    executed = np.empty(target.shape)
    closed, steps = latch.closed.copy(), latch.steps.copy()
    _limit(target, previous, tcp_pose, closed, steps, speed, executed)
    return executed, Latch(closed, steps)


@njit()
def hand_floor(quat: Array) -> float:
    """Lowest TCP height, in metres, that keeps the hand's body above z = 0 for a TCP orientation (4,), xyzw."""
    x, y, z, w = quat[0], quat[1], quat[2], quat[3]
    down = 1.0 - 2.0 * (x * x + y * y)
    half_height = (
        abs(2.0 * (x * z - w * y)) * HAND_HALF_SIZE[0]
        + abs(2.0 * (y * z + w * x)) * HAND_HALF_SIZE[1]
        + abs(down) * HAND_HALF_SIZE[2]
    )
    return half_height - down * HAND_CENTER_Z


@njit("void(float64[:,:],float64[:,:],float64[:,:],boolean[:],int64[:],float64,float64[:,:])")
def _limit(
    target: Array, previous: Array, tcp: Array, closed: BoolArray, steps: IntArray, speed: float, out: Array
) -> None:
    position, rotation = np.empty(3), np.empty(4)
    for n in range(len(target)):
        towards_one(previous[n, 3:7], target[n, 3:7], speed * RATE_ROTATION, rotation)
        towards_one(tcp[n, 3:7], rotation, LEASH_ROTATION, out[n, 3:7])
        for i in range(3):
            position[i] = min(max(target[n, i], WORKSPACE_LOW[i]), WORKSPACE_HIGH[i])
        position[2] = max(position[2], hand_floor(out[n, 3:7]))
        approach_one(previous[n, :3], position, speed * RATE_POSITION, position)
        approach_one(tcp[n, :3], position, LEASH_POSITION, out[n, :3])
        # The box overrides the leash: no target lies outside the box, even if the arm has swung out of it.
        for i in range(3):
            out[n, i] = min(max(out[n, i], WORKSPACE_LOW[i]), WORKSPACE_HIGH[i])
        wanted = target[n, 7] < CLOSE_BELOW or (closed[n] and not target[n, 7] > OPEN_ABOVE)
        if wanted != closed[n] and steps[n] >= LATCH_STEPS:
            closed[n], steps[n] = wanted, 1
        else:
            steps[n] += 1
        out[n, 7] = 0.0 if closed[n] else 1.0
