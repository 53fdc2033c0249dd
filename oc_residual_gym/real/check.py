"""``real check``: tests whether a cell is ready, before the arm moves for the first time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from oc_residual_gym.check import Finding
from oc_residual_gym.errors import RobotStopped, SettingsError, StopReason
from oc_residual_gym.real.arm_state import HAND_MASS
from oc_residual_gym.real.cell import Cell
from oc_residual_gym.real.session import open_tracker
from oc_residual_gym.real.tracking import TrackedObjects
from oc_residual_gym.real.world import FR3World
from oc_residual_gym.states import Array, BoolArray, IntArray, Readings
from oc_residual_gym.tasks import TASKS

MASS_TOLERANCE = 0.05
"""Allowed error of the payload in kilograms; 0.15 kg too little lowers the TCP by 1.8 mm at 800 N/m."""
LATE_PERIOD = 0.06
"""Limit in seconds on the 99th percentile of measured control periods."""
STOP_LIMIT = 0.5
"""Limit in seconds from a stop to rest, for an arm that holds its pose."""
MOVED_LIMIT = 0.002
"""Limit in metres on the arm's motion while it should hold its pose."""
SECONDS = 2.0
"""Duration of each measurement, of poses and of control periods, in seconds."""
POLL = 0.005
"""Seconds between reads of the poses, shorter than any camera's period."""
LOWEST_RATE, LOWEST_SHARE = 15.0, 0.6
"""Poses per second, and share of the time with all objects seen, that trials need."""
MESSAGES = "docs/pose_messages.md"


class NoPoses:
    """Tracker for a world that only holds its arm in place: it sees no objects and reports no faults."""

    newest_stamp = np.inf
    calibration_label = ""

    def __init__(self, count: int):
        self._count = count
        nothing = np.full((count, 7), np.nan), np.full(count, np.nan), np.zeros(count, bool)
        self.readings = Readings(*nothing, ("missing",) * count)

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator], physics: object = None) -> None:
        """Do nothing: it has no state."""

    def observe(
        self, tcp_pose: Array, closed: BoolArray | None = None, worlds: IntArray | None = None
    ) -> tuple[Array, BoolArray]:
        """No object is seen: poses (1, K, 7) of NaN, and (1, K) false."""
        return np.full((1, self._count, 7), np.nan), np.zeros((1, self._count), bool)

    @property
    def used_poses(self) -> Array:
        """(K, 7) NaN."""
        return np.full((self._count, 7), np.nan)

    def as_wxyz(self, poses: Array) -> Array:
        """The poses themselves."""
        return poses

    def fault(self) -> None:
        """Always ``None``."""

    def wrench_noise(self) -> Array:
        """(1, 6) zeros."""
        return np.zeros((1, 6))


def check_cell(cell: Cell, task: str) -> list[Finding]:
    """Check calibration, poses, connection, payload, control and stop, in this order; the arm holds its pose.

    Raises:
        SettingsError: the pose source's address or the calibration's file is invalid.
    """
    findings: list[Finding] = []
    with open_tracker(cell, task) as tracker:
        findings += _poses(tracker)
        usable = all(finding.ready for finding in findings)
        try:
            # Bad poses have been reported already; without a tracker they cannot stop the arm and hide other findings.
            world = FR3World(cell, task, tracker if usable else NoPoses(len(TASKS[task].objects)))
        except RobotStopped as error:
            return [*findings, Finding("connection, frames", False, error.detail, _remedy(cell, error.reason))]
        with world:
            findings += _robot(world)
            findings += _motion(world)
    return findings


def _remedy(cell: Cell, reason: StopReason) -> str:
    """What to do if the robot cannot be used."""
    if reason is StopReason.ROBOT_SETTINGS:
        return "see docs/real_robot.md, step 3"
    realtime = "" if cell.robot.realtime else "; realtime: false is for a rehearsal, not for a robot"
    return f"is {cell.robot.host} its address, and is it ready? See docs/real_robot.md, steps 2 and 3{realtime}"


def _poses(tracker: TrackedObjects) -> list[Finding]:
    try:
        tracker.reset(np.zeros(1, int), [])
    except SettingsError as error:
        remedy = (
            "the calibration's file and the publisher name the same id; where poses come in the base frame without "
            "one, leave calibration out of the cell's file"
        )
        return [Finding("calibration", False, str(error), remedy)]
    except RobotStopped as error:
        return [Finding("poses", False, str(error), _pose_remedy(error.reason))]
    stamps, ages, seen, fault = set(), [], [], None
    for _ in _every(POLL):
        tracker.observe(np.zeros((1, 7)))
        stamps.add(tracker.newest_stamp)
        ages.append(tracker.readings.ages)
        seen.append(tracker.readings.accepted.all())
        fault = fault or tracker.fault()
    calibration = Finding("calibration", True, tracker.calibration_label)
    if fault is not None:
        return [calibration, Finding("poses", False, f"{fault[0]}: {fault[1]}", _pose_remedy(fault[0]))]
    rate, share, known = len(stamps) / SECONDS, float(np.mean(seen)), np.concatenate(ages)
    age = float(known[np.isfinite(known)].mean()) if np.isfinite(known).any() else np.inf
    return [
        calibration,
        Finding(
            "poses",
            rate >= LOWEST_RATE and age < tracker.max_age and share >= LOWEST_SHARE,
            f"{rate:.0f} per second, {1e3 * age:.0f} ms old on average; all objects seen {share:.0%} of the time",
            f"needed are {LOWEST_RATE:.0f} per second, younger than {tracker.max_age} s, {LOWEST_SHARE:.0%} of the "
            "time: make the tracker faster, its computer less busy, or the objects easier to see",
        ),
    ]


def _pose_remedy(reason: StopReason) -> str:
    if reason is StopReason.POSES_SILENT:
        return "does the publisher run, under this address and these names, with the objects in view? See " + MESSAGES
    return "register the object anew, or restart its tracker; see " + MESSAGES


def _robot(world: FR3World) -> list[Finding]:
    state, robot = world.arm_state(), world.cell.robot
    wanted = HAND_MASS + robot.payload_mass
    told = f"the robot was told {state.mass:.2f} kg, hand and payload_mass are {wanted:.2f} kg"
    return [
        Finding("connection, frames", True, f"{robot.host}, TCP as in our model"),
        Finding(
            "payload",
            robot.is_rehearsed or abs(state.mass - wanted) < MASS_TOLERANCE,
            "not checked: a rehearsal's arm carries nothing" if robot.is_rehearsed else told,
            "set the end effector and its load in Desk, and payload_mass in the cell's file",
        ),
    ]


def _motion(world: FR3World) -> list[Finding]:
    """Hold the present pose for :data:`SECONDS`, then stop."""
    start = world.robot.tcp_pose[0].copy()
    target = np.concatenate([start, [1.0 if world.robot.gripper_width[0] > 0.02 else 0.0]])
    for _ in _every(0.0):
        world.step(target[None])
        if world.stopped[0]:
            report = world.stop_report()
            detail = f"the arm stopped: {world.stop_reason(0)}: {report and report.detail}"
            return [Finding("control", False, detail, 'see docs/real_robot.md, "Why the arm stopped"')]
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
            else f"at rest after {1e3 * took:.0f} ms, moved {1e3 * moved:.1f} mm in all",
            f"do not run trials: the limits are {1e3 * STOP_LIMIT:.0f} ms and {1e3 * MOVED_LIMIT:.0f} mm. If the arm "
            "moves, check payload and end effector in Desk; if it stops late, the control computer is too busy",
        ),
    ]


def _every(seconds: float) -> Iterator[None]:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        yield
        time.sleep(seconds)
