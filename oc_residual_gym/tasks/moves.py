"""What the scripted experts are made of: tool poses, and the legs of picking up, setting down and letting go.

An expert keeps no memory, so that each of these moves returns whatever is left of it in the present state,
and returns it again, shorter, the next time. Poses are (7,) arrays: metres, quaternion xyzw, base frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oc_residual_gym.geometry import clip_norm, rotate, rotate_inverse, rotation_between
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import Snapshot, Waypoint, heading

FAST, STEADY, SLOW = 0.009, 0.006, 0.003
"""Metres a control step: through free space (10 mm are allowed), near objects, and into contact."""
EASE = 0.03
"""Metres before a goal at which to slow down: half a period of the impedance's swing ahead of it, so that
the two swings nearly cancel (3 mm of overshoot instead of 10)."""
PRESS = 0.002
"""Metres by which to aim below where an object comes to rest: it is let go with 2 N on it, not in the air."""
SETTLE = 3
"""Control steps after which the arm, which follows its target late, has nearly come to rest."""
HOVER = 0.08
"""Metres above a grasp at which the fingertips clear everything on the table."""
GRASP_WAIT = 16
"""Control steps, 0.8 s: the longest that the fingers take to close on an object, in any physics domain."""
RELEASE_WAIT = 5
"""Control steps after which opened fingers are clear of an object."""


def tool_down(yaw: float) -> Array:
    """(4,) orientation of a vertical tool whose x axis points along ``yaw``; its fingers open across that."""
    return np.array([np.cos(yaw / 2), np.sin(yaw / 2), 0.0, 0.0])


def tool_pose(position: Sequence[float] | Array, yaw: float) -> Array:
    """Pose of a vertical tool at ``position`` whose x axis points along ``yaw``."""
    return np.concatenate([position, tool_down(yaw)])


def above(pose: Array, height: float) -> Array:
    """``pose``, moved up by ``height`` metres."""
    return np.concatenate([pose[:2], [pose[2] + height], pose[3:]])


def nearest_yaw(yaw: float, reference: float, period: float = 2 * np.pi) -> float:
    """The one of ``yaw`` plus multiples of ``period`` that is nearest to ``reference``, in radians."""
    return yaw + period * round((reference - yaw) / period)


def is_over(pose: Array, goal: Array, distance: float = 0.005, angle: float = 0.05) -> bool:
    """Is ``pose`` straight above ``goal``, to ``distance`` metres in the plane and ``angle`` radians?"""
    turn = rotation_between(pose[3:], goal[3:])
    return bool(np.hypot(*(pose[:2] - goal[:2])) < distance and np.linalg.norm(turn) < angle)


def is_holding(state: Snapshot) -> bool:
    """Is the hand closed, with both fingers on the object of the contacts "left" and "right"?"""
    return state.gripper_closed and state.contacts["left"] and state.contacts["right"]


def top_grasp(state: Snapshot, pose: Array, period: float) -> Array:
    """Tool pose for an object at ``pose`` that looks the same every ``period`` radians about the vertical.

    The fingers close across the object's x axis, after as little turning of the hand as possible.
    """
    return tool_pose(pose[:3], nearest_yaw(heading(pose[3:]), heading(state.target[3:7]), period))


def move(start: Array, goal: Array, closed: bool, speed: float) -> list[Waypoint]:
    """From ``start`` to rest at ``goal``: the last bit slowly."""
    way = start[:3] - goal[:3]
    brake = np.concatenate([goal[:3] + clip_norm(way, EASE), goal[3:]])
    return [Waypoint(brake, closed, speed=speed), Waypoint(goal, closed, wait=SETTLE, speed=SLOW)]


def approach(state: Snapshot, goal: Array, closed: bool, height: float = HOVER) -> list[Waypoint]:
    """Up to ``height`` above ``goal`` where needed, across to there, and straight down to it."""
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
    """Come down to the pose ``grasp`` around an object, ``width`` metres thick there, and close the hand.

    What follows is left to the next call, which sees whether the object is held.
    """
    if state.gripper_closed and state.gripper_width > width - 0.003:
        return [Waypoint(state.target[:7], True, wait=GRASP_WAIT)]
    return [*approach(state, grasp, False, height), Waypoint(grasp, True, wait=GRASP_WAIT)]


def place(state: Snapshot, held: Array, goal: Array, yaw: float, height: float = HOVER) -> list[Waypoint]:
    """Carry an object in the hand over its goal, lower it with the tool upright, and let go.

    Args:
        state: where things are.
        held, goal: (3,) positions of the object, now and in the end.
        yaw: heading of the tool in the end.
        height: metres above the goal at which it is carried.
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
    """Let go where the hand is, then straight up to ``height`` above the table."""
    here = state.target[:7]
    wait = 0 if state.gripper_width > 0.07 else RELEASE_WAIT
    up = np.concatenate([here[:2], [state.table_height + height], here[3:]])
    return [Waypoint(here, False, wait=wait), Waypoint(up, False, speed=STEADY)]
