"""A command that cannot read or write says so in one line, and what was finished is kept."""

from __future__ import annotations

import errno
import importlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from disks import full_disk

import demos_replay
from oc_residual_gym import cli
from oc_residual_gym.command_line import run_command
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation import evaluator
from oc_residual_gym.evaluation.evaluator import evaluate
from oc_residual_gym.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(("Lift",), base="expert", episodes=6)
EVALUATE = ["evaluate", "--task", "Lift", "--base", "expert", "--episodes", "6"]
LOG = demos_replay.LOGS / "Lift.hdf5"
NOWHERE = "/dev/null/out"
"""A place that nobody can write, whatever their rights."""


def main_of(package: str) -> Any:
    return importlib.import_module(f"{package}.cli").main


def fails(capsys: pytest.CaptureFixture[str], package: str, arguments: Sequence[str]) -> str:
    """The line with which a command ends that cannot go on."""
    assert main_of(package)(list(arguments)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "Traceback" in line or "cannot " in line]
    assert len(lines) == 1 and "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation") / "expert"
    evaluate(SETTINGS, folder)
    return folder


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("oc_residual_gym", ["tasks", "--json", f"{NOWHERE}/tasks.json"]),
        ("oc_residual_gym", ["tasks", "--json", "/dev/full"]),
        ("oc_residual_gym", [*EVALUATE, "--out", NOWHERE]),
        ("demos_replay", ["replay", str(LOG), "--out", f"{NOWHERE}/demos.hdf5"]),
        ("demos_replay", ["record", "--task", "Lift", "--operator", "scripted", "--out", f"{NOWHERE}/log.hdf5"]),
        ("baselines", ["train-base", "--base", "bc", "--task", "Lift", "--data", str(LOG), "--out", NOWHERE]),
        ("baselines", ["train-residual", "--task", "Lift", "--steps", "10", "--out", NOWHERE]),
        ("baselines", ["sweep", "--task", "Lift", "--steps", "10", "--out", NOWHERE]),
        ("baselines", ["compare", "--task", "Lift", "--episodes", "1", "--out", NOWHERE]),
        ("leaderboard", ["build", "--out", NOWHERE]),
    ],
)
def test_a_place_that_cannot_be_written_is_named_in_one_line(
    package: str, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if package == "baselines":
        pytest.importorskip("stable_baselines3", reason="training needs the extra 'train'")
    if package == "leaderboard":
        pytest.importorskip("jinja2", reason="the board needs the extra 'leaderboard'")
        monkeypatch.setattr("leaderboard.cli.load_entries", lambda: [])  # checking them takes a minute
    said = fails(capsys, package, arguments)
    assert "/dev/" in said and arguments[0] in said


def test_a_comparison_that_cannot_be_written_is_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert NOWHERE in fails(capsys, "oc_residual_gym", ["compare", str(finished), str(finished), "--out", NOWHERE])


def test_a_full_disk_keeps_the_finished_episodes(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (finished / "episodes.jsonl").read_bytes()
    known = {(episode["task"], episode["seed"]): episode for episode in map(json.loads, whole.splitlines())}
    ran: list[int] = []

    def run_rows(settings: EvaluationSettings, rows: Sequence[Any], worlds: int) -> Iterator[dict[str, Any]]:
        ran.append(len(rows))
        for row in rows:
            yield known[row]

    monkeypatch.setattr(evaluator, "run_rows", run_rows)
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "summary.json").unlink()
    room = len(whole) // 2
    assert room > (out / "settings.json").stat().st_size
    (out / "episodes.jsonl").write_bytes(b"")
    with full_disk(room):
        said = fails(capsys, "oc_residual_gym", [*EVALUATE, "--out", str(out)])
    assert str(out) in said and "make room" in said
    assert cli.main([*EVALUATE, "--out", str(out)]) == 0
    assert ran[0] == 6 and 0 < ran[1] < 6
    assert (out / "episodes.jsonl").read_bytes() == whole


def test_a_folder_that_vanishes_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_rows(*arguments: Any) -> Iterator[dict[str, Any]]:
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").write_text("taken")
        yield {"task": "Lift", "seed": 0, "success": True, "failure": None}

    monkeypatch.setattr(evaluator, "run_rows", run_rows)
    assert str(tmp_path / "out") in fails(capsys, "oc_residual_gym", [*EVALUATE, "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "/data/out: cannot read or write: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "/data/x"), "/data/x: .*Read-only file system; give a place"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: .*Permission denied; give a place"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/data/x"), "/data/x: .*quota exceeded; make room"),
        (OSError("the stream ended"), "/data/out: cannot read or write: the stream ended"),
        (SettingsError("wrong"), "try: wrong"),
    ],
)
def test_what_a_user_can_cause_ends_a_command_in_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert run_command("try", work, out=Path("/data/out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(said, line)


def test_a_bug_keeps_its_traceback() -> None:
    def work() -> int:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_command("try", work)


def test_a_checkpoint_that_does_not_fit_says_why_and_leaves_the_last_one(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
    from baselines.training import _Progress

    model, average = torch.nn.Linear(100, 100), torch.nn.Linear(100, 100)
    progress = _Progress(tmp_path, {"seed": 0}, model, average, torch.optim.AdamW(model.parameters()))
    progress.save(1)
    with full_disk(10_000), pytest.raises(OSError, match="too large"):
        progress.save(2)
    assert progress.load() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
