"""The report counts every verdict once, pairs trials by their start, and decides when the sequential test does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.statistics import wilson
from oc_residual_gym.files import write_json
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.report import BASE_BETTER, GO_ON, RESIDUAL_BETTER, decision, markdown, report, sequential_test
from oc_residual_gym.real.run import SETTINGS_FILE, TRIALS
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import TrialRecorder, Verdict, trial_name

CELL = Cell("bench", Robot("172.16.0.2"), Poses("tcp://camera:5555"))
SETTINGS = TrialSettings("Lift", CELL, base="hold", residual="zero", starts=30)


def add(
    folder: Path,
    number: int,
    condition: str,
    verdict: Verdict,
    *,
    seed: int,
    attempt: int = 1,
    stop: str = "",
    **attributes: object,
) -> None:
    head = {
        "trial": number,
        "attempt": attempt,
        "condition": condition,
        "seed": seed,
        "calibration": "cal-1",
        "versions": "{}",
    }
    recorder = TrialRecorder(folder / TRIALS, trial_name(number, attempt), head, synthetic=False)
    for t, period in enumerate((np.nan, 0.05, 0.06)):
        recorder.add({"time": 0.05 * t, "tcp_pose": np.zeros(7), "trial/period": period})
    recorder.finish(verdict, stop_reason=stop, placement_error=[0.004, 0.011], **attributes)


def folder_of(folder: Path, pairs: list[tuple[bool, bool]]) -> Path:
    """A comparison with these results of base and residual."""
    write_json(folder / SETTINGS_FILE, SETTINGS.identity)
    for seed, pair in enumerate(pairs):
        for i, (condition, success) in enumerate(zip(("base", "residual"), pair, strict=True)):
            add(folder, 2 * seed + i + 1, condition, Verdict("success" if success else "fail"), seed=seed)
    return folder


def test_rates_difference_and_what_went_wrong(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [(False, True), (True, True), (False, False)])
    add(folder, 7, "base", Verdict("invalid", "somebody walked by"), seed=3)
    add(folder, 7, "base", Verdict("fail"), seed=3, attempt=2, stop="poses_silent")
    summary = report(folder, unblind=True)
    text = markdown(summary)
    base, residual = summary["conditions"]["base"], summary["conditions"]["residual"]
    assert (base["judged"], base["successes"], base["invalid"]) == (4, 1, 1)
    assert (residual["judged"], residual["successes"], residual["invalid"]) == (3, 2, 0)
    expected = wilson(2, 3)
    assert residual["success_rate"] == {"mean": expected.mean, "low": expected.low, "high": expected.high}
    assert base["failures"] == {"not done": 2, "poses_silent": 1}
    # The fourth start has no trial of the residual yet.
    assert summary["pairs"] == 3
    assert summary["difference"]["mean"] == pytest.approx(1 / 3)
    assert summary["difference"]["low"] < 0.0 < summary["difference"]["high"]
    entry = {"trial": 7, "attempt": 1, "condition": "base", "reason": "somebody walked by", "stop_reason": ""}
    assert summary["invalid"] == [entry]
    assert summary["periods_ms"] == {"steps": 16, "mean": 55.0, "p99": 60.0, "max": 60.0}
    assert summary["placement_error_mm"] == {"median": 7.5, "max": 11.0, "accepted": 0}
    assert (summary["cell"], summary["calibrations"]) == ("bench", ["cal-1"])
    assert json.loads((folder / "report.json").read_text()) == summary
    assert (folder / "report.md").read_text() == text
    for words in ("somebody walked by", "hold + zero", "poses_silent 1", "go on", "99th percentile 60.0 ms"):
        assert words in text


def test_an_unfinished_comparison_has_a_report(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no trials"):
        report(tmp_path)
    write_json(tmp_path / SETTINGS_FILE, SETTINGS.identity)
    with pytest.raises(SettingsError, match="no trials yet"):
        report(tmp_path)
    add(tmp_path, 1, "residual", Verdict("invalid", "interrupted"), seed=0)
    summary = report(tmp_path, unblind=True)
    assert summary["conditions"]["residual"]["success_rate"] is None and summary["difference"] is None
    assert "interrupted" in markdown(summary)


def test_the_report_waits_until_nobody_judges_any_more(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "open", [(False, True)] * 29)
    with pytest.raises(SettingsError, match=r"2 of 60 trials .* are open.*--unblind"):
        report(folder)
    assert not list(folder.glob("report*"))
    assert report(folder, unblind=True)["open"] == 2
    assert "must not judge" in (folder / "report.md").read_text()
    for number, condition in ((59, "base"), (60, "residual")):
        add(folder, number, condition, Verdict("fail"), seed=29)
    assert report(folder)["open"] == 0
    assert "must not judge" not in (folder / "report.md").read_text()


def test_a_pair_that_is_completed_late_comes_last_in_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a decision could be taken back at the next look."""
    looks: list[list[tuple[bool, bool]]] = []
    monkeypatch.setattr(
        "oc_residual_gym.real.report.sequential_test", lambda pairs: looks.append(pairs) or {"decision": GO_ON}
    )
    write_json(tmp_path / SETTINGS_FILE, SETTINGS.identity)
    clock = "2026-01-01T12:{:02}:00.000+00:00"
    add(tmp_path, 1, "base", Verdict("success"), seed=0, judged=clock.format(1))
    add(tmp_path, 2, "residual", Verdict("invalid", "no light"), seed=0, judged=clock.format(2))
    for number, condition in ((3, "residual"), (4, "base")):
        add(tmp_path, number, condition, Verdict("fail"), seed=1, judged=clock.format(number))
    decision(tmp_path)
    add(tmp_path, 2, "residual", Verdict("success"), seed=0, attempt=2, judged=clock.format(9))
    decision(tmp_path)
    assert looks == [[(False, False)], [(False, False), (True, True)]]


def test_a_file_that_is_no_trial_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [(False, True)])
    (folder / TRIALS / "notes.hdf5").write_text("notes")
    with pytest.raises(SettingsError, match=r"notes\.hdf5 is not a trial"):
        report(folder, unblind=True)


def test_the_sequential_test_stops_where_it_is_decided(tmp_path: Path) -> None:
    pytest.importorskip("sequentialized_barnard_tests")
    better = [(False, True)] * 12
    found = sequential_test(better)
    assert found["decision"] == RESIDUAL_BETTER and 4 < found["decided_at"] <= 12
    # More pairs, whatever they show, do not take a decision back.
    later = sequential_test([*better, *[(True, False)] * 30])
    assert (later["decision"], later["decided_at"]) == (RESIDUAL_BETTER, found["decided_at"])
    assert sequential_test([(r, b) for b, r in better])["decision"] == BASE_BETTER
    for undecided in ([], [(True, True)] * 40, [(False, True)] * 3):
        assert sequential_test(undecided)["decision"] == GO_ON
    assert sequential_test([(True, True)] * 200)["decision"].startswith("stop: not decided")


def test_who_still_judges_learns_only_whether_to_stop(tmp_path: Path) -> None:
    pytest.importorskip("sequentialized_barnard_tests")
    assert decision(folder_of(tmp_path / "a", [(False, True)])) == GO_ON
    told = {
        decision(folder_of(tmp_path / name, [pair] * 12)) for name, pair in (("b", (True, False)), ("c", (False, True)))
    }
    assert told == {"stop: decided"}


def test_equal_policies_are_seldom_called_different() -> None:
    pytest.importorskip("sequentialized_barnard_tests")
    rng = np.random.default_rng(0)
    results = [sequential_test([tuple(pair) for pair in rng.random((60, 2)) < 0.5])["decision"] for _ in range(20)]
    # Each way 5 % at most, over all 200 pairs.
    assert sum(result != GO_ON for result in results) <= 3
