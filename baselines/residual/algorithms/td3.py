"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from baselines.residual.algorithms.base import Algorithm, OffPolicyActor, OffPolicyStart, Start, zero


class ResidualTD3(OffPolicyStart, TD3):  # type: ignore[misc]
    """TD3 that starts at the base policy, or at what it has learned from a teacher."""

    def propose(self: Any, data: Any) -> tuple[Tensor, Tensor]:
        """Means before the tanh (n, 7), and actions (n, 7)."""
        means = self.policy.means(data.observations)
        return means, torch.tanh(means)

    def critic_loss(self: Any, data: Any) -> Tensor:
        with torch.no_grad():
            noise = torch.empty_like(data.actions).normal_(0, self.target_policy_noise)
            noise = noise.clamp(-self.target_noise_clip, self.target_noise_clip)
            actions = (self.actor_target(data.next_observations) + noise).clamp(-1, 1)
            values = self.critic_target.values(data.next_observations, actions).amin(dim=0)
        return self.squared_errors(data, values)

    def actor_loss(self: Any, data: Any, proposal: tuple[Tensor, Tensor]) -> Tensor:
        """Loss of the reinforcement."""
        return -self.critic.values(data.observations, proposal[1])[0].mean()


class ResidualTD3Policy(OffPolicyActor, TD3Policy):
    """TD3's policy, whose critics see more than its actor. The target of its actor is the average."""

    @property
    def average(self) -> Any:
        return self.actor_target

    def means(self: Any, observations: Tensor) -> Tensor:
        """Actions (n, 7) before the tanh."""
        return self.actor.mu[:-1](self.actor.features_extractor(observations))

    def with_hidden_layers(self: Any, made: Any, layers: nn.Sequential) -> Any:
        made.mu = nn.Sequential(*layers, nn.Linear(made.net_arch[-1], self.action_space.shape[0]), nn.Tanh())
        return made


def arguments(start: Start, action_size: int) -> dict[str, Any]:
    """Exploration noise; ``noise`` is its standard deviation as a share of the bound."""
    return {"action_noise": NormalActionNoise(np.zeros(action_size), np.full(action_size, start["noise"]))}


def begin(model: Any, start: Start) -> None:
    for network in (model.actor, model.actor_target):
        zero(network.mu[-2])  # the layer before the tanh


def actor(model: Any) -> nn.Sequential:
    average = model.policy.average
    return nn.Sequential(average.features_extractor, *average.mu)


ALGORITHM = Algorithm(ResidualTD3, ResidualTD3Policy, begin, actor, replays=True, arguments=arguments)
