"""The record that describes an algorithm, and code that several algorithms share.

Every algorithm is one of Stable-Baselines3 with two changes. First, training starts at the base policy: the
deterministic action is zero, exploration is small, and the critics learn before the actor moves. Second, the critics
see the true state, which the actor never sees (asymmetric actor-critic, Pinto et al. 2018): in training, the
observation is the policy's, followed by :func:`~baselines.residual.privileged.privileged` entries, which the actor's
features extractor masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env.base_vec_env import VecEnv
from torch import Tensor, nn

from baselines.residual.settings import Settings

Start = Mapping[str, float]
"""Table ``[start]`` of an algorithm's settings."""


def no_arguments(start: Start, action_size: int) -> dict[str, Any]:
    """For algorithms that need no arguments besides their settings."""
    return {}


def count_updates(model: Any) -> int:
    """Number of optimiser steps so far, for models that count them."""
    return int(model._n_updates)


@dataclass(frozen=True)
class Algorithm:
    """One algorithm of Stable-Baselines3, for residual policies."""

    model: type[BaseAlgorithm]
    """Class of the model. Its attribute ``critic_updates`` is the number of first updates that do not change the
    actor."""
    policy: type[BasePolicy]
    """Class of its policy. It takes ``visible``, the number of observation entries that the actor sees."""
    begin: Callable[[Any, Start], None]
    """Initialises a new model: sets its deterministic action to zero, and its exploration as in the settings."""
    actor: Callable[[Any], nn.Sequential]
    """Deterministic actor of a model: layers from the observation, including privileged entries, to the action (n, 7)
    in [-1, 1]. The first layer is ``Linear``."""
    replays: bool
    """Whether it has a replay buffer, which is stored in checkpoints."""
    arguments: Callable[[Start, int], dict[str, Any]] = no_arguments
    """Class arguments that a settings file cannot hold, computed from ``[start]`` and the size of an action."""
    updates: Callable[[Any], int] = count_updates
    """Number of optimiser steps that a model has taken."""

    def make(self, settings: Settings, worlds: VecEnv, seed: int) -> BaseAlgorithm:
        """Create a model that starts at the base policy."""
        first, last = settings.model["learning_rate"]
        visible = worlds.get_attr("observation_layout")[0][-1].stop
        arguments = {
            **settings.model,
            "learning_rate": LinearSchedule(first, last, end_fraction=1.0),
            "policy_kwargs": {**settings.model["policy_kwargs"], "visible": visible},
            **self.arguments(settings.start, int(np.prod(worlds.action_space.shape or ()))),
        }
        model: Any = self.model(self.policy, worlds, seed=seed, device="cpu", **arguments)
        with torch.no_grad():
            self.begin(model, settings.start)
        model.critic_updates = int(settings.start["critic_updates"])
        return model


def zero(layer: Any, bias: float = 0.0) -> None:
    """Make a linear layer output ``bias`` for every input."""
    layer.weight.zero_()
    layer.bias.fill_(bias)


class ActorExtractor(BaseFeaturesExtractor):
    """Features of the actor: the observation, with privileged entries set to zero."""

    def __init__(self, observation_space: spaces.Space, visible: int):
        size = spaces.utils.flatdim(observation_space)
        super().__init__(observation_space, size)
        self.mask: Tensor
        self.register_buffer("mask", (torch.arange(size) < visible).float())

    def forward(self, observations: Tensor) -> Tensor:
        return observations * self.mask


class OffPolicyStart:
    """Start of SAC and TD3: the first steps come from the initial actor, and the critics learn first."""

    critic_updates = 0

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        return super()._sample_action(0, action_noise, n_envs)  # type: ignore[misc]

    def _update_learning_rate(self: Any, optimizers: Any) -> None:
        super()._update_learning_rate(optimizers)  # type: ignore[misc]
        if self._n_updates < self.critic_updates:
            for group in self.policy.actor.optimizer.param_groups:
                group["lr"] = 0.0


class OffPolicyActor:
    """Actor of SAC and TD3: it sees only the first ``visible`` entries of the observation; the critics see all."""

    def __init__(self, *args: Any, visible: int, **kwargs: Any):
        self.visible = visible
        super().__init__(*args, **kwargs)

    def make_actor(self: Any, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        return super().make_actor(ActorExtractor(self.observation_space, self.visible))  # type: ignore[misc]
