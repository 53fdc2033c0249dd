"""Privileged inputs of the critics, in training only: true poses, velocities and contacts.

The actor never sees them: see :mod:`baselines.residual.algorithms.base`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.geometry import matrix_from_quat, rotate_inverse
from oc_residual_gym.states import Array

FAR, NEAR = 0.2, 0.01
"""Scales of relative positions in metres: one linear, and one for short distances, squashed by tanh."""
SPEED, TURN = 0.2, 1.0
"""Scales of velocities in m/s and rad/s."""


def privileged_size(bodies: int, contacts: int) -> int:
    """Number of entries P of :func:`privileged`, for a scene with this number of bodies and contacts."""
    return 18 * bodies + 6 * (bodies - 1) + contacts


def privileged(tcp_pose: Array, critic_state: Array, bodies: int) -> NDArray[np.float32]:
    """Privileged entries (n, P) of order one.

    Args:
        tcp_pose: (n, 7) measured TCP pose.
        critic_state: (n, 13 B + C) as in ``info``, for B bodies and C contacts.
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
