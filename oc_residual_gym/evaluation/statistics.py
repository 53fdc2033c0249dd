"""Intervals for the success rate of a policy, and for the difference of two policies on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
"""Bootstrap resamples: an interval's ends then move by some 0.1 points from one random seed to another."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def wilson(successes: int, episodes: int) -> Estimate:
    """Success rate of one policy on one task with its Wilson score interval.

    The interval says how far a run of ``episodes`` can stray from the policy's true rate. It knows nothing of
    how the policy was trained: another training seed is another policy.
    """
    interval = binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
    return Estimate(successes / episodes, float(interval.low), float(interval.high))


def stratified_bootstrap(values: Mapping[str, ArrayLike], extremes: tuple[float, float]) -> Estimate:
    """Mean over tasks of each task's mean, with its percentile bootstrap interval.

    For a paired comparison, let the values be the differences between two policies in the same episodes.
    Episodes are drawn anew within each task, so that a task keeps its weight. Two imagined episodes a task, one at
    each extreme, are drawn from as well (Bonett and Price, J. Educ. Behav. Stat. 2012, for paired proportions): the
    bootstrap alone would give an interval of no width where all episodes agree. The mean is that of the real ones.

    Args:
        values: task to (episodes,).
        extremes: least and greatest value that an episode can have.
    """
    samples = [np.asarray(task, dtype=np.float64) for task in values.values()]
    drawn_from = [np.append(task, extremes) for task in samples]
    counts = _draws(tuple(len(task) for task in drawn_from), RESAMPLES)
    means = [drawn @ task / len(task) for drawn, task in zip(counts, drawn_from, strict=True)]
    resampled = np.mean(means, axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    mean = float(np.mean([task.mean() for task in samples]))
    # Drawn towards the middle by the imagined episodes, an interval at the edge still reaches the mean.
    return Estimate(mean, min(float(low), mean), max(float(high), mean))


@lru_cache(maxsize=4)  # a board compares many policies on the same numbers of episodes
def _draws(sizes: tuple[int, ...], resamples: int) -> list[NDArray[np.uint16]]:
    """For each of some groups, how often each of its members is drawn: (resamples, size), drawn with replacement."""
    rng = np.random.default_rng(0)
    counts = []
    for size in sizes:
        members = rng.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
        drawn = np.bincount(members.ravel(), minlength=resamples * size).reshape(resamples, size)
        counts.append(drawn.astype(np.uint16))
    return counts
