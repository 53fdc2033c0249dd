"""From seeds to episodes: disjoint splits, and independent random generators per episode."""

from __future__ import annotations

import zlib

import numpy as np

from oc_residual_gym.tasks.base import InitialState, Task

SPLITS = {"train": None, "val": 500, "test": 500}
"""Disjoint seed streams, and the number of seeds in each (``None``: unlimited)."""


def check_seed(split: str, seed: int) -> int:
    """Return ``seed``. Raises ``ValueError`` if the split does not have it."""
    count = SPLITS[split]
    if seed < 0 or seed >= (count or 2**63):
        valid = "the seeds 0 to 2**63 - 1" if count is None else f"the seeds 0 to {count - 1}"
        raise ValueError(f"seed {seed} is not in split {split!r}, which has {valid}")
    return int(seed)


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
