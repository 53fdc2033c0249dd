"""Evaluation of a base policy under a residual policy on an explicit list of (task, seed) rows.

Every row is run once to its end. A world that finishes takes the next row and none waits for another, but all
rows count: short episodes are not favoured over long ones. An episode depends on its row alone, so that
results are the same, byte for byte, for any number of worlds and processes, and after any number of
interruptions.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import groupby
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.episodes import SPLITS
from oc_residual_gym.evaluation import SettingsError, results
from oc_residual_gym.evaluation.results import Record
from oc_residual_gym.geometry import norm
from oc_residual_gym.perception.errors import MODELS
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.residual import load_residual
from oc_residual_gym.policies.server import ServerPolicy
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.base import Array, IntArray
from oc_residual_gym.worlds.domains import DOMAINS
from oc_residual_gym.worlds.render import RenderError

Row = tuple[str, int]
"""Task and seed."""


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
    workers: int = 1,
    command: str | None = None,
    bar: tqdm | None = None,
) -> Record:
    """Run those episodes of ``settings`` that ``out`` does not hold yet; write and return the summary.

    Args:
        settings: what to evaluate.
        out: folder of episodes.jsonl (one line an episode, appended as they finish and sorted at the end),
            settings.json and summary.json.
        worlds: episodes that run at a time in each process.
        workers: processes. One is best on a few cores, since its worlds already share them.
        command: what the summary names as the command that made it.
        bar: shows the episodes among those of other evaluations; by default they get a bar of their own.

    Raises:
        SettingsError: if ``out`` holds another evaluation, or a policy was made for another task.
    """
    identity = settings.identity
    episodes = results.resume(out, identity)
    done = {(episode["task"], episode["seed"]) for episode in episodes}
    rows = [row for row in settings.rows if row not in done]
    if not rows and (out / results.SUMMARY_FILE).exists():  # it names the commit and machine that ran them
        if bar is not None:
            bar.update(len(done))
        return results.read_json(out / results.SUMMARY_FILE)

    successes = sum(episode["success"] for episode in episodes)
    with (
        open(out / results.EPISODES_FILE, "a", encoding="utf-8") as file,
        nullcontext(bar) if bar is not None else tqdm(total=len(settings.rows), unit="episode", disable=None) as shown,
    ):
        shown.update(len(done))
        run = run_rows(settings, rows, worlds) if workers == 1 else _run_in_processes(settings, rows, worlds, workers)
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


def run_rows(
    settings: EvaluationSettings, rows: Sequence[Row], worlds: int, threads: int | None = None
) -> Iterator[Record]:
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
    tally = _Tally(core.num_worlds)
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
            actions = residual.act(core)
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


class _Tally:
    """Running totals of each world's episode."""

    def __init__(self, num_worlds: int) -> None:
        self.episode_return = np.zeros(num_worlds)
        self.peak_contact_force = np.zeros(num_worlds)
        self.correction = np.zeros((num_worlds, 2))
        """Sum over steps of the correction's size: metres, radians."""
        self.change = np.zeros((num_worlds, 2))
        """Sum over steps but the first of the size of the correction's change."""
        self._last = np.zeros((num_worlds, 6))

    def reset(self, worlds: IntArray) -> None:
        for total in (self.episode_return, self.peak_contact_force, self.correction, self.change):
            total[worlds] = 0.0
        self._last[worlds] = np.nan  # no change at the first step

    def add(self, core: ResidualWorlds, actions: Array, worlds: IntArray) -> None:
        """Count the step that ``worlds`` have just made with ``actions`` (N, 7)."""
        correction = np.clip(actions[worlds, :6], -1.0, 1.0)
        correction *= np.repeat([core.scales.position, core.scales.rotation], 3)
        self.correction[worlds] += _sizes(correction)
        self.change[worlds] += _sizes(np.nan_to_num(correction - self._last[worlds]))
        self._last[worlds] = correction
        self.episode_return[worlds] += core.reward[worlds]
        self.peak_contact_force[worlds] = np.maximum(self.peak_contact_force, core.peak_contact_force)[worlds]


def _sizes(correction: Array) -> Array:
    """(n, 2) lengths of the position and the rotation part of corrections (n, 6)."""
    return np.stack([norm(correction[:, :3]), norm(correction[:, 3:])], axis=1)


def _record(settings: EvaluationSettings, core: ResidualWorlds, tally: _Tally, world: int) -> Record:
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


def _run_in_processes(settings: EvaluationSettings, rows: Sequence[Row], worlds: int, workers: int) -> Iterator[Record]:
    """Run ``rows`` in ``workers`` processes; yield episodes as they end anywhere.

    Raises:
        SettingsError: if a policy was made for another task.
        RuntimeError: if a process fails, with what it said.
    """
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    episodes: Queue[Record | Exception] = context.Queue()
    threads = max(1, (os.cpu_count() or 1) // workers)
    processes = [
        context.Process(target=_work, args=(episodes, settings, rows[i::workers], worlds, threads), daemon=True)
        for i in range(min(workers, len(rows)))
    ]
    for process in processes:
        process.start()
    try:
        for _ in rows:
            episode = _next(episodes, processes)
            if isinstance(episode, Exception):
                raise episode
            yield episode
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _next(episodes: Queue[Record | Exception], processes: Sequence[BaseProcess]) -> Record | Exception:
    """Next episode of any of the processes, or how one of them failed."""
    while True:
        try:
            return episodes.get(timeout=1.0)
        except queue.Empty:
            codes = [process.exitcode for process in processes]
            if any(code not in (None, 0) for code in codes):
                return RuntimeError(f"an evaluation process was killed (exit codes {codes}): is there enough memory?")


def _work(
    episodes: Queue[Record | Exception],
    settings: EvaluationSettings,
    rows: Sequence[Row],
    worlds: int,
    threads: int,
) -> None:
    """Run ``rows`` and put each episode into ``episodes``: what one of several processes does."""
    parent = multiprocessing.parent_process()
    try:
        for episode in run_rows(settings, rows, worlds, threads):
            if parent is not None and not parent.is_alive():
                return
            episodes.put(episode)
    except SettingsError as error:
        episodes.put(error)
    except Exception:
        episodes.put(RuntimeError(f"an evaluation process failed:\n{traceback.format_exc()}"))
