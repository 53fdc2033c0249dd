"""Array types, and the states that worlds report. The rest of the package builds on these."""

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
    """State of N robots, limited to what a real FR3 measures; base frame, SI units."""

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
    """(N, 6) estimated external force (N) and torque (Nm) on the tool, about the TCP, in base-frame axes, averaged over
    the control step."""


@dataclass
class TrueState:
    """True state of N simulated worlds; base frame, SI units. Privileged: policies never see it."""

    poses: Mapping[str, Array]
    """Body name to (N, 7) position and quaternion xyzw."""
    velocities: Mapping[str, Array]
    """Body name to (N, 6) linear and angular velocity."""
    contacts: Mapping[str, BoolArray]
    """Contact name (``Task.contacts``) to (N,): whether the two bodies touch."""
    slides: Mapping[str, Array]
    """Drawer name to (N, 2): opening in metres and opening speed in m/s."""
    parameters: Mapping[str, Array]
    """Episode parameters chosen by ``Task.reset``: name to (N,)."""
    table_height: Array
    """(N,) height of the table top in metres; 0 except in shifted domains."""
    tcp_pose: Array
    """(N, 7) as in :class:`RobotState`."""
    gripper_width: Array
    """(N,) as in :class:`RobotState`."""


@dataclass(frozen=True)
class Readings:
    """The pose source's readings at the last observation, for the trial's file; K objects in the task's order."""

    poses: Array
    """(K, 7) in the base frame, before the gate; NaN without a reading."""
    ages: Array
    """(K,) seconds from image to use; NaN without a reading."""
    accepted: BoolArray
    """(K,) whether the reading was used."""
    states: tuple[str, ...]
    """Status of each reading: "used"; "jumped", "outside" (where the object cannot be) or "contradicted" (by another
    source) if it is not believed; "old", "lost", or "missing" if the source never sent one."""
