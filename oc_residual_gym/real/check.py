"""``real check``: is the cell ready? Everything is measured before the arm moves for the first time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np

from oc_residual_gym.check import Finding
from oc_residual_gym.evaluation import SettingsError
from oc_residual_gym.perception.tracking import TrackedObjects
from oc_residual_gym.real.cell import Cell
from oc_residual_gym.real.session import open_tracker
from oc_residual_gym.real.stops import RobotStopped, StopReason
from oc_residual_gym.worlds.fr3 import PERIOD, FR3World

HAND_MASS = 0.73
"""Kilograms of the Franka Hand (product manual)."""
MASS_TOLERANCE = 0.05
"""Kilograms; 0.15 kg more pull the TCP down by 1.8 mm at 800 N/m."""
LATE_PERIOD = 0.06
"""Seconds: the 99th percentile of measured control periods must be shorter."""
STOP_LIMIT = 0.5
"""Seconds from a stop to rest, of an arm that stands still."""
MOVED_LIMIT = 0.002
"""Metres that the arm may move while it is told to stay where it is."""
SECONDS = 2.0
"""For which poses and control periods are measured."""


def check_cell(cell: Cell, task: str) -> list[Finding]:
    """Look at calibration, poses, robot, hand and stop, in this order; the arm is told to stay where it is.

    Raises:
        SettingsError: the file names a pose source that cannot exist.
    """
    findings: list[Finding] = []
    with open_tracker(cell, task) as tracker:
        findings += _poses(tracker)
        try:
            world = FR3World(cell, task, tracker)
        except RobotStopped as error:
            return [*findings, Finding("connection, frames", False, error.detail, "see docs/real_robot.md, the robot")]
        with world:
            findings += _robot(world)
            findings += _motion(world)
    return findings


def _poses(tracker: TrackedObjects) -> list[Finding]:
    try:
        tracker.reset(np.zeros(1, int), [])
    except (RobotStopped, SettingsError) as error:
        return [Finding("poses", False, str(error), "start the pose publisher; see docs/pose_messages.md")]
    stamps, ages = set(), []
    for _ in _every(PERIOD):
        tracker.observe(np.zeros((1, 7)))
        stamps.add(tracker.newest_stamp)
        ages.append(np.nanmax(tracker.readings.ages))
    rate, age = len(stamps) / SECONDS, float(np.nanmean(ages))
    label = tracker.calibration_label
    return [
        Finding("calibration", True, label),
        Finding(
            "poses",
            rate >= 5.0 and age < tracker.max_age,
            f"at least {rate:.0f} a second, {1e3 * age:.0f} ms old on average",
            f"poses older than {tracker.max_age} s are not used: make the tracker faster, or its computer less busy",
        ),
    ]


def _robot(world: FR3World) -> list[Finding]:
    state, wanted = world.arm_state(), HAND_MASS + world.cell.robot.payload_mass
    return [
        Finding("connection, frames", True, f"{world.cell.robot.host}, TCP as in our model"),
        Finding(
            "payload",
            not world.cell.robot.realtime or abs(state.mass - wanted) < MASS_TOLERANCE,
            f"the robot was told {state.mass:.2f} kg, hand and payload_mass are {wanted:.2f} kg",
            "set the end effector and its load in Desk, and payload_mass in the cell's file",
        ),
    ]


def _motion(world: FR3World) -> list[Finding]:
    """Hold the present pose for a while, and stop."""
    start = world.robot.tcp_pose[0].copy()
    target = np.concatenate([start, [1.0 if world.robot.gripper_width[0] > 0.02 else 0.0]])
    for _ in _every(0.0):
        world.step(target[None])
        if world.stopped[0]:
            report = world.stop_report()
            return [Finding("control", False, f"the arm stopped: {world.stop_reason(0)}: {report and report.detail}")]
    periods = np.array(world.periods)
    late, rate = float(np.percentile(periods, 99)), world.arm_state().success_rate
    world.stop(0, StopReason.OPERATOR_STOP, "trial of the stop")
    report = world.stop_report()
    took = None if report is None or report.stopped_at is None else report.stopped_at - report.seen_at
    with suppress(RobotStopped):
        world.recover()
    moved = float(np.linalg.norm(world.arm_state().tcp_pose[:3] - start[:3]))
    return [
        Finding(
            "control",
            late < LATE_PERIOD and rate > 0.95,
            f"period {1e3 * periods.mean():.1f} ms (99 % below {1e3 * late:.1f}); {rate:.0%} of the commands in time",
            "use a real-time kernel, and let nothing else run on the control computer",
        ),
        Finding(
            "stop",
            took is not None and took < STOP_LIMIT and moved < MOVED_LIMIT,
            "the arm did not come to rest"
            if took is None
            else f"{1e3 * took:.0f} ms, moved {1e3 * moved:.1f} mm in all",
            "do not run trials; an arm that moves here has a wrong payload or end effector in Desk",
        ),
    ]


def _every(seconds: float, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    end = clock() + SECONDS
    while clock() < end:
        yield
        time.sleep(seconds)
