"""``python -m baselines compare``: base, residual, planner and oracle on the same episodes, resumable, in one table."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_files import write_residual

from baselines.cli import main
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.evaluation import evaluator
from oc_residual_gym.evaluation.pairing import headline, paired_rates
from oc_residual_gym.policies import DEFAULT_BASE
from oc_residual_gym.residuals import UNTRAINED
from oc_residual_gym.tasks import PAPER_TASKS, TASKS

QUICK = ("Lift", "CloseDrawer")
SCENARIOS = ("nominal, paper", "twin, tracker")
SIDES = ("base", "residual", "planner", "oracle")
EPISODES = 2
ROWS = len(SCENARIOS) * len(SIDES) * len(QUICK) * EPISODES


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of residual policies that return zeros."""
    folder = tmp_path_factory.mktemp("policies") / "zeros"
    for task in QUICK:
        worlds = ResidualWorlds(task, 1)
        write_residual(folder / f"{task}.onnx", worlds.observation_layout[-1].stop, 0.0)
        worlds.close()
    return folder


def compare(residual: Path | str, out: Path, episodes: int = EPISODES, *options: str) -> int:
    arguments = ["--residual", str(residual), "--out", str(out), "--episodes", str(episodes), "--split", "val"]
    return main(["compare", "--task", *QUICK, *arguments, *options])


@pytest.fixture(scope="module")
def finished(zeros: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Folder, output and messages of a comparison."""
    folder = tmp_path_factory.mktemp("compare") / "out"
    output, messages = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(messages):
        assert compare(zeros, folder) == 0
    return folder, output.getvalue(), messages.getvalue()


def read(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def episodes_of(folder: Path, residual: str) -> list[dict]:
    lines = [line for file in sorted(folder.glob("runs/*/episodes.jsonl")) for line in file.read_text().splitlines()]
    return [episode for episode in map(json.loads, lines) if episode["residual"] == residual]


def test_the_table_has_a_row_for_each_scenario_and_task(finished: tuple[Path, str, str]) -> None:
    folder, output, _ = finished
    lines = [[entry.strip() for entry in line.strip("|\n").split("|")] for line in output.splitlines() if "|" in line]
    assert lines[0] == ["world, pose errors", "task", *SIDES, "residual - base"]
    expected = [[scenario, task] for scenario in SCENARIOS for task in (*QUICK, "these 2 tasks")]
    assert [line[:2] for line in lines[2:]] == expected
    differences = read(folder)["differences"]
    for line, row in zip(lines[2:], differences, strict=True):
        assert line[:2] == [f"{row['domain']}, {row['errors']}", row["task"]]
        for text, side in zip(line[2:], (*SIDES, "difference"), strict=True):
            assert float(text.split()[0]) == pytest.approx(100.0 * row[side]["mean"], abs=0.05)
            assert row[side]["low"] <= row[side]["mean"] <= row[side]["high"]


def test_everything_is_written_and_said_where(finished: tuple[Path, str, str], zeros: Path) -> None:
    folder, output, messages = finished
    for name in ("compare.md", "compare.png", "summary.json", "runs"):
        assert str(folder / name) in output
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "compare.md").read_text()
    table, result = output.split("\n\n")[:2]
    assert table in page and result in page
    assert result == read(folder)["result"]
    assert result.startswith("In the training world, the residual does not measurably change")
    for title in (
        "Reading the results",
        "Failures",
        "Corrections",
        "Residual against planner",
        "Contact force",
        "Steps to success",
        "Made by",
    ):
        assert f"# {title}\n" in page
    assert f"twin, tracker: {DEFAULT_BASE} + {zeros}, Lift" in messages  # what runs, where there is no terminal
    assert "there is no residual" not in messages


def test_the_summary_has_the_evaluators_form(finished: tuple[Path, str, str], zeros: Path) -> None:
    summary = read(finished[0])
    assert len(summary["cells"]) == len(SCENARIOS) * len(SIDES) * len(QUICK)
    assert {cell["residual"] for cell in summary["cells"]} == {*UNTRAINED, str(zeros)}
    assert all(cell["episodes"] == EPISODES for cell in summary["cells"])
    assert set(summary["hashes"]) == {"base", "residual", "simulation"}
    assert set(summary["hashes"]["residual"]) == set(QUICK)
    assert all(len(value) == 64 for key in ("base", "residual") for value in summary["hashes"][key].values())
    assert summary["command"].startswith("python -m baselines compare")
    assert {"versions", "machine", "commit"} <= set(summary)


def test_a_residual_of_zeros_is_the_base_alone(finished: tuple[Path, str, str], zeros: Path) -> None:
    alone, corrected = (episodes_of(finished[0], residual) for residual in ("zero", str(zeros)))
    assert len(alone) == ROWS // len(SIDES)

    def ordered(episodes: list[dict]) -> list[dict]:
        return sorted(episodes, key=lambda e: (e["domain"], e["task"], e["seed"]))

    assert [e | {"residual": "zero"} for e in ordered(corrected)] == ordered(alone)
    for row in read(finished[0])["differences"]:
        assert row["base"] == row["residual"]
        assert row["difference"]["mean"] == 0.0


def test_an_interrupted_comparison_goes_on_where_it_stopped(
    finished: tuple[Path, str, str],
    zeros: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_rows, run = evaluator.run_rows, []

    def counted(*arguments, stop: int | None = None):
        for episode in run_rows(*arguments):
            if len(run) == stop:
                raise KeyboardInterrupt
            run.append(episode)
            yield episode

    monkeypatch.setattr(evaluator, "run_rows", lambda *arguments: counted(*arguments, stop=7))
    assert compare(zeros, tmp_path) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists()
    monkeypatch.setattr(evaluator, "run_rows", counted)
    assert compare(zeros, tmp_path) == 0
    assert len(run) == ROWS
    kept = ("cells", "differences", "hashes")
    assert {key: read(tmp_path)[key] for key in kept} == {key: read(finished[0])[key] for key in kept}


def test_what_is_there_is_kept_beside_other_numbers_of_episodes_and_other_policies(
    finished: tuple[Path, str, str], zeros: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    before = episodes_of(out, "zero")
    assert compare(zeros, out, 1, "--task", "CloseDrawer") == 0
    assert {cell["episodes"] for cell in read(out)["cells"]} == {1}
    fewer = [episode for episode in episodes_of(out, "zero") if episode not in before]
    assert not fewer  # the same episodes as among the more

    changed = tmp_path / "policies"
    shutil.copytree(zeros, changed)
    run: list[dict] = []
    run_rows = evaluator.run_rows
    monkeypatch.setattr(evaluator, "run_rows", lambda *a: (run.append(e) or e for e in run_rows(*a)))
    worlds = ResidualWorlds("CloseDrawer", 1)
    for scale in (0.0, 0.1):
        write_residual(changed / "CloseDrawer.onnx", worlds.observation_layout[-1].stop, scale)
        run.clear()
        assert compare(changed, out, EPISODES, "--task", "CloseDrawer") == 0
        assert len(run) == len(SCENARIOS) * EPISODES  # of the residual; the others were there
        assert all((episode["correction_mm"] > 0.0) == (scale > 0.0) for episode in run)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--residual", "wish"], "oracle, trained"),
        (["--residual", "missing.onnx"], "missing.onnx"),
        (["--task", "Juggle"], "PegInsert"),
        (["--task", "Stack"], "CloseDrawer.onnx, Lift.onnx"),
        (["--base", "wish"], "expert"),
        (["--split", "holdout"], "train"),
        (["--split", "test", "--episodes", "501"], "500"),
    ],
)
def test_mistakes_are_answered_before_anything_runs(
    zeros: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    assert compare(zeros, tmp_path / "out", EPISODES, *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("baselines compare: ")
    assert named in error
    assert not (tmp_path / "out").exists()


def test_comparing_needs_no_training_packages() -> None:
    program = "import sys, baselines.compare; print([n for n in ('torch', 'stable_baselines3') if n in sys.modules])"
    root = Path(__file__).parents[1]
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert output.stdout.strip() == "[]"


def test_means_are_those_of_the_papers_five_tasks_and_of_all() -> None:
    rng = np.random.default_rng(0)
    sides = {
        side: [
            {"task": task, "seed": seed, "split": "test", "success": bool(rng.integers(2))}
            for task in sorted(TASKS)
            for seed in range(20)
        ]
        for side in SIDES
    }
    rows = {row["task"]: row for row in paired_rates(sides)}
    assert list(rows) == [*TASKS, "paper's five tasks", "all tasks"]
    for side in SIDES:
        for name, tasks in (("paper's five tasks", PAPER_TASKS), ("all tasks", tuple(TASKS))):
            assert rows[name][side]["mean"] == pytest.approx(np.mean([rows[task][side]["mean"] for task in tasks]))
    for row in rows.values():
        assert row["difference"]["mean"] == pytest.approx(row["residual"]["mean"] - row["base"]["mean"])
    five = [episode for episode in sides["base"] if episode["task"] in PAPER_TASKS]
    assert [row["task"] for row in paired_rates({"base": five, "residual": five})][-1] == "paper's five tasks"


@pytest.mark.parametrize("residual", UNTRAINED)
def test_what_is_compared_with_anyway_is_no_residual_to_compare(
    residual: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(residual, tmp_path) == 2
    assert "give a trained residual" in capsys.readouterr().err


def test_tasks_without_a_residual_are_named_and_run_without_it(
    zeros: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    policies, out, run = tmp_path / "policies", tmp_path / "out", []
    policies.mkdir()
    shutil.copy(zeros / "Lift.onnx", policies)
    run_rows = evaluator.run_rows
    monkeypatch.setattr(evaluator, "run_rows", lambda *a: (run.append(e) or e for e in run_rows(*a)))
    assert compare(policies, out, 1, "--base", "hold") == 0
    assert "on hold for CloseDrawer: only base, planner and oracle" in capsys.readouterr().err
    assert len(run) == len(SCENARIOS) * (len(QUICK) * len(SIDES) - 1)
    for row in read(out)["differences"]:
        missing = "CloseDrawer" in row["tasks"]
        assert all((row[key] is None) == missing for key in ("residual", "difference", "over_planner"))
        assert all(row[side] for side in ("base", "planner", "oracle"))
    assert list(read(out)["hashes"]["residual"]) == ["Lift"]

    run.clear()
    shutil.copy(zeros / "CloseDrawer.onnx", policies)
    assert compare(policies, out, 1, "--base", "hold") == 0
    assert [(episode["task"], episode["residual"]) for episode in run] == [("CloseDrawer", str(policies))] * 2

    run.clear()
    assert compare("trained", out, 1, "--base", "hold") == 0  # no task has one
    assert not run
    assert {cell["residual"] for cell in read(out)["cells"]} == set(UNTRAINED)
    page = (out / "compare.md").read_text()
    assert "In the training world, the mean success of these 2 tasks is" in page
    assert "with the base policy alone, and the planner, which learns nothing, reaches" in page


def test_means_are_given_where_every_task_has_that_side() -> None:
    episodes = {
        side: [{"task": task, "seed": s, "split": "test", "success": s < 5} for task in tasks for s in range(10)]
        for side, tasks in (("base", TASKS), ("residual", ("Lift", "PegInsert")), ("planner", TASKS))
    }
    differences = {"difference": ("base", "residual"), "over_base": ("base", "planner")}
    rows = {row["task"]: row for row in paired_rates(episodes, differences)}
    assert list(rows)[-3:] == ["paper's five tasks", "all tasks", "the 2 tasks with a residual"]
    for name in ("Lift", "PegInsert", "the 2 tasks with a residual"):
        assert rows[name]["residual"]["mean"] == 0.5 and rows[name]["difference"]["mean"] == 0.0
    for name in ("Stack", "paper's five tasks", "all tasks"):
        assert rows[name]["residual"] is None and rows[name]["difference"] is None
        assert rows[name]["over_base"]["mean"] == 0.0
    assert headline(list(rows.values()))["task"] == "the 2 tasks with a residual"
