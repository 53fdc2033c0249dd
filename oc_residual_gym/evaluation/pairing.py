"""Success rates of several policies on the same episodes, and paired differences between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.evaluation.statistics import Estimate, stratified_bootstrap, wilson
from oc_residual_gym.files import Record
from oc_residual_gym.tasks import PAPER_TASKS, SHIPPED_TASKS, in_order

PAPER_MEAN, ALL_MEAN = "paper's five tasks", "all tasks"


def rows_of(episodes: Sequence[Record]) -> list[tuple[str, str, int]]:
    """Split, task and seed of each episode. Two evaluations can be paired only if these are equal."""
    return [(episode["split"], episode["task"], episode["seed"]) for episode in episodes]


def means_of(tasks: Sequence[str], shared: Sequence[str] = ()) -> dict[str, Sequence[str]]:
    """Means to report for ``tasks``: name to the tasks averaged. The paper's mean only if all five tasks are there.

    Args:
        tasks: the tasks that were run.
        shared: those of them that have a residual. If it lacks some, its mean is reported beside those of all.
    """
    means: dict[str, Sequence[str]] = {}
    if set(PAPER_TASKS) <= set(tasks):
        means[PAPER_MEAN] = PAPER_TASKS
    if len(tasks) > 1 and set(tasks) != set(PAPER_TASKS):
        means[ALL_MEAN if set(tasks) == set(SHIPPED_TASKS) else f"these {len(tasks)} tasks"] = tasks
    if len(shared) > 1 and set(shared) not in map(set, means.values()):
        means[f"the {len(shared)} tasks with a residual"] = shared
    return means


def paired_rates(
    sides: Mapping[str, Sequence[Record]], differences: Mapping[str, tuple[str, str]] | None = None
) -> list[Record]:
    """Success rate of each side, and differences between sides, for each task and for means over tasks.

    Args:
        sides: side name to its episodes, for at least two evaluations with the same rows in the same order. All but the
            first side may lack tasks.
        differences: name of a difference to the sides subtracted, (reference, candidate); by default "difference", the
            second side minus the first.

    Returns:
        Records with "task" (or the name of a mean), "tasks" (those averaged), one entry per side, and one per
        difference. Each entry has a mean and its 95 % interval: Wilson's for one task, a bootstrap stratified by task
        for means and differences. It is ``None`` where a side lacks one of the tasks.
    """
    successes = {side: _successes(episodes) for side, episodes in sides.items()}
    first, second = list(sides)[:2]
    differences = differences or {"difference": (first, second)}
    tasks = in_order(successes[first])
    shared = [task for task in tasks if all(task in values for values in successes.values())]
    records = []
    for name, members in ({task: [task] for task in tasks} | means_of(tasks, shared)).items():
        record: Record = {"task": name, "tasks": list(members)}
        there = {side for side, values in successes.items() if set(members) <= set(values)}
        for side, values in successes.items():
            record[side] = asdict(_rate({task: values[task] for task in members})) if side in there else None
        for difference, (reference, candidate) in differences.items():
            record[difference] = None
            if {reference, candidate} <= there:
                values = {task: successes[candidate][task] - successes[reference][task] for task in members}
                record[difference] = asdict(stratified_bootstrap(values, (-1.0, 1.0)))
        records.append(record)
    return records


def headline(records: Sequence[Record]) -> Record:
    """The one of :func:`paired_rates`' records that sums them up: the paper's mean, else the last one.

    Records without a "difference" count only where none has it.
    """
    candidates = [record for record in records if record["difference"] is not None] or records
    return next((record for record in candidates if record["task"] == PAPER_MEAN), candidates[-1])


def mean_name(record: Record) -> str:
    """A mean's name after "mean of": "the paper's five tasks", "all tasks", "these 2 tasks"."""
    return f"the {PAPER_MEAN}" if record["task"] == PAPER_MEAN else str(record["task"])


def _rate(values: Mapping[str, NDArray[np.float64]]) -> Estimate:
    """Success rate over one task or over several, from task to (episodes,) outcomes."""
    if len(values) > 1:
        return stratified_bootstrap(values, (0.0, 1.0))
    (outcomes,) = values.values()
    return wilson(int(outcomes.sum()), len(outcomes))


def _successes(episodes: Sequence[Record]) -> dict[str, NDArray[np.float64]]:
    """Task to (episodes,) outcomes, 0 or 1."""
    values: dict[str, list[bool]] = {}
    for episode in episodes:
        values.setdefault(episode["task"], []).append(episode["success"])
    return {task: np.array(group, dtype=np.float64) for task, group in values.items()}
