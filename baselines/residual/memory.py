"""A residual policy's memory: the observation at the start of the base policy's chunk, and a few past ones.

A base policy commits itself to a chunk, and so does the planner; what it saw then explains what it does now. Past
observations show what one of them cannot: how the arm follows, and what contact has done.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oc_residual_gym.envs.observation import Field

LAGS = (1, 2, 4, 8)
"""Ages of the past observations, in control steps."""

FloatArray = NDArray[np.float32]


def memory_size(visible: int) -> int:
    """Number of entries M of the memory of a policy that sees ``visible`` entries."""
    return visible * (1 + max(LAGS))


def seen_size(visible: int) -> int:
    """Number of entries of what such a policy sees with its memory: now, the chunk's start, and past observations."""
    return visible * (2 + len(LAGS))


def field_value(observation: Tensor, field: Field) -> Tensor:
    """Values (n, size) of ``field`` in its unit, from observations (n, D or more)."""
    return observation[:, field.slice] * field.scale


def phase_entry(layout: Sequence[Field]) -> int:
    """Index of the entry of the observation that is 0 where a chunk starts."""
    return next(field.start for field in layout if field.name == "chunk_phase")


class Memory:
    """Memory of N worlds in training.

    Args:
        num_worlds: N.
        layout: the observation's fields.
    """

    def __init__(self, num_worlds: int, layout: Sequence[Field]):
        self._visible, self._phase = layout[-1].stop, phase_entry(layout)
        self.width = seen_size(self._visible)
        """Number of entries of what :meth:`recall` returns per world."""
        self._start = np.zeros((num_worlds, self._visible), np.float32)
        self._past = np.zeros((num_worlds, max(LAGS), self._visible), np.float32)

    def recall(self, observations: FloatArray) -> FloatArray:
        """``observations`` (N, D) with what is remembered beside them, (N, D (2 + lags)); then remember them."""
        starts = observations[:, self._phase] == 0.0
        self._start[starts] = observations[starts]
        seen = self._beside(observations, slice(None))
        self._past[:, 1:] = self._past[:, :-1]
        self._past[:, 0] = observations
        return seen

    def peek(self, observation: FloatArray, world: int) -> FloatArray:
        """The last ``observation`` (D,) of an episode of ``world``, with what is remembered beside it."""
        rows = slice(world, world + 1)
        if observation[self._phase] == 0.0:
            self._start[rows] = observation
        return self._beside(observation[None], rows)[0]

    def forget(self, worlds: NDArray[np.int64]) -> None:
        """Start new episodes in ``worlds``."""
        self._start[worlds] = 0.0
        self._past[worlds] = 0.0

    def _beside(self, observations: FloatArray, rows: slice) -> FloatArray:
        past = self._past[rows][:, [lag - 1 for lag in LAGS]].reshape(len(observations), -1)
        return np.concatenate([observations, self._start[rows], past], axis=1)


def recall(observation: Tensor, memory: Tensor, phase: int) -> tuple[Tensor, Tensor]:
    """The same in a policy's file: from (n, D) and memory (n, M) to what is seen, and the new memory."""
    visible = observation.shape[1]
    start, past = memory[:, :visible], memory[:, visible:]
    start = torch.where(observation[:, phase : phase + 1] == 0.0, observation, start)
    lagged = [past[:, (lag - 1) * visible : lag * visible] for lag in LAGS]
    return torch.cat([observation, start, *lagged], dim=1), torch.cat([start, observation, past[:, :-visible]], dim=1)
