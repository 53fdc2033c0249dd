"""``compare --base auto``: the base policy to compare on where none is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from policy_files import write_residual

from baselines import auto_base, compare
from baselines.cli import main
from oc_residual_gym.check import Finding
from oc_residual_gym.policies import DEFAULT_BASE


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run ``compare`` with options, on a machine that renders or not; return the base policy of the comparison."""

    def run(*options: str, renders: bool) -> str:
        requests: list[compare.CompareRequest] = []
        monkeypatch.setattr(auto_base, "rendering", lambda: Finding("rendering", renders, "as the test says"))
        monkeypatch.setattr(compare, "run_comparison", lambda request, engine: requests.append(request) or ({}, ""))
        assert main(["compare", *options]) == 0
        return requests[0].base

    return run


def test_shipped_residuals_are_compared_on_the_seeing_base_where_it_can_see(
    chosen: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen(renders=True) == chosen("--base", "auto", renders=True) == "vla"
    assert capsys.readouterr().err == ""
    assert chosen(renders=False) == DEFAULT_BASE
    message = capsys.readouterr().err
    assert repr(DEFAULT_BASE) in message and "apt-get install libegl1 libgl1-mesa-dri" in message
    assert chosen("--base", "hold", renders=False) == "hold"
    assert capsys.readouterr().err == ""


def test_your_own_residuals_are_compared_on_the_base_that_their_files_name(
    chosen: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for task, base in (("Lift", "hold"), ("Stack", "hold"), ("PegInsert", None)):
        write_residual(tmp_path / "some" / f"{task}.onnx", 100, 0.0, {"base": base} if base else {})
    assert chosen("--residual", str(tmp_path / "some"), renders=True) == "hold"
    assert chosen("--residual", str(tmp_path / "some" / "PegInsert.onnx"), renders=True) == DEFAULT_BASE
    assert chosen("--residual", str(tmp_path / "some"), "--base", "bc", renders=True) == "bc"

    write_residual(tmp_path / "some" / "StandCup.onnx", 100, 0.0, {"base": "vla"})
    assert main(["compare", "--residual", str(tmp_path / "some")]) == 2
    assert "trained on hold and vla: choose one with --base" in capsys.readouterr().err
