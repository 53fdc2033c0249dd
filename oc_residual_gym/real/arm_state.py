"""Settings and states that the arm process receives and sends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from oc_residual_gym.errors import RobotStopped, Stop, StopReason
from oc_residual_gym.states import Array

HAND_MASS = 0.73
"""Mass of the Franka Hand in kilograms (product manual)."""


@dataclass(frozen=True)
class ArmSettings:
    """Settings of the arm process; base frame, SI units."""

    host: str
    realtime: bool
    set_tcp: bool
    speed_cap: float
    control_period: float
    """Seconds over which a target is approached."""
    state_limit: float
    """Seconds without a new state of the robot after which the arm stops."""
    target_limit: float
    """Seconds without a new target after which the arm stops; until then it holds the last one."""
    pose_limit: float
    """Seconds without a new object pose after which the arm stops."""
    rate_position: float
    rate_rotation: float
    """Largest distance between successive targets, in metres and radians."""
    workspace_low: Array
    workspace_high: Array
    home: Array
    """(7,) joint positions."""
    joint_lower: Array
    joint_upper: Array
    translational_stiffness: float
    rotational_stiffness: float
    damping: Array
    """(6,) damping of the impedance: N s/m, then Nm s/rad."""
    posture_stiffness: float
    posture_damping: float
    position_clip: float
    rotation_clip: float
    """Largest error per axis that the impedance acts on, in metres and radians."""
    torque_thresholds: tuple[float, ...]
    force_thresholds: tuple[float, ...]


def finite(what: str, values: ArrayLike) -> Array:
    """``values`` as an array. Comparisons with NaN are false, so that no limit would notice it later.

    Raises:
        RobotStopped: a value is not finite.
    """
    array = np.array(values, np.float64)
    if not np.isfinite(array).all():
        raise RobotStopped(StopReason.READING_INVALID, f"{what} reported as {array.tolist()}: restart the robot")
    return array


def with_fault(before: Stop | None, fault: Stop) -> Stop:
    """The stop to report when ``fault`` follows the stop ``before``. The first cause stays, with two exceptions."""
    if before is None:
        return fault
    if before.reason is StopReason.LINK_LATE and fault.reason is StopReason.LINK_LOST:
        return replace(before, reason=fault.reason, detail=fault.detail)  # it was late because the link was lost
    if before.reason is StopReason.TARGETS_STALE:  # not a fault between episodes
        return replace(before, reason=fault.reason, detail=f"{fault.detail}; before that: {before.detail}")
    return before


@dataclass(frozen=True)
class ArmState:
    """Measured state of the arm; base frame, SI units."""

    stamp: float
    """Time of the reading, in seconds of ``time.monotonic()``."""
    joint_positions: Array
    joint_velocities: Array
    tcp_pose: Array
    """(7,) metres, quaternion xyzw."""
    wrench: Array
    """(6,) external wrench on the tool about the TCP, averaged since the last reading."""
    reference: Array
    """(7,) reference pose of the impedance; the TCP's own pose without control."""
    stiffness_frame_offset: float
    """Distance from the TCP to the robot's stiffness frame, in which it estimates the wrench: the larger of metres and
    radians."""
    mass: float
    """Mass on the flange in kg, as configured in the robot."""
    success_rate: float
    """Share of the last 100 commands that reached the robot in time."""
    stop: Stop | None
    stopping: bool = False
    """Whether the arm may still be on its way to rest."""
