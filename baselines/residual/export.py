"""Export a trained residual policy to ONNX."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.export import export_policy
from baselines.residual.memory import memory_size, phase_entry, recall
from baselines.residual.settings import Settings
from baselines.residual.targets import Correction
from oc_residual_gym.envs.actions import ResidualScales
from oc_residual_gym.envs.observation import Field
from oc_residual_gym.residuals.onnx import MEMORY, NEW_MEMORY

EXAMPLES = 64
"""Number of random observations on which the file is compared with its network."""


class DeterministicActor(nn.Module):
    """The deterministic policy of a trained model: observation (n, D) and memory (n, M) to residual action and memory.

    Args:
        layers: the model's actor, from the observation in training to the action in [-1, 1].
        layout: the observation's fields.
        settings: what an action is, and its bound.
        hidden: number of entries of the observation in training that the actor does not see.
    """

    def __init__(self, layers: nn.Sequential, layout: Sequence[Field], settings: Settings, hidden: int):
        super().__init__()
        self.layers = layers
        self.correction = Correction(layout, ResidualScales()) if settings.action == "target" else None
        self._hidden, self._phase = hidden, phase_entry(layout)
        self.register_buffer("bound", torch.tensor(settings.bound, dtype=torch.float32))

    def forward(self, observation: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        seen, memory = recall(observation, memory, self._phase)
        nothing = torch.zeros_like(seen[:, :1]).expand(-1, self._hidden)
        action = self.layers(torch.cat([seen, nothing], dim=1))
        if self.correction is None:
            return action * self.bound, memory
        return self.correction(observation, action), memory


def export_residual(
    layers: nn.Sequential,
    layout: Sequence[Field],
    settings: Settings,
    hidden: int,
    path: Path,
    metadata: Mapping[str, Any],
) -> tuple[Path, float]:
    """Export the deterministic policy with ``layers`` to ``path``, with the observation's field names as metadata.

    Args:
        layers, layout, settings, hidden: as for :class:`DeterministicActor`.
        path: the file.
        metadata: strings and JSON values to store in the file.

    Returns:
        The file, and its largest difference from ``layers`` on random observations.

    Raises:
        BaselineError: the file's output differs from that of ``layers``.
    """
    size = layout[-1].stop
    rng = np.random.default_rng(0)
    observations, memory = (rng.uniform(-2.0, 2.0, (EXAMPLES, n)).astype(np.float32) for n in (size, memory_size(size)))
    observations[::2, phase_entry(layout)] = 0.0
    content = {**metadata, "observation_layout": [f.name for f in layout]}
    inputs = {"observation": torch.from_numpy(observations), MEMORY: torch.from_numpy(memory)}
    actor = DeterministicActor(copy.deepcopy(layers), layout, settings, hidden)
    return path, export_policy(actor, inputs, path, content, ("action", NEW_MEMORY))
