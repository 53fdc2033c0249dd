"""Stable-Baselines3's algorithms, whose training starts at the base policy and whose critics see true state."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from baselines.residual.privileged import AsymmetricPPOPolicy, AsymmetricSACPolicy, AsymmetricTD3Policy
from baselines.residual.settings import Settings


class _StartsAtBase:
    """SAC and TD3: gathers its first steps with the actor as it is, and trains the critics first."""

    critic_updates = 0
    """Updates that leave the actor as it is."""

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        return super()._sample_action(0, action_noise, n_envs)  # type: ignore[misc]

    def _update_learning_rate(self: Any, optimizers: Any) -> None:
        super()._update_learning_rate(optimizers)  # type: ignore[misc]
        if self._n_updates < self.critic_updates:
            for group in self.policy.actor.optimizer.param_groups:
                group["lr"] = 0.0


class ResidualSAC(_StartsAtBase, SAC):
    """SAC that starts at the base policy."""


class ResidualTD3(_StartsAtBase, TD3):
    """TD3 that starts at the base policy."""


class ResidualPPO(PPO):
    """PPO that trains the critic first."""

    critic_updates = 0
    """First epochs of updates, which leave the actor as it is."""

    def train(self) -> None:
        warm = self._n_updates >= self.critic_updates
        for name, parameter in self.policy.named_parameters():
            if not name.startswith(("mlp_extractor.value_net", "value_net")):
                parameter.requires_grad_(warm)
        super().train()


CLASSES: dict[str, type[BaseAlgorithm]] = {"sac": ResidualSAC, "td3": ResidualTD3, "ppo": ResidualPPO}
POLICIES = {"sac": AsymmetricSACPolicy, "td3": AsymmetricTD3Policy, "ppo": AsymmetricPPOPolicy}


def make_model(settings: Settings, worlds: VecEnv, seed: int) -> BaseAlgorithm:
    """A model whose deterministic action is zero, and whose exploration is as small as ``settings`` say."""
    first, last = settings.model["learning_rate"]
    learning_rate = LinearSchedule(first, last, end_fraction=1.0)
    arguments = {**settings.model, "learning_rate": learning_rate, "seed": seed, "device": "cpu"}
    start = settings.start
    if settings.algorithm == "td3":
        size = int(np.prod(worlds.action_space.shape or ()))
        arguments["action_noise"] = NormalActionNoise(np.zeros(size), np.full(size, start["noise"]))
    visible = worlds.get_attr("observation_layout")[0][-1].stop
    arguments["policy_kwargs"] = {**settings.model["policy_kwargs"], "visible": visible}
    model = CLASSES[settings.algorithm](POLICIES[settings.algorithm], worlds, **arguments)
    with torch.no_grad():
        if isinstance(model, PPO):
            _zero(model.policy.action_net)
            model.policy.log_std.fill_(start["log_std"])
        elif isinstance(model, SAC):
            _zero(model.actor.mu)
            _zero(model.actor.log_std, start["log_std"])
        elif isinstance(model, TD3):
            for actor in (model.actor, model.actor_target):
                _zero(actor.mu[-2])  # the layer before the tanh
    assert isinstance(model, (ResidualPPO, _StartsAtBase))
    model.critic_updates = int(start["critic_updates"])
    return model


def _zero(layer: Any, bias: float = 0.0) -> None:
    layer.weight.zero_()
    layer.bias.fill_(bias)


def gradient_updates(model: BaseAlgorithm) -> int:
    """Steps of the optimiser so far: Stable-Baselines3 counts epochs instead where there are epochs."""
    if isinstance(model, PPO):
        return int(model._n_updates * model.n_steps * model.n_envs / model.batch_size)
    return int(model._n_updates)
