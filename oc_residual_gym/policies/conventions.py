"""The conventions of a base policy's targets, and the guard that holds every source to them.

A target is an absolute TCP pose in the robot's base frame (metres, quaternion xyzw) and a gripper opening from 0
(closed) to 1 (80 mm). Functions, files and servers that mean something else, such as wxyz or millimetres, would move
the arm somewhere else. :func:`violates` finds such chunks, and :func:`problem_of` says what was seen and how to convert
it. :class:`GripperWatch` warns of openings that are within their range and still suspicious.
"""

from __future__ import annotations

import math

import numpy as np
from gymnasium import logger

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import rotation_between
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.states import Array, BoolArray, IntArray

ENTRIES = ("x", "y", "z", "qx", "qy", "qz", "qw", "opening")
"""Entries of a target."""
MAX_DISTANCE, MAX_ANGLE = 0.3, math.radians(60.0)
"""Metres and radians: largest distance from the measured TCP pose to the first target of a chunk. The last executed
target is within 40 mm and 0.2 rad, and a policy continues from there."""
SHORTEST, LONGEST = 0.9, 1.1
"""Range of a quaternion's length. Predictions are not exactly of unit length; they are normalised."""
LOWEST_OPENING, HIGHEST_OPENING = -0.1, 1.1
"""Range of a predicted opening. Predictions of 0 and 1 are not exact; they are clipped to [0, 1]."""
NEAR_JOINTS = 0.3
"""Radians: seven numbers that are all this close to the measured joint positions are joint positions."""
SMALL_OPENING = 0.1
"""Openings that never exceed this are likely widths in metres, 0 to 0.08."""

_POSE = "Give absolute TCP poses in the base frame: position in metres, quaternion xyzw"


@njit("void(float64[:,:,:],float64[:,:],boolean[:])")
def violates(chunks: Array, tcp_pose: Array, bad: BoolArray) -> None:
    """Set ``bad`` (n,) for chunks (n, H, 8) that violate a convention, given the measured TCP poses (n, 7)."""
    for n in range(len(chunks)):
        for h in range(chunks.shape[1]):
            target = chunks[n, h]
            length = math.sqrt(target[3] ** 2 + target[4] ** 2 + target[5] ** 2 + target[6] ** 2)
            # Each comparison is also false for NaN.
            good = SHORTEST <= length <= LONGEST and LOWEST_OPENING <= target[7] <= HIGHEST_OPENING
            distance = dot = 0.0
            for i in range(3):
                good = good and math.isfinite(target[i])
                distance += (target[i] - tcp_pose[n, i]) ** 2
            if h == 0 and good:
                for i in range(3, 7):
                    dot += target[i] * tcp_pose[n, i]
                good = math.sqrt(distance) <= MAX_DISTANCE and abs(dot) >= length * math.cos(MAX_ANGLE / 2)
            if not good:
                bad[n] = True


def problem_of(chunk: Array, tcp_pose: Array, joint_positions: Array) -> str:
    """What is wrong with a chunk (H, 8), its likely cause, and how to convert it; "" if it keeps the conventions.

    Args:
        chunk: targets (H, 8) from a base policy.
        tcp_pose: (7,) measured TCP pose.
        joint_positions: (7,) measured joint positions, rad.
    """
    first = chunk[0, :7]
    problem = (
        malformed(chunk, joint_positions)
        or _joints(first, joint_positions)
        or "; ".join(filter(None, (_misplaced(first, tcp_pose), _turned(first, tcp_pose))))
    )
    bad = np.zeros(1, bool)
    violates(chunk[None], tcp_pose[None], bad)
    if bad[0] and not problem:  # rounding: both compute the same limits in different ways
        problem = (
            f"its chunk is just beyond a limit; it starts with {_numbers(first)}, the tool is at {_numbers(tcp_pose)}"
        )
    return problem


def malformed(chunk: Array, joint_positions: Array) -> str:
    """As :func:`problem_of`, without regard to where the tool is: numbers, quaternions and openings only."""
    broken = np.argwhere(~np.isfinite(chunk))
    if len(broken):
        step, entry = broken[0]
        return f"target {step} of its chunk has {chunk[step, entry]} as {ENTRIES[entry]}, which is not finite"
    lengths = np.linalg.norm(chunk[:, 3:7], axis=1)
    wrong = np.flatnonzero((lengths < SHORTEST) | (lengths > LONGEST))
    if len(wrong):
        step = wrong[0]
        return _joints(chunk[step, :7], joint_positions) or (
            f"target {step} of its chunk has the quaternion {_numbers(chunk[step, 3:7])}, far from unit length "
            f"({lengths[step]:.3g}): joint values, velocities, differences or Euler angles? {_POSE}"
        )
    low, high = chunk[:, 7].min(), chunk[:, 7].max()
    if low >= LOWEST_OPENING and high <= HIGHEST_OPENING:
        return ""
    if low < -HIGHEST_OPENING:
        cause = "differences, or values that are still normalised? Give absolute openings"
    elif high <= HIGHEST_OPENING:
        cause = "a gripper from -1 to 1? Give (1 + x) / 2 if 1 opens it, or (1 - x) / 2 if -1 opens it"
    elif low >= LOWEST_OPENING and high <= 110.0:
        cause = "a width in millimetres or per cent? Divide by 80 or by 100"
    else:
        cause = "a gripper from 0 to 255? Divide by 255, and subtract from 1 if 255 closes it"
    return f"its gripper openings range from {low:.3g} to {high:.3g}, and 0 is closed, 1 open: {cause}"


def _joints(values: Array, joint_positions: Array) -> str:
    for unit, factor in (("radians", 1.0), ("degrees", math.pi / 180.0)):
        if np.abs(factor * values - joint_positions).max() <= NEAR_JOINTS:
            return (
                f"its targets start with {_numbers(values)}, which are the arm's joint positions in {unit}, not a "
                f"pose: apply forward kinematics. {_POSE}"
            )
    return ""


def _misplaced(first: Array, tcp_pose: Array) -> str:
    position, tool = first[:3], tcp_pose[:3]
    distance = np.linalg.norm(position - tool)
    if distance <= MAX_DISTANCE:
        return ""
    cause = "another base frame? Give positions in the robot's base frame, in metres"
    for unit, factor in (("millimetres", 1000.0), ("centimetres", 100.0)):
        if np.linalg.norm(position / factor - tool) <= MAX_DISTANCE:
            cause = f"{unit}? Divide positions by {factor:.0f}"
    if np.linalg.norm(position) <= MAX_DISTANCE:
        cause = "a difference or velocity? Give the absolute position: add a difference to the measured one"
    return (
        f"the first target of its chunk is at {_numbers(position)}, {distance:.3g} m away from the tool at "
        f"{_numbers(tool)} ({MAX_DISTANCE} m allowed): {cause}"
    )


def _turned(first: Array, tcp_pose: Array) -> str:
    def angle(quaternion: Array, other: Array) -> float:
        # geometry's functions expect unit quaternions
        unit = quaternion / np.linalg.norm(quaternion)
        return float(np.linalg.norm(rotation_between(unit, other)))

    quaternion, tool = first[3:], tcp_pose[3:]
    turn = angle(quaternion, tool)
    if turn <= MAX_ANGLE:
        return ""
    cause = "another tool frame? The TCP's z axis points out of the fingers, and its y axis from finger to finger"
    if angle(quaternion, np.array([0.0, 0.0, 0.0, 1.0])) <= MAX_ANGLE:
        cause = "a difference from the measured rotation? Give the absolute rotation in the base frame"
    if angle(quaternion[[1, 2, 3, 0]], tool) <= MAX_ANGLE:
        cause = "wxyz? Reorder to xyzw: quaternion[..., [1, 2, 3, 0]]"
    return (
        f"the first target of its chunk has the quaternion {_numbers(quaternion)}, turned by {math.degrees(turn):.0f} "
        f"degrees from the tool's {_numbers(tool)} ({math.degrees(MAX_ANGLE):.0f} allowed): {cause}"
    )


def _numbers(values: Array) -> str:
    return f"({', '.join(f'{round(float(value), 3) + 0.0:g}' for value in values)})"


class GripperWatch:
    """Warns once of a base policy whose gripper openings are suspicious, in tasks that need a grasp.

    Suspicious is a first chunk that closes an open gripper, and a gripper that is not moved in half of the time limit.

    Args:
        policy: name of the base policy.
        num_worlds: number of worlds N.
        patience: number of targets after which a gripper must have moved.
    """

    def __init__(self, policy: str, num_worlds: int, patience: int):
        self._policy, self._patience = policy, patience
        self._ranges = np.tile([np.inf, -np.inf], (num_worlds, 1))
        self._given = np.zeros(num_worlds, np.int64)
        self._open = np.zeros(num_worlds, bool)
        self._is_done = False

    def start(self, worlds: IntArray, openings: Array) -> None:
        """Start episodes in ``worlds`` (n,), with grippers at ``openings`` (n,)."""
        self._ranges[worlds] = np.inf, -np.inf
        self._given[worlds] = 0
        self._open[worlds] = openings > 0.5

    def look(self, worlds: IntArray, openings: Array) -> None:
        """Look at the ``openings`` (n, H) of new chunks in ``worlds`` (n,)."""
        if self._is_done:
            return
        low, high = openings.min(axis=1), openings.max(axis=1)
        at_once = self._open[worlds] & (self._given[worlds] == 0) & (high < 0.5)
        self._ranges[worlds, 0] = low = np.minimum(self._ranges[worlds, 0], low)
        self._ranges[worlds, 1] = high = np.maximum(self._ranges[worlds, 1], high)
        self._given[worlds] += openings.shape[1]
        still = (self._given[worlds] >= self._patience) & ((high < 0.5) | (low > 0.5))
        if at_once.any():
            self._warn("closes the gripper in its first chunk", *self._ranges[worlds[at_once.argmax()]])
        elif still.any():
            row = worlds[still.argmax()]
            self._warn(f"has not moved the gripper in {self._given[row]} control steps", *self._ranges[row])

    def _warn(self, what: str, low: float, high: float) -> None:
        self._is_done = True
        cause = "if 0 opens your gripper, give 1 - opening"
        if 0.0 < high <= SMALL_OPENING:
            cause = f"if these are widths in metres, divide by {MAX_OPENING}; {cause}"
        logger.warn(
            "%s",
            f"base policy {self._policy!r} {what}, in a task that needs a grasp: its openings range from {low:.3g} to "
            f"{high:.3g}, and 0 is closed, 1 open; {cause}",
        )
