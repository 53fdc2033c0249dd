"""Evaluation of a base policy under a residual policy on an explicit list of (task, seed) rows.

Every row is run once to its end. A world that finishes takes the next row and none waits for another, but all
rows count: short episodes are not favoured over long ones. An episode depends on its row alone, so that
results are the same, byte for byte, for any number of worlds and processes, and after any number of
interruptions.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from oc_residual_gym.engines import Engine, WorkerError
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.episodes import SPLITS
from oc_residual_gym.evaluation import SettingsError, results
from oc_residual_gym.evaluation.results import Record
from oc_residual_gym.evaluation.tally import Tally
from oc_residual_gym.perception.errors import MODELS
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.residual import ResidualPolicy, load_residual
from oc_residual_gym.policies.server import ServerPolicy
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.base import Array, IntArray
from oc_residual_gym.worlds.domains import DOMAINS
from oc_residual_gym.worlds.render import RenderError

Row = tuple[str, int]
"""Task and seed."""

SHARDS_PER_WORKER = 4
"""Into which an engine's work is cut, so that all workers have some until the end."""
MIN_SHARD, MAX_SHARD = 8, 24
"""Rows of a shard: with fewer, each step of its worlds costs more; with more, a lost worker does."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated.

    Raises:
        SettingsError: if something does not exist; the message lists what does.
    """

    tasks: tuple[str, ...]
    base: str = "bc"
    residual: str = "zero"
    domain: str = "nominal"
    errors: str = "paper"
    split: str = "val"
    episodes: int = 50
    """Episodes a task: seeds 0 to ``episodes`` - 1 of the split."""

    def __post_init__(self) -> None:
        for task in self.tasks:
            _check_choice("task", task, TASKS)
        _check_choice("domain", self.domain, DOMAINS)
        _check_choice("pose error model", self.errors, MODELS)
        _check_choice("split", self.split, SPLITS)
        limit = SPLITS[self.split]
        if self.episodes < 1 or (limit is not None and self.episodes > limit):
            upper = "at least 1" if limit is None else f"1 to {limit}, the seeds that split {self.split!r} has"
            raise SettingsError(f"episodes is {self.episodes}; it must be {upper}")
        try:
            for task in self.tasks:
                load_base_policy(self.base, TASKS[task])
                load_residual(self.residual, task, self.base)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    @property
    def rows(self) -> list[Row]:
        return [(task, seed) for task in self.tasks for seed in range(self.episodes)]

    @property
    def hashes(self) -> results.Record:
        """SHA-256 of what the results depend on: base and residual policy by task (``None`` where there is no
        file), simulation."""
        return {
            "base": {task: load_base_policy(self.base, TASKS[task]).hash for task in self.tasks},
            "residual": {task: load_residual(self.residual, task, self.base).hash for task in self.tasks},
            "simulation": results.simulation_hash(),
        }

    @property
    def identity(self) -> results.Record:
        """All that the results depend on: two evaluations with equal identities give equal results."""
        return asdict(self) | {"hashes": self.hashes, "versions": results.versions()}


def resolve_tasks(name: str) -> tuple[str, ...]:
    """Names of all tasks for "all", else the one named."""
    if name == "all":
        return tuple(TASKS)
    _check_choice("task", name, TASKS)
    return (name,)


def evaluate(
    settings: EvaluationSettings,
    out: Path,
    *,
    worlds: int = 32,
    engine: Engine | None = None,
    rows: Collection[Row] | None = None,
    command: str | None = None,
    bar: tqdm | None = None,
) -> Record:
    """Run those episodes of ``settings`` that ``out`` does not hold yet; write and return the summary of all it holds.

    Args:
        settings: what to evaluate.
        out: folder of episodes.jsonl (one line an episode, appended as they finish and sorted at the end),
            settings.json and summary.json.
        worlds: episodes that run at a time in each process, at most.
        engine: where they run; by default in this process, whose worlds share the cores.
        rows: a part of the settings' rows, for a sample; later calls can complete it.
        command: what the summary names as the command that made it.
        bar: shows the episodes among those of other evaluations; by default they get a bar of their own.

    Raises:
        SettingsError: if ``out`` holds another evaluation, ``rows`` are not the settings', a policy was made for
            another task or returns no actions, or a worker would not run the same.
    """
    wanted = _wanted_rows(settings, rows)
    identity = settings.identity
    episodes = results.resume(out, identity)
    done = {(episode["task"], episode["seed"]) for episode in episodes}
    left = [row for row in wanted if row not in done]
    if not left and (out / results.SUMMARY_FILE).exists():  # it names the commit and machine that ran them
        if bar is not None:
            bar.update(len(wanted))
        return results.read_json(out / results.SUMMARY_FILE)
    (out / results.SUMMARY_FILE).unlink(missing_ok=True)  # of fewer rows

    successes = sum(episode["success"] for episode in episodes)
    with (
        open(out / results.EPISODES_FILE, "a", encoding="utf-8") as file,
        nullcontext(bar) if bar is not None else tqdm(total=len(wanted), unit="episode", disable=None) as shown,
        closing(
            run_rows(settings, left, worlds) if engine is None else _run_on(engine, settings, left, worlds, identity)
        ) as run,
    ):
        shown.update(len(wanted) - len(left))
        for episode in run:
            file.write(results.json_line(episode))
            file.flush()
            episodes.append(episode)
            successes += episode["success"]
            shown.set_postfix_str(f"{episode['task']}, success {successes / len(episodes):.1%}", refresh=False)
            shown.update()

    episodes.sort(key=lambda episode: (episode["task"], episode["seed"]))
    results.write_text(out / results.EPISODES_FILE, "".join(map(results.json_line, episodes)))
    summary = {
        "cells": results.cells(episodes),
        "versions": identity["versions"],
        "machine": results.machine(),
        "commit": results.commit(),
        "hashes": identity["hashes"],
        "command": command,
    }
    results.write_json(out / results.SUMMARY_FILE, summary)
    return summary


def _wanted_rows(settings: EvaluationSettings, rows: Collection[Row] | None) -> list[Row]:
    """``rows`` in the settings' order, all of them by default. Raises ``SettingsError`` where one is not among them."""
    if rows is None:
        return settings.rows
    chosen = set(rows)
    unknown = sorted(chosen - set(settings.rows))
    if unknown:
        task, seed = unknown[0]
        raise SettingsError(
            f"{len(unknown)} of the rows, such as {task} with seed {seed}, are not among those of this evaluation: "
            f"{', '.join(settings.tasks)} with seeds 0 to {settings.episodes - 1}"
        )
    return [row for row in settings.rows if row in chosen]


def run_rows(
    settings: EvaluationSettings, rows: Sequence[Row], worlds: int, threads: int | None = None
) -> Generator[Record, None, None]:
    """Run ``rows`` in this process, one task after the other; yield episodes as they end."""
    for task, group in groupby(rows, key=lambda row: row[0]):
        yield from _run_task(settings, task, [seed for _, seed in group], worlds, threads)


def _run_task(
    settings: EvaluationSettings, task: str, seeds: Sequence[int], worlds: int, threads: int | None
) -> Iterator[Record]:
    try:
        core = ResidualWorlds(
            task,
            min(worlds, len(seeds)),
            base_policy=settings.base,
            domain=settings.domain,
            errors=settings.errors,
            split=settings.split,
            max_episode_steps=TASKS[task].max_episode_steps,
            threads=threads,
        )
    except ValueError as error:  # a server that is not there
        raise SettingsError(str(error)) from error
    residual = load_residual(settings.residual, task, settings.base)
    tally = Tally(core.num_worlds)
    waiting = iter(seeds)

    def start(idle: IntArray) -> IntArray:
        """Give the next rows to ``idle`` worlds; return the worlds that got one."""
        taken = list(zip(idle.tolist(), waiting, strict=False))
        started = np.array([world for world, _ in taken], dtype=np.int64)
        if taken:
            tally.reset(started)
            try:
                core.reset(started, [seed for _, seed in taken])
                residual.reset(core, started)
            except (ValueError, RenderError) as error:  # a file made for another task, or no OpenGL for its images
                raise SettingsError(str(error)) from error
        return started

    try:
        running = start(np.arange(core.num_worlds))
        while len(running):
            actions = _actions(residual, core, running)
            core.step(actions, running)
            if isinstance(core.base_policy, ServerPolicy) and core.base_policy_failed[running].any():
                # A lost server is no failure of its model: the episodes that it has not finished are not counted.
                raise SettingsError(f"{core.base_policy_problem}; run this again once it is back, to go on")
            tally.add(core, actions, running)
            over = (core.terminated | core.truncated)[running]
            if over.any():
                ended = running[over]
                yield from [_record(settings, core, tally, world) for world in ended.tolist()]
                running = np.sort(np.concatenate([running[~over], start(ended)]))
    finally:
        core.close()


def _actions(residual: ResidualPolicy, core: ResidualWorlds, running: IntArray) -> Array:
    """(N, 7) what ``residual`` does in the worlds ``running``, and zeros in the others.

    Raises:
        SettingsError: it fails, or returns no actions, naming the episode.
    """

    def failed(world: int, how: str) -> SettingsError:
        return SettingsError(f"residual policy {residual.name!r} {how}: in {core.task.name}, seed {core.seeds[world]}")

    try:
        chosen = np.asarray(residual.act(core), np.float64)
    except Exception as error:  # those of ONNX Runtime have no base of their own
        raise failed(running[0], f"failed ({error})") from error
    if chosen.shape != (core.num_worlds, 7):
        raise failed(running[0], f"returned actions of shape {chosen.shape} for {core.num_worlds} worlds of 7 each")
    actions = np.zeros_like(chosen)
    actions[running] = chosen[running]
    if not np.isfinite(actions).all():
        world, entry = np.argwhere(~np.isfinite(actions))[0]
        raise failed(world, f"returned {chosen[world, entry]} as entry {entry} of its action")
    return actions


def _record(settings: EvaluationSettings, core: ResidualWorlds, tally: Tally, world: int) -> Record:
    """Describe the episode that has just ended in ``world``."""
    steps = int(core.steps[world])
    success = bool(core.terminated[world])
    correction = tally.correction[world] / steps
    change = tally.change[world] / max(steps - 1, 1)
    return {
        "task": core.task.name,
        "seed": int(core.seeds[world]),
        "base": settings.base,
        "residual": settings.residual,
        "domain": settings.domain,
        "errors": settings.errors,
        "split": settings.split,
        "success": success,
        "steps": steps,
        "failure": None if success else core.failure[world],
        "return": _rounded(tally.episode_return[world]),
        "peak_contact_force": _rounded(tally.peak_contact_force[world]),
        "correction_mm": _rounded(1000.0 * correction[0]),
        "correction_rad": _rounded(correction[1]),
        "correction_change_mm": _rounded(1000.0 * change[0]),
        "correction_change_rad": _rounded(change[1]),
    }


def _rounded(value: NDArray[np.float64]) -> float:
    return round(float(value), 6)


def _check_choice(kind: str, value: str, valid: Collection[str]) -> None:
    if value not in valid:
        raise SettingsError(f"unknown {kind} {value!r}: choose one of {', '.join(valid)}")


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


def _run_on(
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
    """Check that this process would run ``task`` as the one that has ``identity`` does.

    Raises:
        WorkerError: it has other versions, other policies, or none; the message names this host and what differs.
    """
    host = f"a worker on {socket.gethostname()}"
    try:
        own = replace(settings, tasks=(task,)).identity
    except SettingsError as error:
        raise WorkerError(f"{host} lacks what the evaluation needs: {error}") from error
    lines = [
        f"  {name}: {there} there, {here} here"
        for name, there, here in results.differing(_what_counts(own, task), _what_counts(identity, task))
    ]
    if lines:
        text = f"{host} would not run {task} as it is here; install the same versions and put the same files there"
        raise WorkerError("\n".join([text, *lines]))


def _what_counts(identity: Record, task: str) -> Record:
    """What decides how an episode of ``task`` goes, by its name."""
    hashes = identity["hashes"]
    names = {f"version of {name}": version for name, version in identity["versions"].items()}
    policies = {f"{kind} policy": hashes[kind][task] for kind in ("base", "residual")}
    return names | {"simulation": hashes["simulation"]} | policies
