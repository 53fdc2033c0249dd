"""Export a trained residual policy to ONNX."""

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
"""Number of random observations on which the file is compared with its network."""


class DeterministicActor(nn.Module):
    """The deterministic policy of a trained model: observation (n, D) to action (n, 7) within ``bound``.

    Args:
        layers: the model's actor, from the observation with its privileged entries to the action in [-1, 1].
        visible: D, the number of entries before the privileged ones.
        bound: (7,) residual action that corresponds to an actor's output of 1.
    """

    def __init__(self, layers: nn.Sequential, visible: int, bound: Sequence[float]):
        super().__init__()
        whole: Any
        whole, *others = layers
        first = nn.utils.skip_init(nn.Linear, visible, whole.out_features)
        with torch.no_grad():  # drop the weights of privileged entries
            first.weight.copy_(whole.weight[:, :visible])
            first.bias.copy_(whole.bias)
        self.network = nn.Sequential(first, *others)
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float32))

    def forward(self, observation: Tensor) -> Tensor:
        return self.network(observation) * self.bound


def export_residual(
    layers: nn.Sequential, layout: Sequence[Field], bound: Sequence[float], path: Path, metadata: Mapping[str, Any]
) -> tuple[Path, float]:
    """Export the deterministic policy with ``layers`` to ``path``, with the observation's field names as metadata.

    Returns:
        The file, and its largest difference from ``layers`` on random observations.

    Raises:
        BaselineError: the file's output differs from that of ``layers``.
    """
    size = layout[-1].stop
    examples = np.random.default_rng(0).uniform(-2.0, 2.0, (EXAMPLES, size)).astype(np.float32)
    content = {**metadata, "observation_layout": [f.name for f in layout]}
    actor = DeterministicActor(layers, size, bound)
    return path, export_policy(actor, {"observation": torch.from_numpy(examples)}, path, content, "action")
