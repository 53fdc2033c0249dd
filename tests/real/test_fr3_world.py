"""FR3World through the real client against the network rig: motion, limits, and every way to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="franky-control is not installed: pip install 'oc-residual-gym[real]'")

import franky
from cells import PATIENCE, Witness
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import RobotStopped, SettingsError, StopReason
from oc_residual_gym.real import arm, homing
from oc_residual_gym.real.arm import FR3Arm, arm_settings
from oc_residual_gym.real.arm_process import ArmProcess
from oc_residual_gym.real.cell import BOUNDS, Cell, Poses, Robot
from oc_residual_gym.real.hand import FrankaHand
from oc_residual_gym.real.rig import Rig, rig_available
from oc_residual_gym.real.world import FR3World, tcp_velocity
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.tasks.base import InitialState

HOME = forward_kinematics(HOME_JOINT_POSITIONS)
STILL = 0.02
"""rad/s."""
STOPPED_WITHIN = 2.5
"""Seconds from when a fault is noticed to an arm at rest."""


class NoTracker:
    """Poses that are always fresh, unless told otherwise."""

    newest_stamp = np.inf

    def fault(self) -> None:
        return None


def cell_at(host: str) -> Cell:
    """A cell whose targets may be missing for as long as its file allows: a busy machine delays them."""
    robot = Robot(host, realtime=False, set_tcp=True, speed_cap=0.2, target_limit=BOUNDS["target_limit"][1])
    return Cell("rig", robot, Poses("tcp://127.0.0.1:1"))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    if reason := rig_available():
        pytest.skip(f"no network rig: {reason}")
    with Rig() as running:
        yield running


class WatchedWorld(FR3World):
    """A world whose robot somebody else watches too."""

    witness: Witness


class OneClient:
    """The robot's only connection: a world that tests share, until one of them needs the robot for itself."""

    def __init__(self, host: str, witness: Witness):
        self._host, self._witness = host, witness
        self._world: WatchedWorld | None = None

    def world(self) -> WatchedWorld:
        if self._world is None:
            self._world = WatchedWorld(cell_at(self._host), "Lift", NoTracker())
            self._world.witness = self._witness
        return self._world

    def close(self) -> None:
        if self._world is not None:
            self._world.close()
        self._world = None


@pytest.fixture(scope="module")
def client(rig: Rig, witness: Witness) -> Iterator[OneClient]:
    client = OneClient(rig.host, witness)
    yield client
    client.close()


@pytest.fixture
def free(client: OneClient) -> None:
    """The robot has no client."""
    client.close()


@pytest.fixture(scope="module")
def witness(rig: Rig) -> Iterator[Witness]:
    with Witness(rig) as witness:
        yield witness


@pytest.fixture
def world(client: OneClient) -> WatchedWorld:
    world = client.world()
    if world.stopped[0]:
        world.recover()
    world.reset()
    return world


def drive(world: FR3World, steps: int, step: tuple[float, ...] = (0.0, 0.0, 0.0), opening: float = 1.0) -> np.ndarray:
    """Move the target from where the TCP is, step by step; the last target (8,)."""
    target = np.append(world.robot.tcp_pose[0], opening)
    for _ in range(steps):
        target[:3] += step
        world.step(target[None])
    return target


def check_stopped(world: WatchedWorld, reason: StopReason) -> None:
    """The arm came to rest for ``reason``, stays there, and does not start again by itself."""
    assert world.stop_reason(0) == reason and world.stopped[0]
    report = world.stop_report()
    assert report is not None and report.stopped_at is not None
    assert world.witness.between(report.seen_at, report.stopped_at).own < STOPPED_WITHIN
    before = world.robot.tcp_pose.copy()
    drive(world, 3, (0.01, 0.0, 0.0))
    np.testing.assert_array_equal(world.robot.tcp_pose, before)
    with pytest.raises(RobotStopped, match="recover"):
        world.reset()
    world.recover()
    world.reset()
    drive(world, 3)
    assert not world.stopped[0] and np.abs(world.robot.joint_velocities).max() < STILL


def test_homes(world: FR3World) -> None:
    np.testing.assert_allclose(world.robot.joint_positions[0], HOME_JOINT_POSITIONS, atol=0.02)
    np.testing.assert_allclose(world.robot.tcp_pose[0, :3], HOME[:3], atol=0.01)
    assert world.robot.gripper_width[0] > 0.075


def test_follows_targets_at_the_control_rate(world: FR3World) -> None:
    began = time.monotonic()
    target = drive(world, 10, (0.0, 0.005, 0.0))
    for _ in range(20):
        world.step(target[None])
    took = world.witness.between(began, time.monotonic())
    np.testing.assert_allclose(world.robot.tcp_pose[0, :3] - HOME[:3], [0.0, 0.05, 0.0], atol=0.005)
    assert len(world.periods) == 29 and np.mean(world.periods) > 0.045 and took.own < 0.055 * 30
    assert not world.stopped[0]


def test_reports_velocities_of_the_tcp(world: FR3World) -> None:
    drive(world, 10, (0.0, 0.005, 0.0))
    began, start = time.monotonic(), world.robot.tcp_pose[0, 1]
    drive(world, 5, (0.0, 0.005, 0.0))
    mean = (world.robot.tcp_pose[0, 1] - start) / world.witness.between(began, time.monotonic()).seconds
    linear = world.robot.tcp_velocity[0, :3]
    assert 0.5 * mean < linear[1] < 2.0 * mean and abs(linear[0]) < 0.5 * mean and abs(linear[2]) < 0.5 * mean


def test_tcp_velocity_is_the_derivative_of_the_pose() -> None:
    q, dq, dt = HOME_JOINT_POSITIONS + 0.1, np.array([0.1, -0.2, 0.3, 0.2, -0.1, 0.3, 0.5]), 1e-6
    moved = forward_kinematics(q + dq * dt)[:3] - forward_kinematics(q)[:3]
    np.testing.assert_allclose(tcp_velocity(q, dq)[:3], moved / dt, atol=1e-5)
    tool_z = Rotation.from_quat(forward_kinematics(q)[3:]).apply([0.0, 0.0, 1.0])
    np.testing.assert_allclose(tcp_velocity(q, np.eye(7)[6])[3:], tool_z, atol=1e-6)  # the last joint's axis


def test_the_speed_cap_becomes_a_share_of_the_rate_limit() -> None:
    cell = cell_at("127.99.0.1")
    slow = replace(cell, robot=replace(cell.robot, speed_cap=0.1))
    assert FR3World(slow, "Lift", NoTracker(), dry_run=True).speed == pytest.approx(0.5)
    assert FR3World(cell, "Lift", NoTracker(), dry_run=True).speed == 1.0


def test_the_hand_follows_the_opening(world: WatchedWorld) -> None:
    for opening, low, high in ((0.0, 0.0, 0.005), (1.0, 0.075, 0.1)):
        began = time.monotonic()
        while world.witness.between(began, time.monotonic()).seconds < 2.0:
            drive(world, 1, opening=opening)
        assert low <= world.robot.gripper_width[0] < high


def test_starts_with_a_closed_hand_where_the_task_does(world: FR3World) -> None:
    world.reset(np.zeros(1, int), [InitialState(poses={}, gripper_closed=True)], [None])
    assert world.robot.gripper_width[0] < 0.005


def test_the_wrench_is_zero_at_home(world: FR3World, monkeypatch: pytest.MonkeyPatch) -> None:
    biased, state = np.array([3.0, -2.0, 1.0, 0.1, 0.2, -0.3]), FR3Arm.state
    monkeypatch.setattr(FR3Arm, "state", lambda self: replace(s := state(self), wrench=s.wrench + biased))
    world.reset()
    np.testing.assert_allclose(world.wrench_bias, biased, atol=0.5)
    drive(world, 3)
    np.testing.assert_allclose(world.robot.wrench[0], 0.0, atol=0.5)


def pause_until_it_stops(world: FR3World) -> None:
    """Send no target until the arm does not wait for one any more."""
    deadline = time.monotonic() + PATIENCE
    while world.arm_state().stop is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_pause_in_the_middle_of_an_episode_is_one(world: FR3World) -> None:
    drive(world, 5, (0.005, 0.0, 0.0))
    pause_until_it_stops(world)
    drive(world, 1)
    check_stopped(world, StopReason.TARGETS_STALE)


def test_recovering_an_arm_that_moves_stops_it(world: FR3World) -> None:
    drive(world, 15, (0.0, 0.008, 0.0))
    assert np.abs(world.robot.joint_velocities).max() > 0.1
    world.recover()
    assert np.abs(world.arm_state().joint_velocities).max() < 1.5 * STILL
    world.reset()


def test_the_operator_stops_it_on_the_way_home(world: FR3World, monkeypatch: pytest.MonkeyPatch) -> None:
    drive(world, 30, (0.0, 0.008, 0.0))
    asked_at: list[float] = []

    def should_stop() -> bool:
        asked_at.append(time.monotonic())
        return len(asked_at) > 5

    monkeypatch.setattr(world, "_should_stop", should_stop)
    with pytest.raises(RobotStopped, match="way to the home posture"):
        world.reset()
    report = world.stop_report()
    assert report is not None and report.stopped_at is not None
    assert world.witness.between(asked_at[5], report.stopped_at).own < 1.0
    monkeypatch.undo()
    assert world.robot.tcp_pose[0, 1] > 0.1
    check_stopped(world, StopReason.OPERATOR_STOP)


def test_refuses_targets_that_come_too_fast(world: FR3World) -> None:
    """Small steps, without the time for them."""
    target = drive(world, 5)
    for _ in range(20):
        target[1] += 0.003
        world._arm.send(target, np.inf)
    drive(world, 1)
    check_stopped(world, StopReason.TARGET_REFUSED)
    assert world.robot.tcp_pose[0, 1] < 0.05


def test_what_is_no_target_stops_the_arm(world: FR3World) -> None:
    drive(world, 15, (0.0, 0.008, 0.0))
    assert isinstance(world._arm, FR3Arm)
    world._arm._send("target", "nonsense", np.inf)
    drive(world, 1)
    check_stopped(world, StopReason.PROGRAM_ERROR)


def test_a_stamp_that_is_no_number_is_no_pose(world: FR3World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.tracker, "newest_stamp", np.nan, raising=False)
    drive(world, 3)
    monkeypatch.undo()
    check_stopped(world, StopReason.POSES_SILENT)


def test_a_pause_between_episodes_is_no_fault(world: FR3World) -> None:
    drive(world, 5, (0.005, 0.0, 0.0))
    pause_until_it_stops(world)
    world.reset()
    drive(world, 5)
    assert not world.stopped[0]


@pytest.mark.parametrize("entry", [0, 4, 7])
def test_refuses_targets_that_are_not_finite(world: FR3World, entry: int) -> None:
    target = drive(world, 10, (0.005, 0.0, 0.0))
    target[entry] = np.nan
    world.step(target[None])
    check_stopped(world, StopReason.TARGET_REFUSED)


def test_refuses_targets_outside_the_workspace(world: FR3World) -> None:
    drive(world, 40, (0.0, 0.0, 0.01))
    check_stopped(world, StopReason.TARGET_REFUSED)
    assert world.robot.tcp_pose[0, 2] < 0.61


def test_refuses_targets_that_jump(world: FR3World) -> None:
    target = drive(world, 5)
    target[1] += 0.03
    world.step(target[None])
    check_stopped(world, StopReason.TARGET_REFUSED)


def test_stops_when_poses_fall_silent(world: FR3World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.tracker, "newest_stamp", time.monotonic(), raising=False)
    drive(world, 40)
    monkeypatch.undo()
    check_stopped(world, StopReason.POSES_SILENT)


def test_stops_when_the_tracker_finds_fault(world: FR3World, monkeypatch: pytest.MonkeyPatch) -> None:
    drive(world, 5)
    monkeypatch.setattr(world.tracker, "fault", lambda: (StopReason.POSES_FROZEN, "the same for 1 s"))
    drive(world, 1)
    monkeypatch.undo()
    check_stopped(world, StopReason.POSES_FROZEN)


def test_stops_on_request_and_keeps_the_first_reason(world: FR3World) -> None:
    drive(world, 10, (0.005, 0.0, 0.0))
    world.stop(0, "base_policy_failed")
    world.stop(0, "operator_stop")
    check_stopped(world, StopReason.BASE_POLICY_FAILED)


def test_stops_when_the_hand_is_blocked(world: FR3World, rig: Rig) -> None:
    rig.hand("block")
    drive(world, 80, opening=0.0)
    assert world.stop_reason(0) == StopReason.GRIPPER_BLOCKED
    rig.hand("")
    time.sleep(1.5)
    check_stopped(world, StopReason.GRIPPER_BLOCKED)


def test_a_wrong_tcp_is_refused(rig: Rig, free: None) -> None:
    cell = cell_at(rig.host)
    with pytest.raises(RobotStopped, match=r"mm and .* degrees from ours: set the Franka Hand"):
        FR3World(replace(cell, robot=replace(cell.robot, set_tcp=False)), "Lift", NoTracker())


def test_no_robot_at_the_address() -> None:
    with pytest.raises(RobotStopped, match=r"cannot use the robot at 127\.99\.0\.1.*FCI"):
        FR3World(cell_at("127.99.0.1"), "Lift", NoTracker())


def test_no_process_is_left_of_a_connection_that_takes_too_long(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    started, popen = [], subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(arm, "START_LIMIT", 0.1)
    with pytest.raises(RobotStopped, match=r"did not answer.*FCI"):
        FR3Arm(cell_at(rig.host))
    assert started[0].poll() is not None


class InProcess:
    """The arm's process, here and step by step."""

    def __init__(self, host: str, monkeypatch: pytest.MonkeyPatch):
        self.ours, theirs = Pipe()
        self.process = ArmProcess(theirs, replace(arm_settings(cell_at(host)), target_limit=60.0))
        self.patch = monkeypatch

    def tick(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.process._tick()
            time.sleep(0.005)

    def target(self, *offset: float) -> np.ndarray:
        process = self.process
        pose = np.append(process._state().tcp_pose if process._tracker is None else process._target, 1.0)
        pose[: len(offset)] += offset
        return pose

    def move(self, steps: int) -> None:
        for _ in range(steps):
            self.process._take_target(self.target(0.0, 0.008), np.inf)
            self.tick(0.05)


@pytest.fixture
def inside(rig: Rig, free: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    inside = InProcess(rig.host, monkeypatch)
    inside.process._handle(1, "home", [])
    assert inside.ours.recv()[1].stop is None
    yield inside
    monkeypatch.undo()
    inside.process._recover()


def test_an_error_of_our_own_while_the_arm_moves_stops_it(inside: InProcess) -> None:
    process = inside.process
    inside.move(15)
    assert np.abs(process._state().joint_velocities).max() > 0.1

    def fail(target: Any) -> None:
        raise ValueError("of our own")

    inside.patch.setattr(process._tracker, "set_target", fail)
    process._tick()
    assert process._stop is not None and process._stop.reason == StopReason.PROGRAM_ERROR
    assert process._stop.stopped_at is None  # it still moves
    process._wait_for_rest()
    assert process._stop.stopped_at is not None and not process._robot.is_in_control
    assert np.abs(process._state().joint_velocities).max() < 1.5 * STILL


def test_an_arm_that_does_not_follow_home_is_stopped(inside: InProcess) -> None:
    process = inside.process
    inside.move(20)
    inside.patch.setattr(homing, "STIFFNESS", np.full(7, 1.0))
    inside.patch.setattr(homing, "DAMPING", np.full(7, 1.0))
    process._handle(2, "home", [])
    process._wait_for_rest()
    assert process._stop is not None and "what holds the arm" in process._stop.detail
    assert process._stop.stopped_at is not None and not process._robot.is_in_control


def test_a_reflex_is_not_forgotten_with_a_pause(inside: InProcess) -> None:
    process = inside.process
    reflex = SimpleNamespace(has_errors=True, state=process._robot.state, is_in_control=False)
    inside.patch.setattr(process, "_robot", reflex)
    process._leave(StopReason.TARGETS_STALE, "no target for 0.5 s")
    process._handle(1, "resume", [])
    assert process._stop is not None and process._stop.reason == StopReason.ROBOT_REFLEX


class StubGripper:
    width, max_width, moves = 0.04, 0.08, True

    def __init__(self, host: str):
        pass

    def move_async(self, width: float, speed: float) -> Any:
        return SimpleNamespace(wait=lambda seconds: True, get=lambda: self.moves)


def test_a_hand_that_did_not_open_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(franky, "Gripper", StubGripper)
    monkeypatch.setattr(StubGripper, "moves", False)
    hand = FrankaHand("nowhere")
    hand.command(False)
    with pytest.raises(RobotStopped, match="did not open") as stopped:
        hand.wait()
    hand.close()
    assert stopped.value.reason == StopReason.GRIPPER_BLOCKED


def test_a_hand_that_was_not_homed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(franky, "Gripper", StubGripper)
    monkeypatch.setattr(StubGripper, "max_width", 0.0)
    with pytest.raises(RobotStopped, match="home it in Desk"):
        FrankaHand("nowhere")


@pytest.mark.rig
def test_a_hand_that_holds_something_at_connection_opens() -> None:
    with Rig(object_width=0.04) as rig:
        for closed, width in ((True, 0.04), (False, 0.08)):
            hand = FrankaHand(rig.host)
            hand.command(closed)
            hand.wait()
            time.sleep(0.2)
            hand.close()
            assert hand.width == pytest.approx(width, abs=0.003)


@pytest.mark.rig
def test_recovers_after_the_robot_was_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    with Rig() as rig, FR3World(cell_at(rig.host), "Lift", NoTracker()) as world:
        world.reset()
        drive(world, 5)
        rig.kill()
        drive(world, 60)  # at once when it has stopped
        report = world.stop_report()
        assert report is not None and report.reason == StopReason.LINK_LOST
        with pytest.raises(RobotStopped, match="cannot recover"):
            world.recover()
        monkeypatch.setattr("oc_residual_gym.real.rig._free_host", lambda: rig.host)
        rig.open()
        world.recover()
        world.reset()
        drive(world, 5)
        assert not world.stopped[0]


@pytest.mark.parametrize(
    "setting",
    [
        {"speed_cap": 0.5},
        {"target_limit": 30.0},
        {"target_limit": 0.0},
        {"torque_threshold": 87.0},
        {"speed_cap": np.nan},
    ],
)
def test_limits_that_would_not_protect_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=rf"{next(iter(setting))} is .*; give .* to "):
        replace(cell_at("nowhere").robot, **setting)


def test_dry_run_prints_its_targets(capsys: pytest.CaptureFixture[str]) -> None:
    with FR3World(cell_at("127.99.0.1"), "Lift", NoTracker(), dry_run=True) as world:
        world.reset()
        drive(world, 2, (0.01, 0.0, 0.0), opening=0.0)
        np.testing.assert_allclose(world.robot.tcp_pose[0, :3] - HOME[:3], [0.02, 0.0, 0.0], atol=1e-9)
        assert world.robot.gripper_width[0] == 0.0
    assert "target [440.0, " in capsys.readouterr().out


_HOMING = """
import json, sys, time
sys.path.insert(0, {tests!r})
from test_fr3_world import FR3World, NoTracker, RobotStopped, cell_at, drive, replace
cell = cell_at({host!r})
slow = replace(cell, robot=replace(cell.robot, speed_cap=0.1, target_limit=0.5))
world = FR3World(slow, "Lift", NoTracker())
world.reset()
drive(world, 30, (0.0, 0.004, 0.0))
home = world._arm.home
world._arm.home = lambda should_stop: (print("homing", flush=True), home(should_stop))[1]  # the arm is at rest
try:
    world.reset()
except (RobotStopped, KeyboardInterrupt) as error:
    print(json.dumps([world.stop_report().reason, type(error).__name__]), flush=True)
sys.stdin.readline()  # until the test has seen the arm at rest
world._arm.home = home
world.recover()
world.reset()
print("again", flush=True)
"""
_PROGRAM = """
import json, sys, time
sys.path.insert(0, {tests!r})
from test_fr3_world import FR3World, NoTracker, cell_at, drive
world = FR3World(cell_at({host!r}), "Lift", NoTracker())
world.reset()
print(json.dumps(world._arm._process.pid), flush=True)
while True:
    try:
        drive(world, 20, (0.0, 0.005, 0.0))
        drive(world, 20, (0.0, -0.005, 0.0))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    if world.stopped[0]:
        report = world.stop_report()
        print(json.dumps([report.reason, report.seen_at, report.stopped_at]), flush=True)
        if report.reason == "link_lost":
            break
        world.recover()
        world.reset()
        print("again", flush=True)
"""


@pytest.fixture
def program(rig: Rig, free: None) -> Iterator[subprocess.Popen[str]]:
    """Another process that moves the arm to and fro; its first line is the arm's process id."""
    with started(_PROGRAM, rig) as process:
        yield process
        process.kill()


def started(program: str, rig: Rig) -> subprocess.Popen[str]:
    code = program.format(tests=str(Path(__file__).parent), host=rig.host)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, env=environment)


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_stops_when_the_main_process_is_frozen(program: subprocess.Popen[str], witness: Witness) -> None:
    line_of(program)
    frozen_at, seen_at = 1.0, 0.0
    while seen_at < frozen_at:  # a busy machine froze the program before we did, and its arm stopped for that
        witness.wait_for_motion(time.monotonic())
        frozen_at = time.monotonic()
        program.send_signal(signal.SIGSTOP)
        witness.rest(frozen_at)
        program.send_signal(signal.SIGCONT)
        reason, seen_at, stopped_at = json.loads(line_of(program))
        assert reason == StopReason.TARGETS_STALE
        assert line_of(program) == "again"
    assert frozen_at < seen_at < stopped_at


@pytest.mark.parametrize(
    ("number", "reason", "error"),
    [
        (signal.SIGSTOP, StopReason.TARGETS_STALE, "RobotStopped"),
        (signal.SIGINT, StopReason.OPERATOR_STOP, "KeyboardInterrupt"),
        (signal.SIGKILL, "killed", ""),
    ],
)
def test_stops_on_the_way_home(rig: Rig, free: None, number: int, reason: str, error: str) -> None:
    with started(_HOMING, rig) as process, Witness(rig, process.pid) as witness:
        assert line_of(process) == "homing"
        witness.wait_for_motion(time.monotonic())
        began = time.monotonic()
        process.send_signal(number)
        rest = witness.rest(began)
        if number != signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
            assert json.loads(line_of(process)) == [reason, error]
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert line_of(process) == "again"
        process.kill()
    print(f"{reason} on the way home: {rest}")
    assert rest.own < 1.2


def test_ctrl_c_stops_the_arm(program: subprocess.Popen[str], witness: Witness) -> None:
    line_of(program)
    witness.wait_for_motion(time.monotonic())
    program.send_signal(signal.SIGINT)
    assert line_of(program) == "interrupted"
    assert json.loads(line_of(program))[0] == StopReason.OPERATOR_STOP


def test_the_arm_stops_when_the_main_process_is_gone(program: subprocess.Popen[str], witness: Witness) -> None:
    arm = int(line_of(program))
    witness.wait_for_motion(time.monotonic())
    program.kill()
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{arm}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{arm}").exists()


@pytest.mark.rig
def test_a_lost_link_is_named() -> None:
    with Rig() as rig, started(_PROGRAM, rig) as program, Witness(rig, program.pid) as witness:
        line_of(program)
        witness.wait_for_motion(time.monotonic())
        rig.kill()
        reason, *_ = json.loads(line_of(program))
        assert reason == StopReason.LINK_LOST
        program.kill()
