"""What a training knows of its algorithm, and what several algorithms share.

Every algorithm is one of Stable-Baselines3 with two changes. Its training starts at the base policy: the deterministic
action is zero, exploration is small, and the critics learn before the actor moves. And its critics see true state,
which the actor never does (asymmetric actor-critic, Pinto et al. 2018): the observation of a training is the policy's,
followed by :func:`~baselines.residual.privileged.privileged` entries, which the actor's features extractor masks.
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
"""The table ``[start]`` of an algorithm's settings."""


def no_arguments(start: Start, action_size: int) -> dict[str, Any]:
    """An algorithm whose settings are all of its arguments."""
    return {}


def count_updates(model: Any) -> int:
    """Steps of the optimiser so far, where the model counts them."""
    return int(model._n_updates)


@dataclass(frozen=True)
class Algorithm:
    """One algorithm of Stable-Baselines3, for residual policies."""

    model: type[BaseAlgorithm]
    """Its class, with the attribute ``critic_updates``: so many first updates leave the actor as it is."""
    policy: type[BasePolicy]
    """Takes ``visible``, the entries of the observation that the actor sees."""
    begin: Callable[[Any, Start], None]
    """Makes a new model's deterministic action zero, and its exploration as small as the settings say."""
    actor: Callable[[Any], nn.Sequential]
    """What a model does without exploration: layers from the observation, privileged entries included, to the action
    (n, 7) in [-1, 1]. The first is ``Linear``."""
    replays: bool
    """Whether it learns from a replay buffer, which belongs into a checkpoint."""
    arguments: Callable[[Start, int], dict[str, Any]] = no_arguments
    """Arguments of the class that no settings file can hold, from ``[start]`` and the size of an action."""
    updates: Callable[[Any], int] = count_updates
    """Steps of the optimiser that a model has taken."""

    def make(self, settings: Settings, worlds: VecEnv, seed: int) -> BaseAlgorithm:
        """A new model that starts at the base policy."""
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
    """Make a linear layer give ``bias``, whatever it sees."""
    layer.weight.zero_()
    layer.bias.fill_(bias)


class ActorExtractor(BaseFeaturesExtractor):
    """The policy's observation, with zeros in place of privileged entries."""

    def __init__(self, observation_space: spaces.Space, visible: int):
        size = spaces.utils.flatdim(observation_space)
        super().__init__(observation_space, size)
        self.mask: Tensor
        self.register_buffer("mask", (torch.arange(size) < visible).float())

    def forward(self, observations: Tensor) -> Tensor:
        return observations * self.mask


class OffPolicyStart:
    """SAC and TD3: the first steps come from the actor as it is, and the critics learn first."""

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
    """SAC and TD3: the actor sees the first ``visible`` entries of the observation only; the critics see all."""

    def __init__(self, *args: Any, visible: int, **kwargs: Any):
        self.visible = visible
        super().__init__(*args, **kwargs)

    def make_actor(self: Any, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        return super().make_actor(ActorExtractor(self.observation_space, self.visible))  # type: ignore[misc]
