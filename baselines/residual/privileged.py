"""What the critics see beside the observation: true poses, velocities and contacts, in training alone.

The actor never sees them (asymmetric actor-critic, Pinto et al. 2018): the observation that a training gives to
Stable-Baselines3 is the policy's observation followed by these entries, which the actor's features extractor masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor

from oc_residual_gym.geometry import matrix_from_quat, rotate_inverse
from oc_residual_gym.states import Array

FAR, NEAR = 0.2, 0.01
"""Metres by which relative positions are divided: once plainly, and once for what is near, squashed by tanh."""
SPEED, TURN = 0.2, 1.0
"""Metres and radians a second by which velocities are divided."""


def privileged_size(bodies: int, contacts: int) -> int:
    """Entries that :func:`privileged` gives for a scene of so many bodies and contacts."""
    return 18 * bodies + 6 * (bodies - 1) + contacts


def privileged(tcp_pose: Array, critic_state: Array, bodies: int) -> NDArray[np.float32]:
    """Entries (n, P) of order one.

    Args:
        tcp_pose: (n, 7) measured.
        critic_state: (n, 13 B + C) of ``info``.
        bodies: B.
    """
    rows = len(tcp_pose)
    poses = critic_state[:, : 7 * bodies].reshape(rows, bodies, 7)
    velocities = critic_state[:, 7 * bodies : 13 * bodies].reshape(rows, bodies, 6) / ([SPEED] * 3 + [TURN] * 3)
    tool = np.repeat(tcp_pose[:, None, 3:], bodies, axis=1)
    from_tool = rotate_inverse(tool, poses[..., :3] - tcp_pose[:, None, :3])
    from_first = poses[:, 1:, :3] - poses[:, :1, :3]
    rotations = matrix_from_quat(poses[..., 3:])[..., :2]
    parts = [from_tool / FAR, np.tanh(from_tool / NEAR), rotations, velocities]
    parts += [from_first / FAR, np.tanh(from_first / NEAR), critic_state[:, 13 * bodies :]]
    return np.concatenate([part.reshape(rows, -1) for part in parts], axis=1).clip(-10.0, 10.0).astype(np.float32)


class ActorExtractor(BaseFeaturesExtractor):
    """The policy's observation, with zeros in place of privileged entries."""

    def __init__(self, observation_space: spaces.Space, visible: int):
        size = spaces.utils.flatdim(observation_space)
        super().__init__(observation_space, size)
        self.mask: Tensor
        self.register_buffer("mask", (torch.arange(size) < visible).float())

    def forward(self, observations: Tensor) -> Tensor:
        return observations * self.mask


class _AsymmetricActor:
    """The actor sees the first ``visible`` entries of the observation only; the critics see all."""

    def __init__(self, *args: Any, visible: int, **kwargs: Any):
        self.visible = visible
        super().__init__(*args, **kwargs)

    def make_actor(self: Any, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        return super().make_actor(ActorExtractor(self.observation_space, self.visible))  # type: ignore[misc]


class AsymmetricSACPolicy(_AsymmetricActor, SACPolicy):
    """SAC's policy, whose critics see more than its actor."""


class AsymmetricTD3Policy(_AsymmetricActor, TD3Policy):
    """TD3's policy, whose critics see more than its actor."""


class AsymmetricPPOPolicy(ActorCriticPolicy):
    """PPO's policy, whose critic sees more than its actor."""

    def __init__(self, *args: Any, visible: int, **kwargs: Any):
        super().__init__(*args, **kwargs | {"share_features_extractor": False})
        self.visible = visible
        self.pi_features_extractor = ActorExtractor(self.observation_space, visible)
        assert isinstance(self.vf_features_extractor, FlattenExtractor)
