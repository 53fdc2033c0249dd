"""Parts of an evaluation as jobs for an engine's workers."""

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
from oc_residual_gym.files import Record, differing
from oc_residual_gym.registration import register_task

SHARDS_PER_WORKER = 4
"""Into which an engine's work is cut, so that all workers have some until the end."""
MIN_SHARD, MAX_SHARD = 8, 24
"""Rows of a shard: with fewer, each step of its worlds costs more; with more, a lost worker does."""


@dataclass(frozen=True)
class _Shard:
    """Rows of one task, as one job."""

    settings: EvaluationSettings
    rows: tuple[Row, ...]
    worlds: int
    threads: int
    identity: Record
    """Of the evaluation that the rows are for."""

    def __str__(self) -> str:
        task, first = self.rows[0]
        return f"{task}, seeds {first} to {self.rows[-1][1]}"


def run_on(
    engine: Engine, settings: EvaluationSettings, rows: Sequence[Row], worlds: int, identity: Record
) -> Generator[Record, None, None]:
    """Run ``rows`` on the workers of ``engine``; yield episodes as shards end."""
    most = math.ceil(len(rows) / (SHARDS_PER_WORKER * engine.workers))
    size = min(max(most, MIN_SHARD), MAX_SHARD)
    shards = (_Shard(settings, part, worlds, engine.threads, identity) for part in _cut(rows, size))
    for _, episodes in engine.map(_run_shard, shards):
        yield from episodes


def _cut(rows: Iterable[Row], size: int) -> Iterator[tuple[Row, ...]]:
    """Parts of ``rows`` of one task each, as equal as they can be and at most ``size`` long."""
    for _, group in groupby(rows, key=lambda row: row[0]):
        own = tuple(group)
        parts = math.ceil(len(own) / size)
        for i in range(parts):
            yield own[len(own) * i // parts : len(own) * (i + 1) // parts]


def _run_shard(shard: _Shard) -> list[Record]:
    """What a worker does."""
    check_identity(shard.settings, shard.rows[0][0], shard.identity)
    return list(run_rows(shard.settings, shard.rows, shard.worlds, shard.threads))


def check_identity(settings: EvaluationSettings, task: str, identity: Record) -> None:
    """Check that this process would run ``task`` as the one that has ``identity`` does; make the task known to it.

    Raises:
        WorkerError: it has other versions, other policies, or none; the message names this host and what differs.
    """
    host = f"a worker on {socket.gethostname()}"
    try:
        if task in identity.get("outside", {}):
            source = identity["outside"][task]["source"]
            if not source:
                raise WorkerError(f"workers cannot make the task {task}: register it as a class that can be imported")
            register_task(source)
        own = replace(settings, tasks=(task,)).identity
    except WorkerError:
        raise
    except SettingsError as error:
        raise WorkerError(f"{host} lacks what the evaluation needs: {error}") from error
    lines = [
        f"  {name}: {there} there, {here} here"
        for name, there, here in differing(_what_counts(own, task), _what_counts(identity, task))
    ]
    if lines:
        text = f"{host} would not run {task} as it is here; install the same versions and put the same files there"
        raise WorkerError("\n".join([text, *lines]))


def _what_counts(identity: Record, task: str) -> Record:
    """What decides how an episode of ``task`` goes, by its name."""
    hashes = identity["hashes"]
    names = {f"version of {name}": version for name, version in identity["versions"].items()}
    policies = {f"{kind} policy": hashes[kind][task] for kind in ("base", "residual")}
    code = {"simulation": hashes["simulation"]}
    if task in identity.get("outside", {}):
        code["file of the task"] = identity["outside"][task]["sha256"]
    return names | code | policies
