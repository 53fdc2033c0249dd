"""What the arm's process is told, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, replace

from oc_residual_gym.errors import Stop, StopReason
from oc_residual_gym.states import Array

HAND_MASS = 0.73
"""Kilograms of the Franka Hand (product manual)."""


@dataclass(frozen=True)
class ArmSettings:
    """Everything that the process has to know."""

    host: str
    realtime: bool
    set_tcp: bool
    speed_cap: float
    control_period: float
    """Seconds over which a target is approached."""
    target_limit: float
    """Seconds without a new target after which the arm stops; until then it holds the last one."""
    pose_limit: float
    """Seconds without news of an object after which it stops."""
    rate_position: float
    rate_rotation: float
    """Metres and radians that a target may be away from the one before it."""
    workspace_low: Array
    workspace_high: Array
    home: Array
    """(7,) joint positions."""
    joint_lower: Array
    joint_upper: Array
    translational_stiffness: float
    rotational_stiffness: float
    damping: Array
    """(6,)."""
    posture_stiffness: float
    posture_damping: float
    position_clip: float
    rotation_clip: float
    """Metres and radians of error, along each axis, that the impedance acts on at most."""
    torque_thresholds: tuple[float, ...]
    force_thresholds: tuple[float, ...]


def with_fault(before: Stop | None, fault: Stop) -> Stop:
    """The stop to report once ``fault`` has come on top of the one ``before``: the first cause stays, as a rule."""
    if before is None:
        return fault
    if before.reason is StopReason.LINK_LATE and fault.reason is StopReason.LINK_LOST:
        return replace(before, reason=fault.reason, detail=fault.detail)  # late because it never came again
    if before.reason is StopReason.TARGETS_STALE:  # which alone is no fault between episodes
        return replace(before, reason=fault.reason, detail=f"{fault.detail}; before that: {before.detail}")
    return before


@dataclass(frozen=True)
class ArmState:
    """What the arm measures; base frame, SI units."""

    stamp: float
    """``time.monotonic()`` of the reading."""
    joint_positions: Array
    joint_velocities: Array
    tcp_pose: Array
    """(7,)."""
    wrench: Array
    """(6,) external wrench on the tool about the TCP, averaged since the last reading."""
    reference: Array
    """(7,) pose that the impedance draws the TCP to; the TCP itself where nothing does."""
    stiffness_frame_offset: float
    """Metres from the TCP to the frame whose wrench the robot estimates, and radians between the two."""
    mass: float
    """kg on the flange, as the robot was told."""
    success_rate: float
    """Share of the last 100 commands that reached the robot in time."""
    stop: Stop | None
