"""Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3 import TD3
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from baselines.residual.algorithms.base import Algorithm, OffPolicyActor, OffPolicyStart, Start, zero


class ResidualTD3(OffPolicyStart, TD3):
    """TD3 that starts at the base policy."""


class ResidualTD3Policy(OffPolicyActor, TD3Policy):
    """TD3's policy, whose critics see more than its actor."""


def arguments(start: Start, action_size: int) -> dict[str, Any]:
    """Exploration noise; ``noise`` is its standard deviation as a share of the bound."""
    return {"action_noise": NormalActionNoise(np.zeros(action_size), np.full(action_size, start["noise"]))}


def begin(model: ResidualTD3, start: Start) -> None:
    for network in (model.actor, model.actor_target):
        zero(network.mu[-2])  # the layer before the tanh


def actor(model: ResidualTD3) -> nn.Sequential:
    return nn.Sequential(*model.actor.mu)


ALGORITHM = Algorithm(ResidualTD3, ResidualTD3Policy, begin, actor, replays=True, arguments=arguments)
