"""Actions that say where the target goes next, instead of how the base policy's target is corrected.

A policy that imitates a planner needs to know only the plan, not the base policy: an action of 1 moves the executed
target by as much as it may move in one step, and opens the hand (-1 closes it). What the environment gets is the
correction that brings the base policy's target there, as far as the scales allow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from baselines.residual.memory import field_value
from baselines.rotations import cross, outside, quat_multiply
from oc_residual_gym import geometry
from oc_residual_gym.envs.actions import RATE_POSITION, RATE_ROTATION, ResidualScales, residual_between
from oc_residual_gym.envs.observation import Field
from oc_residual_gym.states import Array


def action_to(target: Array, executed: Array) -> NDArray[np.float32]:
    """Actions (N, 7) that move the last executed targets (N, 8) to ``target`` (N, 8), as far as one step allows."""
    turn = geometry.rotation_between(executed[:, 3:7], target[:, 3:7])
    parts = [(target[:, :3] - executed[:, :3]) / RATE_POSITION, turn / RATE_ROTATION, 2.0 * target[:, 7:] - 1.0]
    return np.clip(np.concatenate(parts, axis=1), -1.0, 1.0).astype(np.float32)


def correction(action: NDArray[np.float32], executed: Array, base: Array, scales: ResidualScales) -> Array:
    """Residual actions (N, 7) for actions (N, 7), given the last executed and the base policy's targets (N, 8)."""
    action = action.astype(np.float64)
    target = np.empty((len(action), 8))
    target[:, :3] = executed[:, :3] + RATE_POSITION * action[:, :3]
    turn = geometry.quat_from_rotvec(RATE_ROTATION * action[:, 3:6])
    target[:, 3:7] = geometry.quat_multiply(executed[:, 3:7], turn)
    target[:, 7] = (action[:, 6] + 1.0) / 2.0
    return residual_between(base, target, scales)


CONJUGATE = torch.tensor([-1.0, -1.0, -1.0, 1.0])
"""Factor that turns a quaternion xyzw into its conjugate."""


class Correction(nn.Module):
    """The same from the observation (n, D), in a policy's file."""

    def __init__(self, layout: Sequence[Field], scales: ResidualScales):
        super().__init__()
        self._fields = {field.name: field for field in layout}
        self._scales = scales

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        x, y = self._get(observation, "tcp_rotation").split(3, dim=1)
        last, base = ("previous_target", "base_target_plus1")
        away = self._get(observation, f"{last}_position") - self._get(observation, f"{base}_position")
        position = outside(away, (x, y, cross(x, y))) + RATE_POSITION * action[:, :3]
        before, planned = (_quaternion(self._get(observation, f"{name}_rotation")) for name in (last, base))
        wanted = quat_multiply(before, _quaternion(RATE_ROTATION * action[:, 3:6]))
        turn = _rotation_vector(quat_multiply(planned * CONJUGATE, wanted))
        opening = (action[:, 6:] + 1.0) / 2.0 - self._get(observation, f"{base}_opening")
        scales = self._scales
        parts = [position / scales.position, turn / scales.rotation, opening / scales.gripper]
        return torch.cat(parts, dim=1).clamp(-1.0, 1.0)

    def _get(self, observation: Tensor, name: str) -> Tensor:
        return field_value(observation, self._fields[name])


# ONNX Runtime computes sines and arc tangents with other bits in small batches, so series stand in for them. They are
# exact to single precision up to turns of 1 rad; larger ones are far beyond the range of corrections.
def _quaternion(rotvec: Tensor) -> Tensor:
    """Unit quaternions (n, 4) of rotation vectors (n, 3)."""
    square = 0.25 * rotvec.square().sum(dim=1, keepdim=True)
    sine = _series(square, (1.0, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362_880))
    cosine = _series(square, (1.0, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40_320))
    return torch.cat([0.5 * rotvec * sine, cosine], dim=1)


def _rotation_vector(quat: Tensor) -> Tensor:
    """Shortest rotation vectors (n, 3) of unit quaternions (n, 4)."""
    vector = quat[:, :3] * torch.where(quat[:, 3:] < 0.0, -1.0, 1.0)
    square = vector.square().sum(dim=1, keepdim=True)
    return 2.0 * vector * _series(square, (1.0, 1.0 / 6, 3.0 / 40, 15.0 / 336, 105.0 / 3456, 945.0 / 42_240))


def _series(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    total = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total
