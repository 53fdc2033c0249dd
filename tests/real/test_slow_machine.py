"""What is late because the machine is busy is not blamed on the robot, and a robot's faults are found all the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

from cells import PATIENCE, CoreWaits

from oc_residual_gym.errors import RobotStopped, Stop, StopReason
from oc_residual_gym.real import homing
from oc_residual_gym.real import world as world_module
from oc_residual_gym.real.arm import DryArm
from oc_residual_gym.real.arm_state import ArmState
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.world import FR3World


class SlowRobot:
    """An arm whose clock passes at a fifth of ours, and which follows its reference at once, or not at all."""

    def __init__(self, held: bool):
        self.q, self.reference, self.seconds, self.held = np.zeros(7), np.zeros(7), 0.0, held

    @property
    def state(self) -> Any:
        return SimpleNamespace(q=self.q, time=SimpleNamespace(to_msec=lambda: 1e3 * self.seconds))

    def set_target(self, reference: np.ndarray, velocity: np.ndarray) -> None:
        self.reference = reference

    def pause(self, seconds: float) -> None:
        time.sleep(1e-3)
        self.seconds += 2e-4
        if not self.held:
            self.q = self.reference.copy()

    def stop(self) -> None:
        pass


@pytest.mark.parametrize("held", [False, True])
def test_homing_blames_an_arm_that_is_held_and_not_one_that_is_slow(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot, goal = SlowRobot(held), np.full(7, 0.3)
    monkeypatch.setattr(homing.franky, "JointImpedanceTracker", lambda *arguments, **options: robot)
    monkeypatch.setattr(homing, "check_control", lambda *arguments: None)
    monkeypatch.setattr(homing, "SETTLE", 0.02)
    if held:
        with pytest.raises(RobotStopped, match="what holds the arm"):
            homing.move_joints(robot, goal, 2.0, robot.pause)
    else:
        homing.move_joints(robot, goal, 2.0, robot.pause)
        np.testing.assert_allclose(robot.q, goal)


@pytest.mark.parametrize("rests", [True, False])
def test_a_report_waits_for_an_arm_that_is_slow_to_rest_and_not_for_one_that_is_out_of_reach(
    rests: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, clock = Stop(StopReason.OPERATOR_STOP, "asked to", 100.0), SimpleNamespace(now=100.0)

    class SlowArm(DryArm):
        def stop(self, reason: StopReason, detail: str) -> ArmState:
            return self.state()

        def state(self) -> ArmState:
            there = rests and clock.now > 120.0
            return replace(super().state(), stop=replace(stop, stopped_at=120.0 if there else None), stopping=rests)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    cell = Cell("test", Robot("nowhere"), Poses("tcp://nowhere:1"))
    monkeypatch.setattr(world_module, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    monkeypatch.setattr(world_module, "DryArm", SlowArm)
    with FR3World(cell, "Lift", SimpleNamespace(), dry_run=True) as world:  # type: ignore[arg-type]
        world.stop(0, StopReason.OPERATOR_STOP)
        report = world.stop_report()
    assert report is not None and report.stopped_at == (120.0 if rests else None)
    assert (clock.now > 120.0) == rests


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this kernel does not count")
def test_waiting_for_a_core_is_counted_and_standing_still_is_not() -> None:
    rig: Any = SimpleNamespace(_process=SimpleNamespace(pid=0))
    core = min(os.sched_getaffinity(0))
    loop = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    programs = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(2)]
    try:
        first, deadline = CoreWaits(programs[0].pid, rig), time.monotonic() + PATIENCE
        while first.seconds() < 0.5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        programs[0].send_signal(signal.SIGSTOP)
        os.waitpid(programs[0].pid, os.WUNTRACED)
        before = first.seconds()
        time.sleep(0.1)
        assert first.seconds() == before
    finally:
        for program in programs:
            program.kill()
            program.wait()
