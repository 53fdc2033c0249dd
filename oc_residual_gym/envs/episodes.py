"""From seeds to episodes: disjoint splits, and independent random generators per episode."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.tasks.base import InitialState, Task

SPLITS = {"train": None, "val": 500, "test": 500}
"""Disjoint seed streams, and the number of seeds in each (``None``: unlimited)."""


DRAWN = 10_000
"""A seed from here on is not a row of "val" or "test" but a number that a tool has drawn, because its user gave none.
Stable-Baselines3's ``make_vec_env`` draws 32 bits; one draw in 400,000 lies below this."""


def check_seed(split: str, seed: Any) -> int:
    """Return ``seed`` as an ``int``; any integer type is one.

    Raises:
        SettingsError: it is not an integer, or the split does not have it.
    """
    number = _integer(seed)
    count = SPLITS[split]
    if number < 0 or number >= (count or 2**63):
        valid = "the seeds 0 to 2**63 - 1" if count is None else f"the seeds 0 to {count - 1}"
        raise SettingsError(f"seed {number} is not in split {split!r}, which has {valid}")
    return number


def episode_seed(split: str, seed: Any) -> int:
    """Seed of the episode that ``reset(seed=seed)`` starts: ``seed`` itself if the split has it.

    A seed that a tool has drawn (see ``DRAWN``) draws one of the split's.

    Raises:
        SettingsError: it is not an integer, or a person gave one that the split does not have.
    """
    number = _integer(seed)
    if SPLITS[split] is not None and number >= DRAWN:
        return draw_seed(split, np.random.default_rng(number))
    return check_seed(split, number)


def given_seeds(seed: Any, count: int) -> list[int | None]:
    """Seeds that ``reset(seed=seed)`` gives to each of ``count`` worlds; ``None`` where one is to be drawn.

    Args:
        seed: ``None``; an integer, for ``seed`` to ``seed + count - 1``; or a sequence of integers and ``None``.
        count: number of worlds.

    Raises:
        SettingsError: their number is not ``count``, or one is not an integer.
    """
    if seed is None:
        return [None] * count
    seeds = [_integer(seed) + i for i in range(count)] if isinstance(seed, str) or np.ndim(seed) == 0 else list(seed)
    if len(seeds) != count:
        raise SettingsError(f"got {len(seeds)} seeds for {count} worlds")
    return [s if s is None else _integer(s) for s in seeds]


def episode_seeds(split: str, seeds: Sequence[int | None]) -> list[int | None]:
    """Seeds of the episodes that ``seeds`` start, see :func:`episode_seed`; ``None`` stays.

    Raises:
        SettingsError: see :func:`episode_seed`.
    """
    return [s if s is None else episode_seed(split, s) for s in seeds]


def integer(value: Any) -> int | None:
    """``value`` as an ``int`` if it is of any integer type; ``None`` if it is not. A bool is not."""
    try:
        return None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        return None


def _integer(seed: Any) -> int:
    number = integer(seed)
    if number is None:
        raise SettingsError(f"the seed is {seed!r}: give an integer, such as 3")
    return number


def draw_seed(split: str, rng: np.random.Generator) -> int:
    """Draw a seed of the split, for an episode that was started without one."""
    return int(rng.integers(SPLITS[split] or 2**31))


def episode_generators(task: str, split: str, seed: int) -> tuple[np.random.Generator, ...]:
    """Generators for one episode's initial state, physics, perception and policy, in this order."""
    stream = zlib.crc32(f"OCResidual-{task}-v0".encode()), list(SPLITS).index(split)
    return tuple(
        np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(*stream, child))))
        for child in range(4)
    )


def start_of(task: Task, split: str, seed: int) -> InitialState:
    """The initial state of the episode with ``seed``."""
    return task.reset(episode_generators(task.name, split, seed)[0])
