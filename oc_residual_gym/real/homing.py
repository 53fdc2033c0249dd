"""The way home: the tool is drawn back and raised where it is low, then the joints move to the home posture.

Slow and compliant, and given up once the arm does not follow. Whatever is raised here leaves the arm in motion: the
caller stops it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

import franky
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import RobotStopped, StopReason
from oc_residual_gym.robots.constants import JOINT_LOWER, JOINT_UPPER
from oc_residual_gym.states import Array

RETREAT = 0.04
"""Metres that the hand draws back before it is raised."""
RAISED = 0.25
"""Metres above the table up to which the TCP is raised before the joints move."""
RAISE_TOLERANCE, RAISE_SETTLE = 0.03, 1.0
"""Metres below that height at which the TCP counts as raised, and seconds that it is given to get there."""
STIFFNESS = np.array([600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0])
DAMPING = np.array([50.0, 50.0, 50.0, 50.0, 30.0, 25.0, 15.0])
"""Nm/rad and Nm s/rad of each joint, from libfranka's example ``joint_impedance_control``. Compliant, and indifferent
to a late command, where a joint motion ends in a reflex."""
ERROR_LIMIT = 0.1
"""Radians between any joint and its reference: 60 Nm at the shoulder, which only something in the way calls for."""
REACH = 0.8
"""Metres from the TCP to the axes that move it farthest: turns the speed cap into one for joints."""
PEAK = 1.5
"""The blend along the way is as many times as fast in its middle as on average."""
SETTLE = 0.5
"""Seconds at the home posture before the arm is let go."""
TICK = 0.005
"""Seconds from one reference to the next."""

ImpedanceTracker: TypeAlias = franky.CartesianImpedanceTracker | franky.JointImpedanceTracker
Pause = Callable[[float], None]
"""Waits some seconds; raises ``RobotStopped`` when the way is to be given up."""


def homing_limit(speed_cap: float) -> float:
    """Seconds that the longest way home takes at most."""
    return 15.0 + (RETREAT + RAISED + PEAK * REACH * float((JOINT_UPPER - JOINT_LOWER).max())) / speed_cap


def check_control(robot: franky.Robot, tracker: ImpedanceTracker) -> None:
    """Raise what ended control, if it ended."""
    if tracker.tick() is None:
        robot.join_motion(1.5)
        raise RobotStopped(StopReason.ROBOT_REFLEX, "control ended without a reason")


def raise_tool(
    robot: franky.Robot,
    track: Callable[[], franky.CartesianImpedanceTracker],
    tcp_pose: Callable[[], Array],
    speed_cap: float,
    pause: Pause,
) -> None:
    """Back out of what the hand may touch, against the direction that it points in, and up."""
    start = tcp_pose()
    if start[2] >= RAISED:
        return
    turn = start[3:] / np.linalg.norm(start[3:])
    back = start[:3] - RETREAT * Rotation.from_quat(turn).as_matrix()[:, 2]
    up = np.array([back[0], back[1], max(RAISED, back[2])])
    tracker = track()

    def aim(position: Array) -> None:
        pause(TICK)
        check_control(robot, tracker)
        tracker.set_target(franky.Affine(position, turn))

    for origin, goal in ((start[:3], back), (back, up)):
        seconds, begun, share = float(np.linalg.norm(goal - origin)) / speed_cap, time.monotonic(), 0.0
        while share < 1.0:
            share = min((time.monotonic() - begun) / max(seconds, TICK), 1.0)
            aim(origin + share * (goal - origin))
    arrived = time.monotonic()
    while (height := tcp_pose()[2]) < up[2] - RAISE_TOLERANCE:
        if time.monotonic() - arrived > RAISE_SETTLE:
            where = f"to {1e3 * height:.0f} mm above the table and not to {1e3 * up[2]:.0f} mm"
            raise RobotStopped(StopReason.ROBOT_REFLEX, f"the tool rose only {where}: what holds the hand or the arm?")
        aim(up)
    tracker.stop()


def move_joints(robot: franky.Robot, goal: Array, speed_cap: float, pause: Pause) -> None:
    """Move every joint to ``goal`` (7,), all of them arriving at the same time."""
    start, begun = np.array(robot.state.q), time.monotonic()
    duration = max(PEAK * float(np.abs(goal - start).max()) * REACH / speed_cap, TICK)
    tracker = franky.JointImpedanceTracker(robot, stiffness=STIFFNESS, damping=DAMPING)
    while (elapsed := time.monotonic() - begun) < duration + SETTLE:
        check_control(robot, tracker)
        share = min(elapsed / duration, 1.0)
        reference = start + share * share * (3.0 - 2.0 * share) * (goal - start)
        error = np.array(robot.state.q) - reference
        worst = int(np.abs(error).argmax())
        if abs(error[worst]) > ERROR_LIMIT:
            where = f"joint {worst + 1} is {abs(error[worst]):.2f} rad from where it should be"
            raise RobotStopped(StopReason.ROBOT_REFLEX, f"{where} on the way to the home posture: what holds the arm?")
        tracker.set_target(reference, 6.0 * share * (1.0 - share) / duration * (goal - start))
        pause(TICK)
    tracker.stop()
