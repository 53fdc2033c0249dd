"""The arm's process goes from phase to phase as the table says, with a robot that is only made up."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="needs the extra [real]")

from oc_residual_gym.errors import StopReason
from oc_residual_gym.real import arm_process
from oc_residual_gym.real.arm import arm_settings
from oc_residual_gym.real.arm_phases import NEXT, Phase, follow
from oc_residual_gym.real.arm_process import ArmProcess
from oc_residual_gym.real.cell import Cell, Poses, Robot

POSE = np.array([0.45, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])


class MadeUpRobot:
    """Does what it is told; ``moving`` until its motion is joined often enough, ``broken`` when nothing works."""

    state: Any = None
    has_errors = False

    def __init__(self) -> None:
        self.is_in_control = self.broken = self.heals = False
        self.joins = 0

    def move(self, motion: Any, asynchronous: bool) -> None:
        self.joins = 2

    def join_motion(self, seconds: float) -> bool:
        self.joins -= 1
        self.is_in_control = self.is_in_control and self.joins > 0
        return self.joins <= 0

    def recover_from_errors(self) -> bool:
        self.has_errors = not self.heals
        return self.heals

    def stop(self) -> None:
        pass


class MadeUpTracker:
    def set_target(self, target: Any) -> None:
        pass


class MadeUpReadings:
    clock = 0

    def read(self, robot: MadeUpRobot) -> tuple[int, np.ndarray]:
        if robot.broken:
            raise RuntimeError("broken")
        self.clock += 1
        return self.clock, POSE.copy()

    def forget_wrench(self) -> None:
        pass

    def report(self, reference: np.ndarray, stop: Any, stopping: bool) -> None:
        return None


class Watched(ArmProcess):
    """Notes every phase that it enters."""

    def _enter(self, phase: Phase) -> None:
        before = self._phase
        super()._enter(phase)
        if before is not phase:
            self.steps.append((before, phase))

    def tell(self, message: str, *arguments: Any) -> None:
        self._handle(1, message, list(arguments))


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Watched:
    robot = MadeUpRobot()

    def take_control(robot: MadeUpRobot, settings: Any) -> MadeUpTracker:
        robot.is_in_control = True
        return MadeUpTracker()

    monkeypatch.setattr(arm_process, "connect", lambda settings: robot)
    monkeypatch.setattr(arm_process, "ArmReadings", MadeUpReadings)
    monkeypatch.setattr(arm_process, "take_control", take_control)
    monkeypatch.setattr(arm_process, "check_control", lambda robot, tracker: None)
    monkeypatch.setattr(arm_process, "raise_tool", lambda *arguments: None)
    monkeypatch.setattr(arm_process, "move_joints", lambda *arguments: None)
    Watched.steps = []
    ours, theirs = Pipe()
    cell = Cell("test", robot=Robot(host="127.0.0.1"), poses=Poses("tcp://127.0.0.1:1"))
    process = Watched(theirs, arm_settings(cell))
    process.ours = ours  # open as long as the process
    return process


def track(p: Watched) -> None:
    p.tell("target", np.append(POSE, 1.0), np.inf)
    assert p._phase is Phase.TRACKING
    p._tick()


def stop(p: Watched) -> None:
    p.tell("stop", StopReason.OPERATOR_STOP, "asked to")


def break_down(p: Watched) -> None:
    p._robot.broken = True
    p.tell("state")
    p._robot.broken = False


def fail_on_the_way_home(p: Watched) -> None:
    p.ours.send((1, "stop", StopReason.OPERATOR_STOP, "asked to"))
    original = arm_process.raise_tool
    arm_process.raise_tool = lambda *arguments: arguments[-1](0.0)
    p.tell("home")
    arm_process.raise_tool = original


def fail_to_recover(p: Watched) -> None:
    p._robot.has_errors, p._robot.heals = True, False
    p.tell("recover")
    p._robot.has_errors = False


WAYS: dict[str, tuple[list[Callable[[Watched], None]], list[Phase]]] = {
    "a trial": (
        [lambda p: p.tell("home"), track, lambda p: p.tell("rest")],
        [Phase.HOMING, Phase.REST, Phase.TRACKING, Phase.STOPPING, Phase.REST],
    ),
    "a stop while it moves, and the way out": (
        [track, stop, lambda p: p._wait_for_rest(), lambda p: p.tell("recover")],
        [Phase.TRACKING, Phase.STOPPING, Phase.STOPPED, Phase.REST],
    ),
    "a stop at rest": ([stop], [Phase.STOPPED]),
    "an error at rest": ([break_down, lambda p: p._wait_for_rest()], [Phase.STOPPING, Phase.STOPPED]),
    "an error once stopped": ([stop, break_down], [Phase.STOPPED, Phase.STOPPING]),
    "a stop on the way home": ([fail_on_the_way_home], [Phase.HOMING, Phase.STOPPING]),
    "a recovery that fails": ([fail_to_recover], [Phase.STOPPED]),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_process_goes_the_ways_of_the_table(process: Watched, way: str) -> None:
    actions, phases = WAYS[way]
    for act in actions:
        act(process)
    assert [after for _, after in process.steps] == phases
    assert all(after in NEXT[before] for before, after in process.steps)
    assert (process._stop is not None) >= (process._phase is Phase.STOPPED)


def test_the_ways_use_every_step_of_the_table() -> None:
    walked = set()
    for _, phases in WAYS.values():
        walked |= set(zip([Phase.REST, *phases], phases, strict=False))
    assert walked == {(before, after) for before, allowed in NEXT.items() for after in allowed}


def test_no_target_moves_a_stopped_arm(process: Watched) -> None:
    stop(process)
    process.tell("target", np.append(POSE, 1.0), np.inf)
    process.tell("home")
    process.tell("resume")
    assert process._phase is Phase.STOPPED and process._tracker is None


def test_nothing_keeps_the_connection_of_a_process_that_is_gone(process: Watched) -> None:
    """A robot serves one client: no cycle of references may wait for the garbage collector."""
    other = ArmProcess(process.ours, process.settings)
    other._handle(1, "home", [])
    left = weakref.ref(other)
    del other
    assert left() is None


def test_the_arm_can_be_stopped_in_every_phase_and_starts_from_rest_only() -> None:
    assert set(NEXT) == set(Phase)
    for phase in Phase:
        assert follow(phase, Phase.STOPPING) is Phase.STOPPING
        for moving in (Phase.TRACKING, Phase.HOMING):
            assert (moving in NEXT[phase]) == (phase is Phase.REST)
    with pytest.raises(RuntimeError, match="'stopped' cannot go on to 'tracking'"):
        follow(Phase.STOPPED, Phase.TRACKING)
