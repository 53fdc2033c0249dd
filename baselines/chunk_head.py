"""Output layer of both policies: 16 displacements from the last executed target, converted to absolute targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.rotations import quat_from_rotvec, quat_multiply, rotation_between
from oc_residual_gym.policies.base import HORIZON

ENTRIES = 7
"""Entries per target: displacement (3), rotation vector (3), logit of the opening."""
POSITION_STEP, ROTATION_STEP = 0.006, 0.015
"""Metres and radians per step: typical speeds of a demonstrator, which scale the network's output."""
GRIPPER_WEIGHT = 0.5
"""Weight of the gripper's cross-entropy, relative to the scaled position and rotation errors."""


class ChunkHead(nn.Module):
    """Linear layer from features (n, F) to the raw chunk (n, 16, 7), see :data:`ENTRIES`."""

    scale: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.linear = nn.Linear(features, HORIZON * ENTRIES)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        # Displacements grow with the distance in time.
        steps = torch.arange(1, HORIZON + 1, dtype=torch.float32).sqrt()[:, None] * 2.0
        scale = torch.cat([steps * POSITION_STEP] * 3 + [steps * ROTATION_STEP] * 3 + [torch.ones(HORIZON, 1)], dim=1)
        self.register_buffer("scale", scale)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features).reshape(-1, HORIZON, ENTRIES) * self.scale


def targets(previous_target: Tensor, raw: Tensor) -> Tensor:
    """Convert a raw chunk (n, 16, 7) to absolute targets (n, 16, 8), from the last executed target (n, 8)."""
    position = previous_target[:, None, :3] + raw[..., :3]
    turned = quat_multiply(previous_target[:, None, 3:7].expand(-1, HORIZON, -1), quat_from_rotvec(raw[..., 3:6]))
    return torch.cat([position, turned, torch.sigmoid(raw[..., 6:])], dim=-1)


def chunk_loss(head: ChunkHead, raw: Tensor, previous_target: Tensor, chunk: Tensor) -> Tensor:
    """Scaled absolute error of displacements and rotation vectors, plus the gripper's weighted cross-entropy."""
    position = chunk[..., :3] - previous_target[:, None, :3]
    rotation = rotation_between(previous_target[:, None, 3:7].expand(-1, HORIZON, -1), chunk[..., 3:7])
    error = (raw[..., :6] - torch.cat([position, rotation], dim=-1)) / head.scale[:, :6]
    gripper = functional.binary_cross_entropy_with_logits(raw[..., 6], chunk[..., 7])
    return error.abs().sum(dim=-1).mean() + GRIPPER_WEIGHT * gripper
