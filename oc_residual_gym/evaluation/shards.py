"""Shards: parts of an evaluation that run as jobs on an engine's workers."""

from __future__ import annotations

import math
import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from oc_residual_gym.engines import Engine
from oc_residual_gym.errors import SettingsError, WorkerError
from oc_residual_gym.evaluation.rollout import run_rows
from oc_residual_gym.evaluation.settings import EvaluationSettings, Row
from oc_residual_gym.files import Record, differences
from oc_residual_gym.registration import register_task

SHARDS_PER_WORKER = 4
"""Shards per worker: several, so that all workers stay busy until the end."""
MIN_SHARD, MAX_SHARD = 8, 24
"""Rows per shard. With fewer, each step costs more per world; with more, a lost worker loses more work."""


@dataclass(frozen=True)
class _Shard:
    """Rows of one task, run as one job."""

    settings: EvaluationSettings
    rows: tuple[Row, ...]
    worlds: int
    threads: int
    identity: Record
    """Identity of the evaluation, as the driver has it."""

    def __str__(self) -> str:
        task, first = self.rows[0]
        return f"{task}, seeds {first} to {self.rows[-1][1]}"


def run_on(
    engine: Engine, settings: EvaluationSettings, rows: Sequence[Row], worlds: int, identity: Record
) -> Generator[Record, None, None]:
    """Run ``rows`` on the workers of ``engine``; yield the episodes of each shard when it ends.

    Args:
        engine: where the shards run.
        settings: what to evaluate.
        rows: the rows to run.
        worlds: maximum number of episodes that run at a time in each worker.
        identity: that of the evaluation; workers check that theirs is equal.

    Raises:
        WorkerError: a worker has other versions or files.
    """
    most = math.ceil(len(rows) / (SHARDS_PER_WORKER * engine.workers))
    size = min(max(most, MIN_SHARD), MAX_SHARD)
    shards = (_Shard(settings, part, worlds, engine.threads, identity) for part in _cut(rows, size))
    for _, episodes in engine.map(_run_shard, shards):
        yield from episodes


def _cut(rows: Iterable[Row], size: int) -> Iterator[tuple[Row, ...]]:
    """Split ``rows`` into parts of one task each, of nearly equal length and at most ``size`` long."""
    for _, group in groupby(rows, key=lambda row: row[0]):
        own = tuple(group)
        parts = math.ceil(len(own) / size)
        for i in range(parts):
            yield own[len(own) * i // parts : len(own) * (i + 1) // parts]


def _run_shard(shard: _Shard) -> list[Record]:
    """Run one shard, in a worker."""
    check_identity(shard.settings, shard.rows[0][0], shard.identity)
    return list(run_rows(shard.settings, shard.rows, shard.worlds, shard.threads))


def check_identity(settings: EvaluationSettings, task: str, identity: Record) -> None:
    """Check that this process would run ``task`` exactly as the driver with ``identity`` would; register the task.

    Raises:
        WorkerError: versions or policies differ or are missing; the message names this host and what differs.
    """
    host = f"a worker on {socket.gethostname()}"
    outside = identity.get("outside", {}).get(task)
    if outside is not None and not outside["source"]:
        raise WorkerError(f"workers cannot make the task {task}: register it as a class that can be imported")
    try:
        if outside is not None:
            register_task(outside["source"])
        own = replace(settings, tasks=(task,)).identity
    except SettingsError as error:
        raise WorkerError(f"{host} lacks what the evaluation needs: {error}") from error
    lines = differences(_what_counts(own, task), _what_counts(identity, task), ("there", "here"))
    if lines:
        text = f"{host} would not run {task} as it is here; install the same versions and put the same files there"
        raise WorkerError("\n  ".join([text, *lines]))


def _what_counts(identity: Record, task: str) -> Record:
    """The entries of ``identity`` that affect episodes of ``task``."""
    hashes = identity["hashes"]
    policies = {kind: hashes[kind][task] for kind in ("base", "residual")}
    outside = {part: identity.get("outside", {}).get(task, {}).get(part) for part in ("file", "content")}
    return {
        "versions": identity["versions"],
        "hashes": {**policies, "simulation": hashes["simulation"]},
        "outside": {task: outside},
    }
