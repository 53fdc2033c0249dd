"""The last check before the arm: which targets may be followed, and how long none may come. No robot, no clock.

It knows nothing of what sent a target, and trusts none: a policy, the limits of the environment or the link may fail.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import StopReason
from oc_residual_gym.real.arm_state import ArmSettings
from oc_residual_gym.states import Array

STATE_LIMIT = 0.1
"""Seconds in which the robot's state must be renewed; the robot itself gives up after 20 ms without commands."""
SLACK_POSITION, SLACK_ROTATION = 0.001, 0.01
"""Metres and radians beyond the rate limit: the first target follows a pose measured a moment before."""
STORED_STEPS = 2.0
"""Steps of the rate limit that may be saved up while no target comes: targets that are late may follow each other."""
UNIT_TOLERANCE = 1e-3
"""By how much a quaternion's length may differ from 1."""
BOX_TOLERANCE = 1e-6
"""Metres of rounding beyond the workspace."""


class TargetCheck:
    """Checks each target against the one before it.

    Args:
        settings: workspace, rate limit and control period.
        pose: (7,) of the TCP, which counts as the target before the first one.
        now: seconds, of a clock that only goes forward, here and below.

    Attributes:
        target: (7,) the last one that was taken.
        taken_at: seconds when.
    """

    def __init__(self, settings: ArmSettings, pose: Array, now: float):
        self._settings = settings
        self.target, self.taken_at = pose.copy(), now
        self._allowance = STORED_STEPS

    def take(self, target: Array, tcp_pose: Array, now: float) -> str:
        """Why ``target`` (8,) must not be executed, or "": the next one is then compared with it.

        Args:
            target: TCP pose and opening.
            tcp_pose: (7,) where the TCP is.
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
        """How many steps of the rate limit lead to ``target``; for free are those from the last one towards the TCP.

        The leash draws a target back, faster than the rate limit, to an arm that was pushed away.
        """
        moved, turned = off_segment(target, self.target, tcp_pose)
        return max(moved / self._settings.rate_position, turned / self._settings.rate_rotation)


def overdue(
    settings: ArmSettings, now: float, state_at: float, target_at: float, poses_at: float
) -> tuple[StopReason, str] | None:
    """Why an arm that is tracking must stop because something did not come in time, or ``None``.

    Args:
        settings: the limits.
        now: seconds, as all that follow.
        state_at: when the robot's state was renewed.
        target_at: when the last target was taken; it is held once reached.
        poses_at: of what time the newest object pose is; NaN counts as never.
    """
    if now - state_at > STATE_LIMIT:
        return StopReason.LINK_LATE, f"no state from the robot for {1e3 * (now - state_at):.0f} ms"
    if now - target_at > settings.target_limit:
        return StopReason.TARGETS_STALE, f"no target for {now - target_at:.2f} s"
    if not now - poses_at <= settings.pose_limit:
        return StopReason.POSES_SILENT, f"no usable object pose for {now - poses_at:.2f} s"
    return None


def off_segment(pose: Array, start: Array, end: Array) -> tuple[float, float]:
    """Metres and radians from ``pose`` (7,) to the nearest on the way from ``start`` to ``end``."""
    back = Rotation.from_quat(start[3:7]).inv()
    turn, whole = ((back * Rotation.from_quat(p[3:7])).as_rotvec() for p in (pose, end))
    return _beside(pose[:3] - start[:3], end[:3] - start[:3]), _beside(turn, whole)


def _beside(step: Array, whole: Array) -> float:
    square = float(whole @ whole)
    share = min(max(float(step @ whole) / square, 0.0), 1.0) if square > 1e-12 else 0.0
    return float(np.linalg.norm(step - share * whole))
