"""A trained residual policy as an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from baselines.export import export_policy
from oc_residual_gym.envs.observation import Field

EXAMPLES = 64
"""Observations on which a file is compared with its network."""


class DeterministicActor(nn.Module):
    """What a trained model does without exploration: observation (n, D) to action (n, 7) in [-1, 1]."""

    def __init__(self, model: BaseAlgorithm, bound: Sequence[float]):
        super().__init__()
        policy: Any = model.policy
        visible = policy.visible
        last: nn.Module = nn.Tanh()
        if isinstance(model, PPO):
            layers, last = [*policy.mlp_extractor.policy_net, policy.action_net], nn.Hardtanh()
        elif isinstance(model, SAC):
            layers = [*policy.actor.latent_pi, policy.actor.mu]
        else:
            layers = list(policy.actor.mu[:-1])
        first = nn.utils.skip_init(nn.Linear, visible, layers[0].out_features)
        with torch.no_grad():  # what the actor never sees has no place in the file
            first.weight.copy_(layers[0].weight[:, :visible])
            first.bias.copy_(layers[0].bias)
        self.network = nn.Sequential(first, *layers[1:], last)
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float32))

    def forward(self, observation: Tensor) -> Tensor:
        return self.network(observation) * self.bound


def export_residual(
    model: BaseAlgorithm, layout: Sequence[Field], bound: Sequence[float], path: Path, metadata: Mapping[str, Any]
) -> tuple[Path, float]:
    """Write the deterministic policy of ``model`` to ``path``, with the observation's field names in it.

    Returns:
        The file, and its largest difference from the model on random observations.
    """
    size = layout[-1].stop
    examples = np.random.default_rng(0).uniform(-2.0, 2.0, (EXAMPLES, size)).astype(np.float32)
    content = {**metadata, "observation_layout": [f.name for f in layout]}
    return path, export_policy(
        DeterministicActor(model, bound), {"observation": torch.from_numpy(examples)}, path, content, "action"
    )
