"""``python -m baselines sweep``: all combinations, resumable, and what fails stops nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("stable_baselines3", reason="needs the extra [train]")
pytest.importorskip("tensorboard", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")

from baselines import sweep as sweep_module
from baselines.cli import main
from baselines.residual import settings as settings_module
from baselines.sweep import SweepRequest
from oc_residual_gym.engines import Engine, attempt
from oc_residual_gym.errors import WorkerError, WorkerLost
from oc_residual_gym.files import write_json

SETTINGS = """
[training]
steps = 96
worlds = 4
conditions = [['nominal', 'paper'], ['nominal', 'tracker']]
action = 'correction'
bound = [0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.5]
penalty = 0.1
[start]
log_std = -1.0
critic_updates = 2
[model]
gamma = 0.9
learning_rate = [1e-3, 1e-4]
learning_starts = 16
buffer_size = 400
batch_size = 16
train_freq = 1
gradient_steps = 1
n_steps = 3
[model.policy_kwargs]
net_arch = [16]
"""


class Here(Engine):
    """Runs jobs in this process, where settings can be made small."""

    workers = threads = 1

    def __init__(self) -> None:
        self._outcomes: list[Any] = []

    def begin(self, function: Callable, job: Any) -> int:
        self._outcomes.append(attempt(function, job))
        return len(self._outcomes) - 1

    def wait(self, tasks: Sequence[int]) -> list[tuple[int, Any]]:
        return [(task, self._outcomes[task]) for task in tasks]

    def cancel(self, tasks: Sequence[int]) -> None:
        """All have ended."""

    def close(self) -> None:
        """Nothing was started."""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that take seconds, in this process."""
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "sac.toml").write_text(SETTINGS)
    monkeypatch.setattr(settings_module, "FOLDER", tmp_path / "settings")
    monkeypatch.setattr("baselines.residual.train.EVALUATIONS", 1)
    monkeypatch.setattr("baselines.residual.train.EVALUATION_EPISODES", 2)

    @contextmanager
    def here(options: object) -> Iterator[Engine]:
        yield Here()

    monkeypatch.setattr("baselines.cli.engine_of", here)


def run(out: Path, *options: str) -> int:
    return main(["sweep", "--task", "CloseDrawer", "--out", str(out), *options])


@pytest.mark.usefixtures("small")
def test_one_training_fails_the_others_do_not_and_it_can_be_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    folders = [out / f"CloseDrawer-bc-sac-{seed}" for seed in range(2)]
    write_json(folders[0] / "training.json", {"task": "another | training"})
    assert run(out, "--seeds", "0", "1") == 1
    summary = json.loads((out / "sweep.json").read_text())
    (done,), (failed,) = summary["trainings"], summary["failures"]
    report = json.loads((folders[1] / "report.json").read_text())
    assert (done["seed"], done["steps"], done["minutes"]) == (1, report["steps"], report["minutes"])
    assert done["success_on_val"] == report["curve"][-1]["success_rate"]
    assert failed["seed"] == 0 and "holds a run with other settings" in failed["failure"]
    assert "holds a run with other settings" in (folders[0] / "training.log").read_text()
    output = capsys.readouterr()
    assert "CloseDrawer-bc-sac-0: failed" in output.err and "CloseDrawer-bc-sac-1: " in output.err
    table = (out / "sweep.md").read_text()
    assert "another \\| training there" in table and output.out.strip().split("\n\n")[0] in table

    (folders[0] / "training.json").unlink()
    before = (folders[1] / "report.json").stat().st_mtime_ns
    assert run(out, "--seeds", "0", "1") == 0
    summary = json.loads((out / "sweep.json").read_text())
    assert [training["seed"] for training in summary["trainings"]] == [0, 1] and not summary["failures"]
    (group,) = summary["groups"]
    assert group["mean"] == sum(group["success_on_val"]) / 2 and group["interquartile_mean"] is None
    assert (folders[1] / "report.json").stat().st_mtime_ns == before  # not trained again
    assert {path.name for path in out.iterdir()} == {"sweep.json", "sweep.md", *(folder.name for folder in folders)}


def test_from_five_seeds_on_the_table_has_the_interquartile_mean() -> None:
    common = {"task": "Lift", "base": "bc", "algorithm": "sac"}
    records = [common | {"seed": seed, "success_on_val": rate} for seed, rate in enumerate((0.0, 0.9, 0.8, 0.7, 1.0))]
    group = sweep_module._group(records)
    assert group["mean"] == pytest.approx(0.68) and group["interquartile_mean"] == pytest.approx(0.8)


def test_all_combinations_are_trained_once() -> None:
    request = SweepRequest(("Lift", "all"), "bc", ("sac", "ppo"), "none", (3, 4, 3), None, Path("out"), "")
    names = [training.name for training in request.trainings]
    assert len(names) == len(set(names)) == 6 * 2 * 2
    assert names[:4] == ["Lift-bc-sac-3", "Lift-bc-sac-4", "Lift-bc-ppo-3", "Lift-bc-ppo-4"]
    taught = replace(request, teacher="planner").trainings
    assert taught[0].name == "Lift-bc-sac-planner-3"  # beside the training without a teacher


@pytest.mark.usefixtures("small")
def test_a_training_that_loses_its_workers_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(job: object) -> None:
        raise WorkerLost("exit code -9")

    monkeypatch.setattr(sweep_module, "_train", lose)
    assert run(tmp_path / "out") == 1
    (failed,) = json.loads((tmp_path / "out" / "sweep.json").read_text())["failures"]
    assert failed["failure"].startswith("CloseDrawer-bc-sac-0 lost its worker 3 times in a row (exit code -9)")


@pytest.mark.usefixtures("small")
def test_a_worker_that_differs_ends_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = []

    def differ(job: object) -> None:
        begun.append(job)
        raise WorkerError("a worker on node7 would not run it as it is here")

    monkeypatch.setattr(sweep_module, "_train", differ)
    assert run(tmp_path / "out", "--seeds", "0", "1", "2") == 2
    assert "a worker on node7" in capsys.readouterr().err
    assert len(begun) < 3  # it would take all of them, as it is always the first to be free
    assert not list((tmp_path / "out").iterdir())


def test_a_worker_without_the_folder_or_the_base_policy_says_so(tmp_path: Path) -> None:
    settings = sweep_module.EvaluationSettings(("Lift",))
    job = sweep_module._Job(
        sweep_module.Training("Lift", "bc", "sac", "none", 0),
        None,
        tmp_path / "Lift-bc-sac-0",
        tmp_path / "not_there",
        settings,
        settings.identity,
        "",
    )
    with pytest.raises(WorkerError, match=r"does not see what is in .*on a file system that all nodes"):
        sweep_module._train(job)
    object.__setattr__(settings, "base", str(tmp_path / "only_there.onnx"))  # as it comes from a node that has the file
    with pytest.raises(WorkerError, match=r"(?s)a worker on .* lacks what.*only_there.onnx"):
        sweep_module._train(job)
    assert not list(tmp_path.iterdir())


def test_trainings_run_in_a_process_and_report_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for seed in (0, 1):
        write_json(out / f"CloseDrawer-bc-sac-{seed}" / "training.json", {"task": "another"})
    assert run(out, "--seeds", "0", "1") == 1
    failures = json.loads((out / "sweep.json").read_text())["failures"]
    assert [failure["seed"] for failure in failures] == [0, 1]
    assert all("holds a run with other settings" in failure["failure"] for failure in failures)
    assert main(["sweep", "--task", "Juggle", "--out", str(tmp_path / "other")]) == 2
    assert "PegInsert" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
