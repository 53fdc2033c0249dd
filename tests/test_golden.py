"""The compiled models and seeded trajectories are those that every published figure was made with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

FOLDER = Path(__file__).parent / "golden"
sys.path.insert(0, str(FOLDER))
from record import MODELS_FILE, TRAJECTORIES_FILE, made_with, model_digests, trajectory  # noqa: E402

MODELS, TRAJECTORIES = json.loads(MODELS_FILE.read_text()), json.loads(TRAJECTORIES_FILE.read_text())
RECORDED_WITH = MODELS["made_with"]["mujoco"]
pytestmark = pytest.mark.skipif(
    mujoco.__version__ != RECORDED_WITH, reason=f"recorded with MuJoCo {RECORDED_WITH}; others give other bits"
)
TOLERANCE = 2e-3
"""Metres, radians and their rates, where bits differ: a change of physics moves the tool or an object by more."""


def test_both_files_were_recorded_together() -> None:
    assert MODELS["made_with"] == TRAJECTORIES["made_with"]
    assert MODELS["made_with"].keys() == made_with().keys()


def test_compiled_model_is_the_recorded_one(task: str) -> None:
    recorded, found = MODELS["models"][task], model_digests(task)
    assert [name for name in sorted(recorded | found) if recorded.get(name) != found.get(name)] == []


@pytest.mark.parametrize("case", TRAJECTORIES["trajectories"])
def test_trajectory_is_the_recorded_one(case: str) -> None:
    recorded, found = TRAJECTORIES["trajectories"][case], trajectory(*case.split(", "))
    # Another C library or processor rounds sine and cosine otherwise: where bits differ there, the end counts.
    if found["sha256"] != recorded["sha256"] and made_with() != TRAJECTORIES["made_with"]:
        np.testing.assert_allclose(found["critic_state"], recorded["critic_state"], atol=TOLERANCE)
    else:
        assert found["sha256"] == recorded["sha256"]
