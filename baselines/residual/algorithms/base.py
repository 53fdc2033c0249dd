"""The record that describes an algorithm, and code that several algorithms share.

Every algorithm is one of Stable-Baselines3 with three changes. First, training starts at the base policy, or at what
was learned from a teacher: exploration is small, and the critics learn before the actor moves. Second, the critics see
the true state, which the actor never sees (asymmetric actor-critic, Pinto et al. 2018): in training, an observation
goes on after what the policy sees, see :class:`~baselines.residual.worlds.TrainingWorlds`. Third, networks see
features instead of raw observations, see :mod:`baselines.residual.features`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule, polyak_update
from stable_baselines3.common.vec_env.base_vec_env import VecEnv
from torch import Tensor, nn
from torch.nn import functional

from baselines.residual.algorithms.networks import (
    ActorExtractor,
    CriticExtractor,
    Critics,
    features_of,
    hidden_layers,
)
from baselines.residual.algorithms.teaching import advice_of, imitation_errors
from baselines.residual.settings import Settings, Teaching
from baselines.residual.worlds import ADVICE
from oc_residual_gym.envs.observation import Field

AVERAGE = 0.005
"""Share by which the average of an actor moves towards it per update: TD3's usual rate of targets."""
Start = Mapping[str, float]
"""Table ``[start]`` of an algorithm's settings."""


def no_arguments(start: Start, action_size: int) -> dict[str, Any]:
    """For algorithms that need no arguments besides their settings."""
    return {}


def count_updates(model: Any) -> int:
    """Number of updates so far, for models that count them."""
    return int(model._n_updates) + int(getattr(model, "imitations", 0))


@dataclass(frozen=True)
class Algorithm:
    """One algorithm of Stable-Baselines3, for residual policies."""

    model: type[BaseAlgorithm]
    """Class of the model. Its attribute ``critic_updates`` is the number of first updates that do not change the
    actor."""
    policy: type[BasePolicy]
    """Class of its policy. It takes ``task`` and ``layout``, the fields of the observation, for its features."""
    begin: Callable[[Any, Start], None]
    """Initialises a new model: sets its deterministic action to zero, and its exploration as in the settings."""
    actor: Callable[[Any], nn.Sequential]
    """Deterministic actor of a model: layers from the observation in training, whose privileged entries it ignores, to
    the action (n, 7) in [-1, 1]."""
    replays: bool
    """Whether it has a replay buffer, which is stored in checkpoints; only then it can learn from a teacher."""
    arguments: Callable[[Start, int], dict[str, Any]] = no_arguments
    """Class arguments that a settings file cannot hold, computed from ``[start]`` and the size of an action."""
    updates: Callable[[Any], int] = count_updates
    """Number of optimiser steps that a model has taken."""

    def make(self, settings: Settings, worlds: VecEnv, task: str, seed: int) -> BaseAlgorithm:
        """Create a model for ``task``. Its first deterministic actions are zero."""
        first, last = settings.model["learning_rate"]
        layout = worlds.get_attr("observation_layout")[0]
        arguments = {
            **settings.model,
            "learning_rate": LinearSchedule(first, last, end_fraction=1.0),
            "policy_kwargs": {**settings.model["policy_kwargs"], "task": task, "layout": layout},
            **self.arguments(settings.start, int(np.prod(worlds.action_space.shape or ()))),
        }
        model: Any = self.model(self.policy, worlds, seed=seed, device="cpu", **arguments)
        with torch.no_grad():
            self.begin(model, settings.start)
        model.critic_updates = int(settings.start["critic_updates"])
        model.teaching = settings.teaching
        return model


def zero(layer: Any, bias: float = 0.0) -> None:
    """Make a linear layer output ``bias`` for every input."""
    layer.weight.zero_()
    layer.bias.fill_(bias)


class OffPolicyStart:
    """What SAC and TD3 have in common here: where they start, a teacher, and a fast update loop.

    The first actions come from the initial actor, and the critics learn first. With a teacher, the actor first imitates
    it, in episodes that it or the teacher drives; then the critics learn alone; then reinforcement goes on from the
    imitation, which keeps a share of the loss where the critics prefer the teacher's action.
    """

    critic_updates = 0
    """Number of first updates of the critics in which the actor does not change."""
    teaching: Teaching | None = None
    imitations = 0
    """Number of updates in which the actor imitated its teacher."""

    def _sample_action(
        self: Any, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        actions, stored = super()._sample_action(0, action_noise, n_envs)  # type: ignore[misc]
        if self.teaching is not None:
            driven = self.env.get_attr("driven")[0]
            actions[driven] = stored[driven] = self._last_obs[driven, -ADVICE:]
            self.env.set_attr("drive_share", self.teaching.drive_share(self.num_timesteps))
        return actions, stored

    def train(self: Any, gradient_steps: int, batch_size: int) -> None:
        """Take ``gradient_steps`` updates. Replaces Stable-Baselines3's loop: same losses, half the time."""
        self.policy.set_training_mode(True)
        if self.teaching is not None:  # learning rates fall from the beginning of the reinforcement on
            self._current_progress_remaining = 1.0 - self.teaching.progress(self.num_timesteps, self._total_timesteps)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        losses: dict[str, list[float]] = defaultdict(list)
        if self.teaching is not None and self.num_timesteps <= self.teaching.steps:
            for group in self.actor.optimizer.param_groups:
                group["lr"] = self.teaching.rate(self.num_timesteps)
            for _ in range(self.teaching.updates):
                data = self.replay_buffer.sample(batch_size)
                losses["imitation_loss"].append(self._imitate(data))
        else:
            for _ in range(gradient_steps):
                data = self.replay_buffer.sample(batch_size)
                self._n_updates += 1
                is_due = self._n_updates % self.policy_delay == 0
                acts = is_due and self._n_updates > self.critic_updates
                proposal = self.propose(data) if acts else None
                losses["critic_loss"].append(descend(self.critic.optimizer, self.critic_loss(data)))
                if acts:
                    losses["actor_loss"].append(self._reinforce(data, proposal))
                if is_due:
                    polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        for name, values in losses.items():
            self.logger.record(f"train/{name}", np.mean(values))

    def squared_errors(self: Any, data: Any, values: Tensor) -> Tensor:
        """Mean squared errors of the critics, summed, where the next states are worth ``values`` (n, 1)."""
        discounts = self.gamma if data.discounts is None else data.discounts
        target = data.rewards + (1 - data.dones) * discounts * values
        current = self.critic.values(data.observations, data.actions)
        return functional.mse_loss(current, target.expand_as(current)) * len(current)

    def _imitate(self: Any, data: Any) -> float:
        means = self.policy.means(data.observations)
        loss = imitation_errors(means, advice_of(data.observations)).mean()
        value = descend(self.actor.optimizer, loss)
        self.policy.follow()
        self.imitations += 1
        return value

    def _reinforce(self: Any, data: Any, proposal: tuple[Tensor, ...]) -> float:
        loss = self.actor_loss(data, proposal)
        if self.teaching is not None:
            advice = advice_of(data.observations)
            with torch.no_grad():
                both = (self.critic.values(data.observations, a).amin(dim=0) for a in (advice, torch.tanh(proposal[0])))
                prefers = torch.gt(*both)[:, 0]
            pull = self.teaching.pull_at(self.num_timesteps, self._total_timesteps)
            loss = loss + pull * (prefers * imitation_errors(proposal[0], advice)).mean()
        value = descend(self.actor.optimizer, loss)
        self.policy.follow()
        return value


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take one step down the gradient of ``loss``; return its value."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


class OffPolicyActor:
    """Networks of SAC and TD3: the actor sees features of what the policy sees; the critics see everything.

    ``average`` is a moving average of the actor: the policy that is evaluated and exported.
    """

    average: Any

    def __init__(self, *args: Any, task: str, layout: Sequence[Field], **kwargs: Any):
        self._task, self._layout = task, layout
        super().__init__(*args, **kwargs | {"optimizer_kwargs": {"fused": True}})

    def follow(self: Any, share: float = AVERAGE) -> None:
        """Move the average towards the actor."""
        with torch.no_grad():
            for mine, other in zip(self.average.parameters(), self.actor.parameters(), strict=True):
                mine.lerp_(other, share)

    def make_actor(self: Any, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        features = features_of(self._task, self._layout)
        made = super().make_actor(ActorExtractor(self.observation_space, features))  # type: ignore[misc]
        return self.with_hidden_layers(made, hidden_layers(features.size, made.net_arch))

    def make_critic(self: Any, features_extractor: BaseFeaturesExtractor | None = None) -> Critics:
        features = features_of(self._task, self._layout)
        arguments = {**self.critic_kwargs, "features_extractor": CriticExtractor(self.observation_space, features)}
        arguments["features_dim"] = arguments["features_extractor"].features_dim
        return Critics(widths=arguments.pop("net_arch"), **arguments)

    def _predict(self: Any, observation: Any, deterministic: bool = False) -> Tensor:
        return (self.average if deterministic else self.actor)._predict(observation, deterministic)
