"""Residual policies to compare with: zero (the base alone), the oracle, and trained ones from files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from oc_residual_gym.envs.actions import residual_between
from oc_residual_gym.policies.base import ChunkRunner
from oc_residual_gym.policies.expert import ExpertPolicy
from oc_residual_gym.policies.onnx_policy import OnnxResidual
from oc_residual_gym.worlds.base import Array, IntArray

if TYPE_CHECKING:
    from oc_residual_gym.envs.core import ResidualWorlds

RESIDUALS = ("zero", "oracle", "FILE.onnx")


class ResidualPolicy(Protocol):
    """Chooses residual actions for N worlds."""

    name: str
    hash: str | None

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """A new episode has started in ``worlds``."""

    def act(self, core: ResidualWorlds) -> Array:
        """Actions (N, 7) for the coming step."""


class ZeroResidual:
    """The base policy alone."""

    name = "zero"
    hash: str | None = None

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """Nothing to forget."""

    def act(self, core: ResidualWorlds) -> Array:
        return np.zeros((core.num_worlds, 7))


class OracleResidual:
    """clip(expert target - base target): what the residual's scales allow on this task and base, without learning."""

    name = "oracle"
    hash: str | None = None

    def __init__(self) -> None:
        self._runner: ChunkRunner | None = None
        self._steps = np.zeros(0, np.int64)

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        if self._runner is None:
            self._runner = ChunkRunner(ExpertPolicy(core.task), core.num_worlds, max_pause=0)
            self._steps = np.zeros(core.num_worlds, np.int64)
        self._plan(core, worlds)

    def act(self, core: ResidualWorlds) -> Array:
        assert self._runner is not None, "call reset first"
        # Worlds that were not stepped since the last call keep their place in the expert's chunk.
        moved = np.flatnonzero(core.steps != self._steps)
        self._steps[:] = core.steps
        self._plan(core, self._runner.advance(moved))
        return residual_between(core.base_target, self._runner.current, core.scales)

    def _plan(self, core: ResidualWorlds, worlds: IntArray) -> None:
        assert self._runner is not None
        if len(worlds):
            view = core.view(worlds, frozenset({"truth"}))
            chunks = self._runner.policy.predict(view)
            self._runner.load(worlds, view.previous_target, np.zeros(len(worlds), np.int64), chunks)
            self._steps[worlds] = core.steps[worlds]


class FileResidual:
    """A trained residual policy from an ONNX file."""

    def __init__(self, path: str | Path):
        self._policy = OnnxResidual(path)
        self.name = self._policy.name
        self.hash: str | None = self._policy.hash

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """Check that the file was made for this observation."""
        self._policy.check([f.name for f in core.observation_layout], core.observation.shape[1])

    def act(self, core: ResidualWorlds) -> Array:
        return self._policy.act(core.observation)


def load_residual(name: str) -> ResidualPolicy:
    """The residual policy of that name or file. Raises ``ValueError`` for anything else."""
    if name == "zero":
        return ZeroResidual()
    if name == "oracle":
        return OracleResidual()
    if name.endswith(".onnx"):
        return FileResidual(name)
    raise ValueError(f"unknown residual {name!r}: choose one of {', '.join(RESIDUALS)}")
