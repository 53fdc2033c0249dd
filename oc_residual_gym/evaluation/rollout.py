"""Run the episodes of a list of rows in this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.settings import EvaluationSettings, Row
from oc_residual_gym.evaluation.tally import Tally
from oc_residual_gym.files import Record
from oc_residual_gym.identity import name_of, own_copy
from oc_residual_gym.policies.chunks import failure_text
from oc_residual_gym.residuals import ResidualPolicy, load_residual
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.render import RenderError


def run_rows(
    settings: EvaluationSettings, rows: Sequence[Row], worlds: int, threads: int | None = None
) -> Generator[Record, None, None]:
    """Run ``rows`` in this process, one task after another; yield each episode's record when it ends."""
    for task, group in groupby(rows, key=lambda row: row[0]):
        yield from _run_task(settings, task, [seed for _, seed in group], worlds, threads)


def _run_task(
    settings: EvaluationSettings, task: str, seeds: Sequence[int], worlds: int, threads: int | None
) -> Iterator[Record]:
    try:
        core = ResidualWorlds(
            task,
            min(worlds, len(seeds)),
            base_policy=own_copy(settings.base),
            domain=settings.domain,
            errors=settings.errors,
            split=settings.split,
            max_episode_steps=TASKS[task].max_episode_steps,
            threads=threads,
        )
    except ValueError as error:  # an unreachable server
        raise SettingsError(str(error)) from error
    residual = load_residual(own_copy(settings.residual), task, settings.base)
    names, tally = settings.names, Tally(core.num_worlds)
    waiting = iter(seeds)

    def start(idle: IntArray) -> IntArray:
        """Start the next rows in the ``idle`` worlds; return the worlds that got one."""
        taken = list(zip(idle.tolist(), waiting, strict=False))
        started = np.array([world for world, _ in taken], dtype=np.int64)
        if taken:
            tally.reset(started)
            try:
                with stopped_by_base(core):
                    core.reset(started, [seed for _, seed in taken])
                residual.reset(core, started)
            except SettingsError:
                raise
            except (ValueError, RenderError) as error:  # a file made for another task, or no OpenGL for images
                raise SettingsError(str(error)) from error
        return started

    try:
        running = start(np.arange(core.num_worlds))
        while len(running):
            actions = _actions(residual, core, running)
            with stopped_by_base(core):
                core.step(actions, running)
            tally.add(core, actions, running)
            over = (core.terminated | core.truncated)[running]
            if over.any():
                ended = running[over]
                yield from [_record(names, core, tally, world) for world in ended.tolist()]
                running = np.sort(np.concatenate([running[~over], start(ended)]))
    finally:
        core.close()


@contextmanager
def stopped_by_base(core: ResidualWorlds) -> Iterator[None]:
    """Stop at an exception of the base policy: a lost server or a programming error is not a result of the policy.

    Raises:
        SettingsError: the base policy has raised an exception; the message says which one, and in which episode.
    """
    try:
        yield
    except Exception as error:
        if error is not core.base_policy_error:
            raise
    cause = core.base_policy_error
    if cause is not None:
        text = failure_text(core.base_policy, cause)
        # An automatic reset may have started the world's next episode by now.
        seeds = [f", seed {core.seeds[i]}" for i, problem in enumerate(core.base_policy_problem) if problem == text]
        where = core.task.name + (seeds[0] if seeds else "")
        raise SettingsError(f"{text}: in {where}; mend that, and run the same command again to go on") from cause


def _actions(residual: ResidualPolicy, core: ResidualWorlds, running: IntArray) -> Array:
    """(N, 7) actions of ``residual`` in the ``running`` worlds, zeros in the others.

    Raises:
        SettingsError: it fails or returns invalid actions; the message names the episode.
    """

    def failed(world: int, how: str) -> SettingsError:
        return SettingsError(
            f"residual policy {name_of(residual)!r} {how}: in {core.task.name}, seed {core.seeds[world]}"
        )

    try:
        chosen = np.asarray(residual.act(core), np.float64)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise failed(running[0], f"failed ({error})") from error
    if chosen.shape != (core.num_worlds, 7):
        raise failed(running[0], f"returned actions of shape {chosen.shape} for {core.num_worlds} worlds of 7 each")
    actions = np.zeros_like(chosen)
    actions[running] = chosen[running]
    if not np.isfinite(actions).all():
        world, entry = np.argwhere(~np.isfinite(actions))[0]
        raise failed(world, f"returned {chosen[world, entry]} as entry {entry} of its action")
    return actions


def _record(names: Mapping[str, str], core: ResidualWorlds, tally: Tally, world: int) -> Record:
    """Record of the episode that has just ended in ``world``; ``names`` holds the names of policies and settings.

    Where the base policy failed, the record has the key "problem", which is not stored.
    """
    steps = int(core.steps[world])
    success = bool(core.terminated[world])
    correction = tally.correction[world] / steps
    change = tally.change[world] / max(steps - 1, 1)
    return {
        "task": core.task.name,
        "seed": int(core.seeds[world]),
        **names,
        "success": success,
        "steps": steps,
        "failure": None if success else core.failure[world],
        "return": _rounded(tally.episode_return[world]),
        "peak_contact_force": _rounded(tally.peak_contact_force[world]),
        "correction_mm": _rounded(1000.0 * correction[0]),
        "correction_rad": _rounded(correction[1]),
        "correction_change_mm": _rounded(1000.0 * change[0]),
        "correction_change_rad": _rounded(change[1]),
    } | ({"problem": core.base_policy_problem[world]} if core.base_policy_failed[world] else {})


def _rounded(value: NDArray[np.float64]) -> float:
    return round(float(value), 6)
