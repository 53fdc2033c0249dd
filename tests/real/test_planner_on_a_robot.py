"""The planner runs on a robot: it needs nothing that a robot does not measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_trials import CELL, SETTINGS, TRIALS, run

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.real.operator import ScriptedOperator
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import read_trials

STEPS = 12


def test_a_trial_runs_with_it(tmp_path: Path) -> None:
    settings = replace(SETTINGS, residual="planner", starts=1)
    assert run(tmp_path, ScriptedOperator(), settings, steps=STEPS) == {"trials": 2, "judged": 2, "open": 0}
    trials = {trial["condition"]: trial for trial in read_trials(tmp_path / TRIALS)}
    assert [trials[condition]["residual"] for condition in ("base", "residual")] == ["zero", "planner"]
    assert trials["residual"]["stop_reason"] == ""
    moved = {}
    for condition, trial in trials.items():
        with h5py.File(trial["path"]) as file:
            target = file["demos"][trial["path"].stem]["target"][:, :3]
        moved[condition] = float(np.linalg.norm(target[-1] - target[0]))
    # The base policy holds still; the planner leads the hand to the drawer.
    assert moved["base"] < 1e-6 and moved["residual"] > 0.02


def test_the_oracle_is_refused_before_the_arm_moves() -> None:
    with pytest.raises(SettingsError, match="the planner runs on a robot"):
        TrialSettings("CloseDrawer", CELL, base="hold", residual="oracle")
