"""``sweep``: trains residual policies for all combinations of tasks, algorithms and seeds, and tabulates them."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, product
from pathlib import Path

import numpy as np
from scipy.stats import trim_mean
from tqdm import tqdm

from baselines import BaselineError
from oc_residual_gym.engines import Engine
from oc_residual_gym.errors import SettingsError, WorkerError
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.evaluation.report import markdown_table
from oc_residual_gym.evaluation.settings import EvaluationSettings, resolve_tasks
from oc_residual_gym.evaluation.shards import check_identity
from oc_residual_gym.files import Record, write_json, write_text
from oc_residual_gym.parsing import read_json

TABLE_FILE, SUMMARY_FILE = "sweep.md", "sweep.json"
LOG_FILE = "training.log"
"""File in a training's folder with its output, and the traceback if it failed."""
SEEDS_FOR_INTERQUARTILE_MEAN = 5


@dataclass(frozen=True)
class Training:
    """One training of a sweep."""

    task: str
    base: str
    algorithm: str
    teacher: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the training's folder."""
        taught = [] if self.teacher == "none" else [self.teacher]
        return "-".join([self.task, Path(self.base).stem, self.algorithm, *taught, str(self.seed)])


@dataclass(frozen=True)
class SweepRequest:
    """Arguments of ``sweep``."""

    tasks: tuple[str, ...]
    """Task names, or "all"."""
    base: str
    algorithms: tuple[str, ...]
    teacher: str
    seeds: tuple[int, ...]
    steps: int | None
    """Environment steps per training; ``None`` for those in the settings."""
    out: Path
    command: str

    @property
    def trainings(self) -> list[Training]:
        tasks = dict.fromkeys(task for name in self.tasks for task in resolve_tasks(name, self.base))
        combinations = product(tasks, dict.fromkeys(self.algorithms), dict.fromkeys(self.seeds))
        return [Training(task, self.base, algorithm, self.teacher, seed) for task, algorithm, seed in combinations]


@dataclass(frozen=True)
class _Job:
    training: Training
    steps: int | None
    folder: Path
    marker: Path
    """A temporary file; a worker that does not see it does not share the driver's file system."""
    settings: EvaluationSettings
    """All tasks on the base policy; the worker checks their identity, because files may be missing there."""
    identity: Record
    """Identity of the simulation and the policies on the driver."""
    command: str

    def __str__(self) -> str:
        return self.training.name


def sweep(request: SweepRequest, engine: Engine) -> tuple[Record, str]:
    """Run the trainings of ``request`` that are not finished. A failed one does not stop the others.

    Returns:
        The summary, and its table in Markdown.

    Raises:
        SettingsError: there is no such task or base policy.
        WorkerError: a worker cannot see the folder, or has other versions or policies.
        OSError: the folder cannot be written.
    """
    trainings = request.trainings
    settings = EvaluationSettings(tuple(dict.fromkeys(training.task for training in trainings)), request.base)
    identity = settings.identity
    out = request.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    running: dict[int, str] = {}
    records: dict[int, Record] = {}
    with (
        tempfile.NamedTemporaryFile(dir=out, prefix=".sweep-") as marker,
        tqdm(total=len(trainings), unit="training", disable=None) as bar,
    ):

        def show() -> None:
            bar.set_postfix_str(", ".join(running.values()))

        def jobs() -> Iterator[_Job]:
            for number, training in enumerate(trainings):
                running[number] = training.name
                show()
                folder, seen = out / training.name, Path(marker.name)
                yield _Job(training, request.steps, folder, seen, settings, identity, request.command)

        with contextlib.closing(engine.outcomes(_train, jobs())) as outcomes:
            for number, outcome in outcomes:
                if isinstance(outcome, WorkerError):  # every job on that worker would fail
                    raise outcome
                records[number] = {"failure": _reason(outcome)} if isinstance(outcome, Exception) else outcome
                if bar.disable:  # no terminal
                    print(f"{running[number]}: {_said(records[number])}", file=sys.stderr, flush=True)
                del running[number]
                show()
                bar.update()
    return _write(request, [asdict(training) | records[i] for i, training in enumerate(trainings)])


def _train(job: _Job) -> Record:
    """Run or resume one training, in a worker.

    Raises:
        WorkerError: this worker does not share the driver's folder, or has other versions or policies.
        BaselineError: a checkpoint is damaged.
    """
    check_identity(job.settings, job.training.task, job.identity)
    if not job.marker.exists():
        raise WorkerError(
            f"{socket.gethostname()} does not see what is in {job.folder.parent}: give an --out on a file system that "
            "all nodes of the cluster share"
        )
    from baselines.residual import REPORT_FILE, train

    job.folder.mkdir(parents=True, exist_ok=True)
    training = job.training
    request = train.TrainResidualRequest(
        training.task,
        training.base,
        training.algorithm,
        training.seed,
        job.folder,
        job.command,
        training.teacher,
        job.steps,
    )
    with (
        open(job.folder / LOG_FILE, "a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            train.train_residual(request)
        except Exception:
            traceback.print_exc()
            raise
    report = read_json(job.folder / REPORT_FILE)
    success = report["curve"][-1]["success_rate"]
    return {"steps": report["steps"], "minutes": report["minutes"], "success_on_val": success}


def _said(record: Record) -> str:
    """Outcome of a training in a few words."""
    return "failed" if "failure" in record else f"{record['success_on_val']:.0%} success on val"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, (BaselineError, SettingsError)) else f"{type(error).__name__}: {error}"


def _write(request: SweepRequest, records: Sequence[Record]) -> tuple[Record, str]:
    """Write the summary and the table of the trainings; return both."""
    finished = [record for record in records if "failure" not in record]
    failures = [record for record in records if "failure" in record]
    groups = [_group(list(group)) for _, group in groupby(finished, key=lambda r: (r["task"], r["algorithm"]))]
    summary: Record = {
        "trainings": finished,
        "groups": groups,
        "failures": failures,
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "commit": provenance.commit(),
        "command": request.command,
    }
    parts = [_trainings_table(finished), _groups_table(groups)] if finished else []
    if failures:
        rows = [[r["task"], r["base"], r["algorithm"], str(r["seed"]), _cell(r["failure"])] for r in failures]
        parts.append(markdown_table(["failed: task", "base", "algorithm", "seed", "reason"], rows, names=5))
    table = "\n\n".join(part.strip() for part in parts)
    write_json(request.out / SUMMARY_FILE, summary)
    write_text(request.out / TABLE_FILE, f"# Residual trainings\n\n    {request.command}\n\n{table}\n")
    return summary, table


def _group(records: Sequence[Record]) -> Record:
    """Success of one task and algorithm over their seeds."""
    first, rates = records[0], [record["success_on_val"] for record in records]
    enough = len(rates) >= SEEDS_FOR_INTERQUARTILE_MEAN
    return {
        **{key: first[key] for key in ("task", "base", "algorithm")},
        "seeds": [record["seed"] for record in records],
        "success_on_val": rates,
        "mean": float(np.mean(rates)),
        "interquartile_mean": float(trim_mean(rates, 0.25)) if enough else None,
    }


def _trainings_table(records: Sequence[Record]) -> str:
    rows = [
        [
            *(str(record[key]) for key in ("task", "base", "algorithm", "seed", "steps")),
            f"{record['minutes']:.1f}",
            f"{record['success_on_val']:.0%}",
        ]
        for record in records
    ]
    return markdown_table(["task", "base", "algorithm", "seed", "steps", "minutes", "success on val"], rows, names=3)


def _groups_table(groups: Sequence[Record]) -> str:
    rows = [
        [
            *(group[key] for key in ("task", "base", "algorithm")),
            str(len(group["seeds"])),
            f"{group['mean']:.1%}",
            "" if group["interquartile_mean"] is None else f"{group['interquartile_mean']:.1%}",
        ]
        for group in groups
    ]
    return markdown_table(["task", "base", "algorithm", "seeds", "mean", "interquartile mean"], rows, names=3)


def _cell(text: str) -> str:
    """Escape ``text`` for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
