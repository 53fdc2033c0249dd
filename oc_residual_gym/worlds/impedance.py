"""Controller settings of the FR3, shared by simulation and robot: Cartesian impedance and null-space posture.

Source: chosen for contact-rich tasks within the 12 Nm limit of the FR3's wrist joints. The real cell passes the same
numbers to franky's ``CartesianImpedanceTracker`` and ``PostureTask``.
"""

from __future__ import annotations

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS
from oc_residual_gym.states import Array

TRANSLATIONAL_STIFFNESS = 800.0
"""N/m, per axis."""
ROTATIONAL_STIFFNESS = 50.0
"""Nm/rad, per axis."""
POSTURE_STIFFNESS = 10.0
"""Nm/rad, in the null space of the TCP."""
POSTURE_DAMPING = 2.0
"""Nm s/rad, in the null space of the TCP."""


def damping_of(stiffness: float) -> float:
    """Damping for a stiffness K, 2 sqrt(K): critical for a unit mass, as in libfranka's example controllers."""
    return 2.0 * float(np.sqrt(stiffness))


def posture_torque(axes: Array, anchors: Array, tcp: Array, positions: Array, velocities: Array) -> Array:
    """Joint torques (N, 7) in Nm that pull the arm towards its home posture without moving the TCP.

    ``(I - J^T (J J^T)^-1 J) (kp (q0 - q) - kd qdot)``, with the Jacobian J (6, 7) of the TCP.

    Args:
        axes: (N, 7, 3) unit vectors along the joint axes, base frame.
        anchors: (N, 7, 3) points on them, metres.
        tcp: (N, 3) position of the TCP, metres.
        positions: (N, 7) joint positions, rad.
        velocities: (N, 7) joint velocities, rad/s.
    """
    torque = np.empty(positions.shape)
    _posture_torque(axes, anchors, tcp, positions, velocities, HOME_JOINT_POSITIONS, torque)
    return torque


@njit(
    "void(float64[:,:,:],float64[:,:,:],float64[:,:],float64[:,:],float64[:,:],Array(float64,1,'C',readonly=True),float64[:,:])"
)
def _posture_torque(
    axes: Array, anchors: Array, tcp: Array, positions: Array, velocities: Array, home: Array, out: Array
) -> None:
    jacobian, gram, moved = np.empty((6, 7)), np.empty((6, 6)), np.empty(6)
    for n in range(len(out)):
        for j in range(7):
            x, y, z = tcp[n, 0] - anchors[n, j, 0], tcp[n, 1] - anchors[n, j, 1], tcp[n, 2] - anchors[n, j, 2]
            a, b, c = axes[n, j, 0], axes[n, j, 1], axes[n, j, 2]
            jacobian[0, j], jacobian[1, j], jacobian[2, j] = b * z - c * y, c * x - a * z, a * y - b * x
            jacobian[3, j], jacobian[4, j], jacobian[5, j] = a, b, c
            out[n, j] = POSTURE_STIFFNESS * (home[j] - positions[n, j]) - POSTURE_DAMPING * velocities[n, j]
        for i in range(6):
            moved[i] = 0.0
            for j in range(7):
                moved[i] += jacobian[i, j] * out[n, j]
            for k in range(6):
                # Regularisation keeps the result finite at singularities; elsewhere it changes the torque by < 1e-4.
                gram[i, k] = 1e-6 if i == k else 0.0
                for j in range(7):
                    gram[i, k] += jacobian[i, j] * jacobian[k, j]
        solved = np.linalg.solve(gram, moved)
        for j in range(7):
            for i in range(6):
                out[n, j] -= jacobian[i, j] * solved[i]
