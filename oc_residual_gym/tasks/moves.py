"""Building blocks of the scripted experts: tool poses, and the legs for picking, placing and releasing objects.

An expert has no memory: each move returns only what is left to do in the current state, so a later call returns fewer
legs. Poses are (7,) arrays: metres, quaternion xyzw, base frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oc_residual_gym.geometry import clip_norm, rotate, rotate_inverse, rotation_between
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import Snapshot, Waypoint, heading

FAST, STEADY, SLOW = 0.009, 0.006, 0.003
"""Metres per control step: in free space (the rate limit is 10 mm), near objects, and into contact."""
EASE = 0.03
"""Distance in metres before a goal at which to slow down: half a period of the impedance's oscillation, so that the two
oscillations nearly cancel (3 mm of overshoot instead of 10)."""
PRESS = 0.002
"""Metres by which to aim below an object's resting height, so that it is released under 2 N and not in the air."""
SEEN_CONTACT = 0.008
"""Metres above its resting height below which an object seems to rest: a tracker's error, and the lag of its filter."""
SETTLE = 3
"""Control steps until the arm, which lags behind its target, has nearly come to rest."""
HOVER = 0.08
"""Height in metres above a grasp at which the fingertips clear everything on the table."""
GRASP_WAIT = 16
"""Control steps (0.8 s): the longest time that the fingers need to close on an object in any physics domain."""
RELEASE_WAIT = 5
"""Control steps after which opened fingers are clear of an object."""


def tool_down(yaw: float) -> Array:
    """Orientation (4,) of a vertical tool whose x axis points along ``yaw``; the fingers open across that axis."""
    return np.array([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0])


def tool_pose(position: Sequence[float] | Array, yaw: float) -> Array:
    """Pose of a vertical tool at ``position`` whose x axis points along ``yaw``."""
    return np.concatenate([position, tool_down(yaw)])


def above(pose: Array, height: float) -> Array:
    """Move ``pose`` up by ``height`` metres."""
    return np.concatenate([pose[:2], [pose[2] + height], pose[3:]])


def nearest_yaw(yaw: float, reference: float, period: float = 2 * np.pi) -> float:
    """Add the multiple of ``period`` to ``yaw`` that brings it nearest to ``reference``, in radians."""
    return yaw + period * round((reference - yaw) / period)


def is_over(pose: Array, goal: Array, distance: float = 0.005, angle: float = 0.05) -> bool:
    """Whether ``pose`` is above ``goal``, within ``distance`` metres in the plane and ``angle`` radians."""
    turn = rotation_between(pose[3:], goal[3:])
    return bool(np.hypot(*(pose[:2] - goal[:2])) < distance and np.linalg.norm(turn) < angle)


def is_holding(state: Snapshot) -> bool:
    """Whether the hand is closed and both fingers touch the object (contacts "left" and "right")."""
    return state.gripper_closed and state.contacts["left"] and state.contacts["right"]


def top_grasp(state: Snapshot, pose: Array, period: float) -> Array:
    """Tool pose to grasp an object at ``pose`` from above; it looks the same every ``period`` radians of yaw.

    The fingers close across the object's x axis, at the yaw that turns the hand least.
    """
    return tool_pose(pose[:3], nearest_yaw(heading(pose[3:]), heading(state.target[3:7]), period))


def move(start: Array, goal: Array, closed: bool, speed: float) -> list[Waypoint]:
    """Move from ``start`` to ``goal``, slow down for the last ``EASE`` metres, and come to rest."""
    way = start[:3] - goal[:3]
    brake = np.concatenate([goal[:3] + clip_norm(way, EASE), goal[3:]])
    return [Waypoint(brake, closed, speed=speed), Waypoint(goal, closed, wait=SETTLE, speed=SLOW)]


def approach(state: Snapshot, goal: Array, closed: bool, height: float = HOVER) -> list[Waypoint]:
    """Rise to ``height`` metres above ``goal`` if needed, move over the goal, and go straight down to it."""
    here, over = state.target[:7], above(goal, height)
    if is_over(here, goal):
        return move(here, goal, closed, STEADY)
    up = np.concatenate([here[:2], np.maximum(here[2:3], over[2]), here[3:]])
    return [
        Waypoint(up, closed, speed=STEADY),
        *move(up, over, closed, FAST),
        *move(over, goal, closed, STEADY),
    ]


def pick(state: Snapshot, grasp: Array, width: float, height: float = HOVER) -> list[Waypoint]:
    """Come down to the pose ``grasp`` and close the hand on an object that is ``width`` metres thick there.

    The legs end there: the expert's next call sees whether the object is held and plans on.
    """
    if state.gripper_closed and state.gripper_width > width - 0.003:
        return [Waypoint(state.target[:7], True, wait=GRASP_WAIT)]
    return [*approach(state, grasp, False, height), Waypoint(grasp, True, wait=GRASP_WAIT)]


def place(state: Snapshot, held: Array, goal: Array, yaw: float, height: float = HOVER) -> list[Waypoint]:
    """Carry an object in the hand over its goal, lower it with the tool upright, and let go.

    Args:
        state: true state of the world.
        held, goal: (3,) current and final position of the object, metres.
        yaw: final heading of the tool, radians.
        height: metres above the goal at which the object is carried.
    """
    in_hand = rotate_inverse(state.tcp_pose[3:], held - state.tcp_pose[:3])
    tool = tool_pose(goal - rotate(tool_down(yaw), in_hand), yaw)
    legs = approach(state, tool, True, height)
    return [
        *legs,
        Waypoint(tool, False, wait=RELEASE_WAIT),
        Waypoint(above(tool, height), False, speed=STEADY),
    ]


def release(state: Snapshot, height: float) -> list[Waypoint]:
    """Open the hand where it is, then move straight up to ``height`` metres above the table."""
    here = state.target[:7]
    wait = 0 if state.gripper_width > 0.07 else RELEASE_WAIT
    up = np.concatenate([here[:2], [state.table_height + height], here[3:]])
    return [Waypoint(here, False, wait=wait), Waypoint(up, False, speed=STEADY)]
