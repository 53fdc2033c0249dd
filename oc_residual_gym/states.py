"""Arrays, and the states that worlds report; the ground that everything stands on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

CONTROL_FREQUENCY = 20.0
"""Control steps per second."""


@dataclass
class RobotState:
    """What a real FR3 cell measures, for N robots; base frame, SI units."""

    joint_positions: Array
    """(N, 7) rad."""
    joint_velocities: Array
    """(N, 7) rad/s."""
    tcp_pose: Array
    """(N, 7) position and quaternion xyzw of the tool centre point."""
    tcp_velocity: Array
    """(N, 6) linear (m/s) and angular (rad/s) velocity of the tool centre point."""
    gripper_width: Array
    """(N,) distance between the fingers in metres, 0 to 0.08."""
    wrench: Array
    """(N, 6) estimate of the external force (N) and torque (Nm) on the tool, about the TCP, axes of the base frame,
    averaged over the control step."""


@dataclass
class TrueState:
    """What only a simulation knows, for N worlds; base frame, SI units. Privileged: never shown to a policy."""

    poses: Mapping[str, Array]
    """Body name to (N, 7) position and quaternion xyzw."""
    velocities: Mapping[str, Array]
    """Body name to (N, 6) linear and angular velocity."""
    contacts: Mapping[str, BoolArray]
    """Contact name (``Task.contacts``) to (N,): do the two touch?"""
    slides: Mapping[str, Array]
    """Drawer name to (N, 2): opening in metres and its speed in m/s."""
    parameters: Mapping[str, Array]
    """What ``Task.reset`` chose for the episode, (N,) each."""
    table_height: Array
    """(N,) height of the table top in metres; 0 but in shifted domains."""
    tcp_pose: Array
    """(N, 7) as in :class:`RobotState`."""
    gripper_width: Array
    """(N,) as in :class:`RobotState`."""


@dataclass(frozen=True)
class Readings:
    """What the source said at the last observation, for the trial's file; K objects in the task's order."""

    poses: Array
    """(K, 7) in the base frame, before the gate; NaN where there is none."""
    ages: Array
    """(K,) seconds from image to use; NaN where there is none."""
    accepted: BoolArray
    """(K,) whether it was used."""
    states: tuple[str, ...]
    """What became of each: "used", "jumped", "old", "lost", or "missing" where the source never sent it."""
