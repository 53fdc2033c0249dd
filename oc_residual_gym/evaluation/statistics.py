"""Intervals for a policy's success rate, and for the difference between two policies on the same episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
"""Bootstrap resamples. The ends of an interval then vary by about 0.1 points between random seeds."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def wilson(successes: int, episodes: int) -> Estimate:
    """Success rate of one policy on one task, with its 95 % Wilson score interval.

    The interval covers the sampling of episodes only, not the variation between training seeds.
    """
    interval = binomtest(successes, episodes).proportion_ci(confidence_level=0.95, method="wilson")
    return Estimate(successes / episodes, float(interval.low), float(interval.high))


def stratified_bootstrap(values: Mapping[str, ArrayLike], extremes: tuple[float, float]) -> Estimate:
    """Mean over tasks of each task's mean, with its 95 % percentile bootstrap interval.

    For a paired comparison, pass the differences between two policies in the same episodes. Episodes are resampled
    within each task, so that every task keeps its weight. Each task's sample gets two pseudo-episodes, one at each
    extreme (as in Bonett and Price, J. Educ. Behav. Stat. 2012, for paired proportions); without them the interval
    would have zero width if all episodes agree. The mean uses the real episodes only.

    Args:
        values: task to (episodes,).
        extremes: smallest and largest value that an episode can have.
    """
    samples = [np.asarray(task, dtype=np.float64) for task in values.values()]
    drawn_from = [np.append(task, extremes) for task in samples]
    counts = _draws(tuple(len(task) for task in drawn_from), RESAMPLES)
    means = [drawn @ task / len(task) for drawn, task in zip(counts, drawn_from, strict=True)]
    resampled = np.mean(means, axis=0)
    low, high = np.quantile(resampled, [0.025, 0.975])
    mean = float(np.mean([task.mean() for task in samples]))
    # The pseudo-episodes pull the interval towards the middle; make sure that it still contains the mean.
    return Estimate(mean, min(float(low), mean), max(float(high), mean))


@lru_cache(maxsize=4)  # a board compares many policies on the same numbers of episodes
def _draws(sizes: tuple[int, ...], resamples: int) -> list[NDArray[np.uint16]]:
    """For each group size, how often each member is drawn with replacement: (resamples, size)."""
    rng = np.random.default_rng(0)
    counts = []
    for size in sizes:
        members = rng.integers(size, size=(resamples, size)) + size * np.arange(resamples)[:, None]
        drawn = np.bincount(members.ravel(), minlength=resamples * size).reshape(resamples, size)
        counts.append(drawn.astype(np.uint16))
    return counts
