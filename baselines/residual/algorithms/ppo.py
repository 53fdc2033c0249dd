"""Proximal policy optimisation (Schulman et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from baselines.residual.algorithms.base import Algorithm, Start, zero
from baselines.residual.algorithms.networks import BlindExtractor, CriticExtractor, features_of
from oc_residual_gym.envs.observation import Field


class ResidualPPO(PPO):
    """PPO that starts at the base policy and trains the critic first; ``critic_updates`` counts epochs."""

    critic_updates = 0

    def train(self) -> None:
        warm = self._n_updates >= self.critic_updates
        for name, parameter in self.policy.named_parameters():
            if not name.startswith(("mlp_extractor.value_net", "value_net")):
                parameter.requires_grad_(warm)
        super().train()


class ResidualPPOPolicy(ActorCriticPolicy):
    """PPO's policy, whose critic sees more than its actor."""

    def __init__(self, *args: Any, task: str, layout: Sequence[Field], **kwargs: Any):
        features = features_of(task, layout)
        extractor = {"features_extractor_class": CriticExtractor, "features_extractor_kwargs": {"features": features}}
        super().__init__(*args, **kwargs | extractor | {"share_features_extractor": False})
        self.pi_features_extractor = BlindExtractor(self.observation_space, features)


def begin(model: Any, start: Start) -> None:
    """Set the mean action to zero; ``log_std`` is that of the action, as a share of the bound."""
    zero(model.policy.action_net)
    model.policy.log_std.fill_(start["log_std"])


def actor(model: Any) -> nn.Sequential:
    """The mean action, clipped to [-1, 1]."""
    policy = model.policy
    return nn.Sequential(
        policy.pi_features_extractor, *policy.mlp_extractor.policy_net, policy.action_net, nn.Hardtanh()
    )


def updates(model: ResidualPPO) -> int:
    """Number of optimiser steps; for PPO, Stable-Baselines3 counts epochs."""
    return int(model._n_updates * model.n_steps * model.n_envs / model.batch_size)


ALGORITHM = Algorithm(ResidualPPO, ResidualPPOPolicy, begin, actor, replays=False, updates=updates)
