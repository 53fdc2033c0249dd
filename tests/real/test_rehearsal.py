"""A whole rehearsal: from the command to a verdict, through the robot's client, with contact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

from oc_residual_gym.cli import main
from oc_residual_gym.real.rig import rig_available


@pytest.mark.rig
def test_lift_succeeds_through_the_wire(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if reason := rig_available():
        pytest.skip(f"the rig cannot be installed here: {reason}")
    out = tmp_path / "out"
    assert main(["rehearse", "--task", "Lift", "--out", str(out)]) == 0
    summary = json.loads((out / "rehearsal.json").read_text())
    trials, link = summary["trials"], summary["link"]
    assert link["answers"] > 1000 and link["late"] < link["answers"]
    assert f"{link['late']} of {link['answers']} answers were late" in capsys.readouterr().out
    assert {trial["condition"] for trial in trials if trial["verdict"] == "success"} == {"base", "residual"}
    assert all(trial["tracking_error_mm"]["mean"] < 20.0 for trial in trials if trial["steps"])
    assert (out / "rehearsal.png").stat().st_size > 5000


def test_an_unknown_task_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rehearse", "--task", "Juggle", "--out", str(tmp_path)]) == 2
    assert "unknown task 'Juggle': choose one of Lift, " in capsys.readouterr().err
