"""Success rates of several policies on the same episodes, and the paired difference between two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.evaluation.statistics import stratified_bootstrap, wilson
from oc_residual_gym.files import Record
from oc_residual_gym.tasks import PAPER_TASKS, SHIPPED_TASKS, in_order

PAPER_MEAN, ALL_MEAN = "paper's five tasks", "all tasks"


def rows_of(episodes: Sequence[Record]) -> list[tuple[str, str, int]]:
    """Split, task and seed of each episode. Two evaluations can be paired only if these are equal."""
    return [(episode["split"], episode["task"], episode["seed"]) for episode in episodes]


def means_of(tasks: Sequence[str]) -> dict[str, Sequence[str]]:
    """Means to report for ``tasks``: name to the tasks averaged. The paper's mean only if all five tasks are there."""
    means: dict[str, Sequence[str]] = {}
    if set(PAPER_TASKS) <= set(tasks):
        means[PAPER_MEAN] = PAPER_TASKS
    if len(tasks) > 1 and set(tasks) != set(PAPER_TASKS):
        means[ALL_MEAN if set(tasks) == set(SHIPPED_TASKS) else f"these {len(tasks)} tasks"] = tasks
    return means


def paired_rates(sides: Mapping[str, Sequence[Record]]) -> list[Record]:
    """Success rate of each side, and second side minus first, for each task and for means over tasks.

    Args:
        sides: side name to its episodes, for at least two evaluations with the same rows in the same order.

    Returns:
        Records with "task", one entry per side, and "difference". Each entry has a mean and its 95 % interval: Wilson's
        for one task, a bootstrap stratified by task for means and differences.
    """
    successes = {side: _successes(episodes) for side, episodes in sides.items()}
    first, second = list(sides)[:2]
    tasks = in_order(successes[first])
    records = []
    for name, members in ({task: [task] for task in tasks} | means_of(tasks)).items():
        record: Record = {"task": name}
        for side, values in successes.items():
            if name in tasks:
                rate = wilson(int(values[name].sum()), len(values[name]))
            else:
                rate = stratified_bootstrap({task: values[task] for task in members}, (0.0, 1.0))
            record[side] = asdict(rate)
        differences = {task: successes[second][task] - successes[first][task] for task in members}
        record["difference"] = asdict(stratified_bootstrap(differences, (-1.0, 1.0)))
        records.append(record)
    return records


def _successes(episodes: Sequence[Record]) -> dict[str, NDArray[np.float64]]:
    """Task to (episodes,) outcomes, 0 or 1."""
    values: dict[str, list[bool]] = {}
    for episode in episodes:
        values.setdefault(episode["task"], []).append(episode["success"])
    return {task: np.array(group, dtype=np.float64) for task, group in values.items()}
