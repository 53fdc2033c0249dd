"""A trained residual policy as an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines.export import export_policy
from oc_residual_gym.envs.observation import Field

EXAMPLES = 64
"""Observations on which a file is compared with its network."""


class DeterministicActor(nn.Module):
    """What a trained model does without exploration: observation (n, D) to action (n, 7) within ``bound``.

    Args:
        layers: the model's actor, from the observation with its privileged entries to the action in [-1, 1].
        visible: D, the entries before the privileged ones.
        bound: residual action that an action of 1 stands for, seven numbers.
    """

    def __init__(self, layers: nn.Sequential, visible: int, bound: Sequence[float]):
        super().__init__()
        whole: Any
        whole, *others = layers
        first = nn.utils.skip_init(nn.Linear, visible, whole.out_features)
        with torch.no_grad():  # what the actor never sees has no place in the file
            first.weight.copy_(whole.weight[:, :visible])
            first.bias.copy_(whole.bias)
        self.network = nn.Sequential(first, *others)
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float32))

    def forward(self, observation: Tensor) -> Tensor:
        return self.network(observation) * self.bound


def export_residual(
    layers: nn.Sequential, layout: Sequence[Field], bound: Sequence[float], path: Path, metadata: Mapping[str, Any]
) -> tuple[Path, float]:
    """Write the deterministic policy with ``layers`` to ``path``, with the observation's field names in it.

    Returns:
        The file, and its largest difference from the layers on random observations.
    """
    size = layout[-1].stop
    examples = np.random.default_rng(0).uniform(-2.0, 2.0, (EXAMPLES, size)).astype(np.float32)
    content = {**metadata, "observation_layout": [f.name for f in layout]}
    actor = DeterministicActor(layers, size, bound)
    return path, export_policy(actor, {"observation": torch.from_numpy(examples)}, path, content, "action")
