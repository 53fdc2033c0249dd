"""The placement check: position and rotation, up to what looks the same, with the likely cause in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_tracking import camera, tracked
from test_tracking import start as begin
from test_trials import Cells

from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.operator import ScriptedOperator
from oc_residual_gym.real.placement import Placement, compare
from oc_residual_gym.real.run import TRIALS, run_trials
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import read_trials
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import ObservedObject
from oc_residual_gym.tasks.symmetry import symmetry_of

PLAN = np.array([0.5, 0.1, 0.02, *Rotation.from_euler("z", 35, degrees=True).as_quat()])


def turned(pose: np.ndarray, turn: Rotation) -> np.ndarray:
    return np.r_[pose[:3], (Rotation.from_quat(pose[3:]) * turn).as_quat()]


def check(symmetry: str, pose: np.ndarray, wxyz: np.ndarray | None = None) -> Placement:
    other = pose if wxyz is None else wxyz
    return compare([ObservedObject("block", symmetry)], PLAN[None], pose[None], other[None])


@pytest.mark.parametrize("degrees", [10.0, 20.0])
@pytest.mark.parametrize("symmetry", ["none", "yaw_180", "bar", "cube", "cylinder"])
def test_a_turn_is_noticed_beyond_fifteen_degrees_whatever_looks_the_same(symmetry: str, degrees: float) -> None:
    tilt = Rotation.from_rotvec(np.radians([0.0, degrees, 0.0]))
    for member in symmetry_of(symmetry).members(steps=5):
        placement = check(symmetry, turned(PLAN, tilt * Rotation.from_quat(member)))
        assert np.degrees(placement.turns[0]) == pytest.approx(degrees, abs=1e-3)
        assert bool(placement.advice) is (degrees > 15.0)


def test_the_advice_names_object_millimetres_degrees_and_what_to_do() -> None:
    pose = turned(PLAN + 0.03 * np.eye(7)[0] - 0.01 * np.eye(7)[1], Rotation.from_euler("z", 50, degrees=True))
    (line,) = check("yaw_180", pose).advice
    assert line == (
        "block is 32 mm and 50 degrees from its place: move it by x -30, y +10 mm; it should be turned by 35 degrees"
    )


def test_quaternions_that_begin_with_w_are_named_as_the_likely_cause() -> None:
    sent = np.r_[PLAN[:3], np.roll(PLAN[3:], 1)]  # w, x, y, z, read as x, y, z, w
    tracker, _ = tracked({"block": lambda count: sent + 1e-5 * count * np.eye(7)[0]})
    begin(tracker)
    seen = tracker.used_poses
    placement = compare([ObservedObject("block", "yaw_180")], PLAN[None], seen, tracker.as_wxyz(seen))
    assert "wxyz" in placement.advice[0] and np.degrees(placement.turns[0]) > 15.0
    right = turned(PLAN, Rotation.from_euler("z", 90, degrees=True))
    assert "wxyz" not in check("yaw_180", right, right).advice[0]


def test_quaternions_that_begin_with_w_are_found_in_the_camera_frame_too() -> None:
    calibration = camera()
    turn = Rotation.from_quat(calibration.base_from_camera[3:]).inv()
    position = turn.apply(PLAN[:3] - calibration.base_from_camera[:3])
    in_camera = np.r_[position, (turn * Rotation.from_quat(PLAN[3:])).as_quat()]
    sent = np.r_[in_camera[:3], np.roll(in_camera[3:], 1)]
    tracker, source = tracked({"block": lambda count: sent + 1e-5 * count * np.eye(7)[0]}, calibration=calibration)
    source.frame = "camera"
    begin(tracker)
    seen = tracker.used_poses
    placement = compare([ObservedObject("block")], PLAN[None], seen, tracker.as_wxyz(seen))
    assert "wxyz" in placement.advice[0]


@pytest.mark.parametrize("as_planned", [True, False])
def test_a_turned_object_is_asked_about_before_its_trial(tmp_path: Path, as_planned: bool) -> None:
    asked: list[str] = []

    class Person(ScriptedOperator):
        trials = 0

        def wait_for_go(self, text: str) -> bool:
            self.trials += "block turned" in text or "block at" in text
            return self.trials < 2

        def ask_placement(self, text: str) -> str:
            asked.append(text)
            return "start"

    cell = Cell("bench", Robot("172.16.0.2"), Poses("tcp://camera:5555"), operator="A. Person")
    settings = TrialSettings("Lift", cell, base="hold", residual="zero", starts=1, rehearsal=True)
    operator = Person()
    cells = Cells(operator, settings)
    planned = np.array(cells.camera._poses["block"])
    turn = Rotation.from_euler("z", 180 if as_planned else 90, degrees=True)
    cells.camera._poses["block"] = turned(planned, turn)
    run_trials(settings, cells, operator, tmp_path, pictures=False)
    (trial,) = read_trials(tmp_path / TRIALS)
    assert trial["placement_accepted"] is (not as_planned) and len(asked) == (0 if as_planned else 1)
    assert np.degrees(trial["placement_turn"][0]) == pytest.approx(0.0 if as_planned else 90.0, abs=1.0)
    assert as_planned or "block is 0 mm and 90 degrees from its place: it should be turned by" in asked[0]


def test_every_planned_start_fits_itself(task: str) -> None:
    objects = [o for o in TASKS[task].objects if o.name in start_of(TASKS[task], "test", 0).poses]
    for seed in range(5):
        poses = np.array([start_of(TASKS[task], "test", seed).poses[o.name] for o in objects])
        assert compare(objects, poses, poses, poses).advice == []
