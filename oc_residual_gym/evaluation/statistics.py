"""Intervals for the success rate of a policy, and for the difference of two policies on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
    rng = np.random.default_rng(0)
    resampled = np.mean([_resampled_means(np.append(task, extremes), rng) for task in samples], axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    mean = float(np.mean([task.mean() for task in samples]))
    # Drawn towards the middle by the imagined episodes, an interval at the edge still reaches the mean.
    return Estimate(mean, min(float(low), mean), max(float(high), mean))


def _resampled_means(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """(RESAMPLES,) means of as many draws with replacement from ``values`` (episodes,)."""
    return values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
