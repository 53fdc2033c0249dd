"""Homing: draw back and raise the tool if it is low, then move the joints to the home posture.

The motion is slow and compliant, and is aborted if the arm does not follow. Its references follow the robot's clock: a
simulated robot on a busy machine is late, and not held by anything. Exceptions leave the arm in motion: the caller must
stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import franky
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import RobotStopped, StopReason
from oc_residual_gym.real.arm_state import finite
from oc_residual_gym.robots.constants import JOINT_LOWER, JOINT_UPPER
from oc_residual_gym.states import Array

RETREAT = 0.04
"""Distance in metres by which the hand draws back before it is raised."""
RAISED = 0.25
"""Height above the table, in metres, to which the TCP is raised before the joints move."""
RAISE_TOLERANCE, RAISE_SETTLE = 0.03, 1.0
"""Tolerance of that height in metres, and seconds to reach it."""
STIFFNESS = np.array([600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0])
DAMPING = np.array([50.0, 50.0, 50.0, 50.0, 30.0, 25.0, 15.0])
"""Per joint, in Nm/rad and Nm s/rad, from libfranka's example ``joint_impedance_control``. Impedance control is
compliant and tolerates late commands; a joint motion would end in a reflex."""
ERROR_LIMIT = 0.1
"""Largest error of a joint in radians (60 Nm at the shoulder): a larger one means that something is in the way."""
REACH = 0.8
"""Distance in metres from the TCP to the joint axes that move it fastest; converts the speed cap to joint speed."""
PEAK = 1.5
"""Ratio of peak to mean speed along the joint motion."""
SETTLE = 0.5
"""Seconds to hold the home posture before control ends."""
JOINTS = "the joints' positions were"
TICK = 0.005
"""Seconds between references."""

ImpedanceTracker: TypeAlias = franky.CartesianImpedanceTracker | franky.JointImpedanceTracker
Pause = Callable[[float], None]
"""Waits for some seconds; raises ``RobotStopped`` if homing must be aborted."""


def homing_limit(speed_cap: float) -> float:
    """Upper limit on the duration of homing, in seconds."""
    return 15.0 + (RETREAT + RAISED + PEAK * REACH * float((JOINT_UPPER - JOINT_LOWER).max())) / speed_cap


def robot_seconds(robot: franky.Robot) -> float:
    """The robot's own clock."""
    return float(robot.state.time.to_msec()) / 1e3


def check_control(robot: franky.Robot, tracker: ImpedanceTracker) -> None:
    """If control has ended, raise the error that ended it."""
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
    """Draw the hand back against its pointing direction, away from what it may touch, then raise it.

    Args:
        robot: the robot.
        track: takes control; returns the impedance tracker.
        tcp_pose: reads the TCP pose (7,).
        speed_cap: m/s.
        pause: waits; raises if homing must be aborted.

    Raises:
        RobotStopped: control ended, the tool does not rise, or ``pause`` raised it.
    """
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
        seconds, begun, share = float(np.linalg.norm(goal - origin)) / speed_cap, robot_seconds(robot), 0.0
        while share < 1.0:
            share = min((robot_seconds(robot) - begun) / max(seconds, TICK), 1.0)
            aim(origin + share * (goal - origin))
    arrived = robot_seconds(robot)
    while (height := tcp_pose()[2]) < up[2] - RAISE_TOLERANCE:
        if robot_seconds(robot) - arrived > RAISE_SETTLE:
            where = f"to {1e3 * height:.0f} mm above the table and not to {1e3 * up[2]:.0f} mm"
            raise RobotStopped(StopReason.ROBOT_REFLEX, f"the tool rose only {where}: what holds the hand or the arm?")
        aim(up)
    tracker.stop()


def move_joints(robot: franky.Robot, goal: Array, speed_cap: float, pause: Pause) -> None:
    """Move the joints to ``goal`` (7,) in radians, so that all arrive at the same time.

    Raises:
        RobotStopped: control ended, a joint does not follow, or ``pause`` raised it.
    """
    start, begun = finite(JOINTS, robot.state.q), robot_seconds(robot)
    duration = max(PEAK * float(np.abs(goal - start).max()) * REACH / speed_cap, TICK)
    tracker = franky.JointImpedanceTracker(robot, stiffness=STIFFNESS, damping=DAMPING)
    while (elapsed := robot_seconds(robot) - begun) < duration + SETTLE:
        check_control(robot, tracker)
        share = min(elapsed / duration, 1.0)
        reference = start + share * share * (3.0 - 2.0 * share) * (goal - start)
        error = finite(JOINTS, robot.state.q) - reference
        worst = int(np.abs(error).argmax())
        if abs(error[worst]) > ERROR_LIMIT:
            where = f"joint {worst + 1} is {abs(error[worst]):.2f} rad from where it should be"
            raise RobotStopped(StopReason.ROBOT_REFLEX, f"{where} on the way to the home posture: what holds the arm?")
        tracker.set_target(reference, 6.0 * share * (1.0 - share) / duration * (goal - start))
        pause(TICK)
    tracker.stop()
