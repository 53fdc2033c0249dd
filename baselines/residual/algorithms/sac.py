"""Soft actor-critic (Haarnoja et al. 2018)."""

from __future__ import annotations

from stable_baselines3 import SAC
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from baselines.residual.algorithms.base import Algorithm, OffPolicyActor, OffPolicyStart, Start, zero


class ResidualSAC(OffPolicyStart, SAC):
    """SAC that starts at the base policy."""


class ResidualSACPolicy(OffPolicyActor, SACPolicy):
    """SAC's policy, whose critics see more than its actor."""


def begin(model: ResidualSAC, start: Start) -> None:
    """Set the mean action to zero; ``log_std`` is that of the actor before its tanh."""
    zero(model.actor.mu)
    zero(model.actor.log_std, start["log_std"])


def actor(model: ResidualSAC) -> nn.Sequential:
    """The mean action, squashed by tanh."""
    return nn.Sequential(*model.actor.latent_pi, model.actor.mu, nn.Tanh())


ALGORITHM = Algorithm(ResidualSAC, ResidualSACPolicy, begin, actor, replays=True)
