"""The last check before the arm: which targets may be executed, and how long they may be missing. No robot, no clock.

It does not trust the sender: a policy, the environment's limits or the link may fail.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import StopReason
from oc_residual_gym.real.arm_state import ArmSettings
from oc_residual_gym.states import Array

STATE_LIMIT, REHEARSED_STATE_LIMIT = 0.1, 0.7
"""Maximum age of the robot's state in seconds: of a real one, which itself stops after 20 ms without commands, and of a
rig, which stands still while a busy machine does something else."""
SLACK_POSITION, SLACK_ROTATION = 0.001, 0.01
"""Tolerance on the rate limit in metres and radians: the first target follows a slightly older measured pose."""
STORED_STEPS = 2.0
"""Steps of the rate limit that may accumulate while no target arrives, so that late targets may follow quickly."""
UNIT_TOLERANCE = 1e-3
"""Allowed deviation of a quaternion's length from 1."""
BOX_TOLERANCE = 1e-6
"""Tolerance of the workspace box in metres, for rounding."""


class TargetCheck:
    """Checks each target against the one before it.

    Args:
        settings: workspace, rate limit and control period.
        pose: (7,) TCP pose, used as the target before the first one.
        now: seconds of a monotonic clock, here and below.

    Attributes:
        target: (7,) the last accepted target.
        taken_at: when it was accepted, in seconds.
    """

    def __init__(self, settings: ArmSettings, pose: Array, now: float):
        self._settings = settings
        self.target, self.taken_at = pose.copy(), now
        self._allowance = STORED_STEPS

    def take(self, target: Array, tcp_pose: Array, now: float) -> str:
        """Accept ``target`` (8,) and return "", or return the reason why it must not be executed.

        Args:
            target: TCP pose in the base frame, and opening.
            tcp_pose: (7,) measured TCP pose.
            now: seconds.
        """
        elapsed = (now - self.taken_at) / self._settings.control_period
        allowance = min(self._allowance + elapsed, STORED_STEPS)
        problem = self._outside(target) or self._too_fast(target, tcp_pose, min(allowance, 1.0))
        if problem:
            return f"target {np.round(target[:7], 4).tolist()} {problem}"
        self._allowance = allowance - self._steps_to(target, tcp_pose)
        self.target, self.taken_at = target[:7].copy(), now
        return ""

    def _outside(self, target: Array) -> str:
        low, high = self._settings.workspace_low, self._settings.workspace_high
        if not np.isfinite(target).all() or abs(np.linalg.norm(target[3:7]) - 1.0) > UNIT_TOLERANCE:
            return "is not finite, or its quaternion not of length 1"
        if (target[:3] < low - BOX_TOLERANCE).any() or (target[:3] > high + BOX_TOLERANCE).any():
            return f"is outside the workspace {low.tolist()} to {high.tolist()} m"
        return ""

    def _too_fast(self, target: Array, tcp_pose: Array, allowed: float) -> str:
        s = self._settings
        slack = max(SLACK_POSITION / s.rate_position, SLACK_ROTATION / s.rate_rotation)
        steps = self._steps_to(target, tcp_pose)
        if steps <= allowed + slack:
            return ""
        moved, turned = off_segment(target, self.target, self.target)
        what = f"{steps:.1f} steps of the rate limit where {allowed:.1f} were due"
        return f"is {1e3 * moved:.1f} mm and {turned:.3f} rad from the one before it: {what}"

    def _steps_to(self, target: Array, tcp_pose: Array) -> float:
        """Steps of the rate limit needed to reach ``target``. Motion from the last target towards the TCP is free.

        The leash needs this: if the arm is pushed away, it pulls targets back to the arm, faster than the rate limit.
        """
        moved, turned = off_segment(target, self.target, tcp_pose)
        return max(moved / self._settings.rate_position, turned / self._settings.rate_rotation)


def overdue(
    settings: ArmSettings, now: float, state_at: float, target_at: float, poses_at: float
) -> tuple[StopReason, str] | None:
    """Reason to stop a tracking arm because something is overdue, or ``None``. All times are in seconds.

    Args:
        settings: the limits.
        now: present time.
        state_at: when the robot's state was last renewed.
        target_at: when the last target was accepted; the arm holds it once reached.
        poses_at: time of the newest object pose; NaN counts as never.
    """
    if now - state_at > settings.state_limit:
        return StopReason.LINK_LATE, f"no state from the robot for {1e3 * (now - state_at):.0f} ms"
    if now - target_at > settings.target_limit:
        return StopReason.TARGETS_STALE, f"no target for {now - target_at:.2f} s"
    if not now - poses_at <= settings.pose_limit:
        return StopReason.POSES_SILENT, f"no usable object pose for {now - poses_at:.2f} s"
    return None


def off_segment(pose: Array, start: Array, end: Array) -> tuple[float, float]:
    """Distance in metres and radians from ``pose`` (7,) to the nearest point between ``start`` and ``end``."""
    back = Rotation.from_quat(start[3:7]).inv()
    turn, whole = ((back * Rotation.from_quat(p[3:7])).as_rotvec() for p in (pose, end))
    return _beside(pose[:3] - start[:3], end[:3] - start[:3]), _beside(turn, whole)


def _beside(step: Array, whole: Array) -> float:
    square = float(whole @ whole)
    share = min(max(float(step @ whole) / square, 0.0), 1.0) if square > 1e-12 else 0.0
    return float(np.linalg.norm(step - share * whole))
