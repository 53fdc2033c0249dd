"""Faults of poses and hand on the rig, through the whole pipeline: the arm stops, and the reason has a name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

from cells import simulated_cell

from oc_residual_gym.real.operator import Command, ScriptedOperator
from oc_residual_gym.real.rig import Rig
from oc_residual_gym.real.run import TRIALS, run_trials
from oc_residual_gym.real.session import make_env, open_cell
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import read_trials

pytestmark = pytest.mark.rig

FAULT_STEP = 10
"""Control step at which the fault begins: the hand is still far from every object."""


class Saboteur(ScriptedOperator):
    """An operator of one trial, in whose step ``FAULT_STEP`` something goes wrong."""

    def __init__(self, sabotage: Callable[[], None]):
        super().__init__()
        self._sabotage, self.steps = sabotage, 0

    def command(self) -> Command:
        self.steps += 1
        if self.steps == FAULT_STEP:
            self._sabotage()
        return ""

    def wait_for_go(self, text: str) -> bool:
        return not self.steps


def trial(out: Path, task: str, sabotage: Callable[[Rig, Any], None]) -> dict[str, Any]:
    """Attributes of a trial that ``sabotage`` spoils."""
    with simulated_cell(task) as (rig, cell):
        settings = TrialSettings(task, cell, "bc", "zero", "val", starts=1, rehearsal=True)
        with open_cell(cell, task) as world:
            env = make_env(world, "bc", "val")
            operator = Saboteur(lambda: sabotage(rig, env.unwrapped.core))
            run_trials(settings, lambda: env, operator, out, pictures=False)
    return read_trials(out / TRIALS)[0]


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("stays", "poses_jumped", "20 cm"),
        ("swapped", "poses_jumped", "exchanged places"),
        ("contradict", "poses_contradict", "two sources that disagree"),
        ("sunk", "poses_outside", "under the table"),
    ],
)
def test_poses_that_cannot_be_stop_the_arm(tmp_path: Path, fault: Any, reason: str, words: str) -> None:
    stopped = trial(tmp_path, "Stack", lambda rig, core: rig.poses(fault))
    assert stopped["stop_reason"] == reason and words in stopped["stop_detail"]
    assert stopped["verdict"] == "fail" and np.isfinite(stopped["stopped_monotonic"])


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [("idle", "gripper_blocked", "says that it did close"), ("nan", "reading_invalid", "width was reported as nan")],
)
def test_a_hand_that_lies_stops_the_arm(tmp_path: Path, fault: Any, reason: str, words: str) -> None:
    def spoil(rig: Rig, core: Any) -> None:
        rig.hand(fault)
        # From now on, the hand is to close where it is.
        core.base_policy.predict = lambda view: np.repeat(
            np.concatenate([view.tcp_pose, np.zeros((1, 1))], axis=1)[:, None], 16, axis=1
        )
        core._runner.hold(np.zeros(1, int), np.concatenate([core.world.robot.tcp_pose, [[0.0]]], axis=1))

    stopped = trial(tmp_path, "Lift", spoil)
    assert stopped["stop_reason"] == reason and words in stopped["stop_detail"]
    assert np.isfinite(stopped["stopped_monotonic"])
