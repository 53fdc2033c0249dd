"""The FR3's collision reflex: the external forces and torques at which the arm stops itself, in simulation and cell."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.states import Array

WRENCH_FILTER = 0.02
"""Time constant in seconds of the low-pass filter on the wrench estimate. Franka does not publish the robot's."""


@dataclass(frozen=True)
class Reflex:
    """Thresholds of the reflex, which a cell sends to the robot with libfranka's ``setCollisionBehavior``.

    Source: chosen for contact tasks. At rest, the controller presses with up to 32 N (800 N/m over a leash of 40 mm),
    so franky's default of 30 N would stop a firm push.

    Raises:
        SettingsError: a threshold is not positive.
    """

    force_threshold: float = 50.0
    """External force in N, per axis of the base frame, at which the arm stops."""
    torque_threshold: float = 38.0
    """External torque in Nm on joints 1 to 4 at which the arm stops."""
    wrist_torque_threshold: float = 16.0
    """External torque in Nm on joints 5 to 7, and about the TCP per axis of the base frame, at which the arm stops."""

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if not value > 0.0:
                raise SettingsError(f"{name} of a reflex is {value}: give more than 0, math.inf for none")

    @property
    def wrench(self) -> Array:
        """(6,) thresholds on the external wrench about the TCP, N and Nm."""
        return np.repeat([float(self.force_threshold), self.wrist_torque_threshold], 3)

    @property
    def torques(self) -> Array:
        """(7,) thresholds on the external joint torques, Nm."""
        return np.repeat([float(self.torque_threshold), self.wrist_torque_threshold], [4, 3])
