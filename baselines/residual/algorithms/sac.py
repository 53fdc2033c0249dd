"""Soft actor-critic (Haarnoja et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn

from baselines.residual.algorithms.base import Algorithm, OffPolicyActor, OffPolicyStart, Start, descend, zero


class ResidualSAC(OffPolicyStart, SAC):  # type: ignore[misc]
    """SAC that starts at the base policy, or at what it has learned from a teacher."""

    policy_delay = 1

    @property
    def temperature(self: Any) -> Tensor:
        """Weight of the entropy."""
        return self.ent_coef_tensor if self.log_ent_coef is None else self.log_ent_coef.detach().exp()

    def propose(self: Any, data: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Means before the tanh (n, 7), sampled actions (n, 7), and their log-probabilities (n, 1)."""
        means, log_std, _ = self.actor.get_action_dist_params(data.observations)
        actions, log_prob = self.actor.action_dist.log_prob_from_params(means, log_std)
        log_prob = log_prob.reshape(-1, 1)
        if self.ent_coef_optimizer is not None:
            descend(self.ent_coef_optimizer, -(self.log_ent_coef * (log_prob + self.target_entropy).detach()).mean())
        return means, actions, log_prob

    def critic_loss(self: Any, data: Any) -> Tensor:
        with torch.no_grad():
            actions, log_prob = self.actor.action_log_prob(data.next_observations)
            values = self.critic_target.values(data.next_observations, actions).amin(dim=0)
            values = values - self.temperature * log_prob.reshape(-1, 1)
        return 0.5 * self.squared_errors(data, values)

    def actor_loss(self: Any, data: Any, proposal: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Loss of the reinforcement."""
        _, actions, log_prob = proposal
        values = self.critic.values(data.observations, actions).amin(dim=0)
        return (self.temperature * log_prob - values).mean()


class ResidualSACPolicy(OffPolicyActor, SACPolicy):
    """SAC's policy, whose critics see more than its actor."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.average = self.make_actor().requires_grad_(False)
        self.average.load_state_dict(self.actor.state_dict())

    def means(self: Any, observations: Tensor) -> Tensor:
        """Mean actions (n, 7) before the tanh."""
        return self.actor.get_action_dist_params(observations)[0]

    def with_hidden_layers(self, made: Any, layers: nn.Sequential) -> Any:
        made.latent_pi = layers
        return made


def begin(model: Any, start: Start) -> None:
    """Set the mean action to zero; ``log_std`` is that of the actor before its tanh."""
    for network in (model.actor, model.policy.average):
        zero(network.mu)
        zero(network.log_std, start["log_std"])


def actor(model: Any) -> nn.Sequential:
    """The mean action of the average, squashed by tanh."""
    average = model.policy.average
    return nn.Sequential(average.features_extractor, average.latent_pi, average.mu, nn.Tanh())


ALGORITHM = Algorithm(ResidualSAC, ResidualSACPolicy, begin, actor, replays=True)
