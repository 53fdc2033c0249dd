"""Networks of actors and critics: layer norm after every hidden layer, and all critics in one batched product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from baselines.residual.features import Features
from baselines.residual.worlds import ADVICE
from oc_residual_gym.envs.observation import Field
from oc_residual_gym.tasks import TASKS


class ActorExtractor(BaseFeaturesExtractor):
    """What the actor sees: features of the first entries of an observation, without the privileged ones."""

    def __init__(self, observation_space: spaces.Space, features: Features):
        super().__init__(observation_space, features.size)
        self._features = features

    def forward(self, observations: Tensor) -> Tensor:
        return self._features(observations[:, : self._features.inputs])


class CriticExtractor(BaseFeaturesExtractor):
    """What a critic sees: the actor's features and the privileged entries, but not the teacher's action."""

    def __init__(self, observation_space: spaces.Space, features: Features):
        others = spaces.utils.flatdim(observation_space) - features.inputs - ADVICE
        super().__init__(observation_space, features.size + others)
        self._features = features

    def forward(self, observations: Tensor) -> Tensor:
        seen, others = observations[:, : self._features.inputs], observations[:, self._features.inputs : -ADVICE]
        return torch.cat([self._features(seen), others], dim=1)


class BlindExtractor(CriticExtractor):
    """Input of PPO's actor: as large as the critic's, with zeros for the entries that the actor must not see."""

    def forward(self, observations: Tensor) -> Tensor:
        features = super().forward(observations)
        return torch.cat([features[:, : self._features.size], torch.zeros_like(features[:, self._features.size :])], 1)


def features_of(task: str, layout: Sequence[Field]) -> Features:
    """Features of a policy for ``task`` whose observation has the fields ``layout``."""
    return Features(layout, TASKS[task].objects)


def hidden_layers(size: int, widths: Sequence[int]) -> nn.Sequential:
    """Hidden layers of these ``widths``, for inputs of ``size``."""
    layers: list[nn.Module] = []
    for before, width in zip((size, *widths), widths, strict=False):
        layers += [nn.Linear(before, width), nn.LayerNorm(width), nn.SiLU()]
    return nn.Sequential(*layers)


class Critics(ContinuousCritic):
    """Critics of one architecture, evaluated together. The answers are those of separate networks.

    Args:
        widths: widths of the hidden layers.
        arguments: as for ``ContinuousCritic``.
    """

    def __init__(self, *, widths: Sequence[int], **arguments: Any):
        super().__init__(**arguments | {"net_arch": []})
        for name in [name for name, _ in self.named_children() if name.startswith("qf")]:
            delattr(self, name)
        self.q_networks = []
        inputs = arguments["features_dim"] + arguments["action_space"].shape[0]
        sizes = [inputs, *widths]
        self.layers = nn.ModuleList(
            _Layer(self.n_critics, before, after) for before, after in itertools.pairwise(sizes)
        )
        self.last = _Linear(self.n_critics, sizes[-1], 1)

    def forward(self, obs: Any, actions: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.values(obs, actions).unbind())

    def q1_forward(self, obs: Any, actions: Tensor) -> Tensor:
        return self.values(obs, actions)[0]

    def values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Values (critics, n, 1) of ``actions`` (n, 7)."""
        x = torch.cat([self.features_extractor(observations), actions], dim=1)
        x = x.expand(self.n_critics, -1, -1)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


class _Linear(nn.Module):
    """``count`` linear layers, side by side, from (count, n, before) to (count, n, after)."""

    def __init__(self, count: int, before: int, after: int):
        super().__init__()
        bound = 1.0 / math.sqrt(before)  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(count, before, after).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, after).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class _Layer(nn.Module):
    """Hidden layers side by side: linear, layer norm, SiLU."""

    def __init__(self, count: int, before: int, after: int):
        super().__init__()
        self.linear = _Linear(count, before, after)
        self.scale = nn.Parameter(torch.ones(count, 1, after))
        self.shift = nn.Parameter(torch.zeros(count, 1, after))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.layer_norm(self.linear(x), self.shift.shape[-1:])
        return nn.functional.silu(x * self.scale + self.shift)
