"""The FR3's controller settings, one definition for simulation and robot: Cartesian impedance and null-space posture.

Source: chosen for contact-rich work within the FR3's 12 Nm wrist joints; the real adapter hands the same numbers to
franky's ``CartesianImpedanceTracker`` and ``PostureTask``.
"""

from __future__ import annotations

import numpy as np

from oc_residual_gym.worlds.base import Array

TRANSLATIONAL_STIFFNESS = 800.0
"""N/m."""
ROTATIONAL_STIFFNESS = 50.0
"""Nm/rad."""
POSTURE_STIFFNESS = 10.0
"""Nm/rad, in the null space of the TCP."""
POSTURE_DAMPING = 2.0
"""Nm s/rad, in the null space of the TCP."""


def damping_of(stiffness: float) -> float:
    """Damping for a stiffness, 2 sqrt(K): critical for a unit mass, as libfranka's example controllers have it."""
    return 2.0 * float(np.sqrt(stiffness))


_REGULARIZATION = 1e-6 * np.eye(6)  # keeps singular configurations finite; elsewhere below 1e-4 of the torque


def jacobian(axes: Array, anchors: Array, tcp: Array) -> Array:
    """TCP Jacobians (N, 6, 7) from joint axes (N, 3, 7), points on them (N, 3, 7) and TCP positions (N, 3)."""
    x, y, z = (tcp[:, :, None] - anchors).swapaxes(0, 1)
    axis_x, axis_y, axis_z = axes.swapaxes(0, 1)
    result = np.empty((len(axes), 6, 7))
    result[:, 0] = axis_y * z - axis_z * y
    result[:, 1] = axis_z * x - axis_x * z
    result[:, 2] = axis_x * y - axis_y * x
    result[:, 3:] = axes
    return result


def posture_torque(jacobians: Array, positions: Array, velocities: Array, posture: Array) -> Array:
    """Joint torques (N, 7) in Nm that draw the arm to ``posture`` (7,) without moving the TCP.

    ``(I - J^T (J J^T)^-1 J) (kp (posture - q) - kd qdot)``, with J (N, 6, 7).
    """
    torque = POSTURE_STIFFNESS * (posture - positions) - POSTURE_DAMPING * velocities
    gram = np.einsum("nij,nkj->nik", jacobians, jacobians)
    gram += _REGULARIZATION
    moved = np.linalg.solve(gram, np.einsum("nij,nj->ni", jacobians, torque)[..., None])
    return torque - np.einsum("nij,nik->nj", jacobians, moved)
