"""Why an episode on a real robot ended by itself."""

from __future__ import annotations

from enum import StrEnum


class StopReason(StrEnum):
    """What ``info["failure"]`` and the stored trial say; every one of them leaves the arm stopped."""

    POSES_SILENT = "poses_silent"
    """The pose source has sent nothing usable for longer than its limit."""
    POSES_JUMPED = "poses_jumped"
    """Poses jumped further than an object can move, and did not come back."""
    POSES_FROZEN = "poses_frozen"
    """The pose source repeats the very same numbers, as no camera does."""
    TARGETS_STALE = "targets_stale"
    """The controlling process sent no target in time: it is frozen, too slow, or gone."""
    TARGET_REFUSED = "target_refused"
    """A target was not finite, outside the workspace box, or further from the last one than the rate limit allows."""
    LINK_LOST = "link_lost"
    """The robot's controller does not answer any more."""
    LINK_LATE = "link_late"
    """The robot's state came later than its limit, though it still comes."""
    ROBOT_REFLEX = "robot_reflex"
    """The robot's own safety stopped it (collision, limits, communication)."""
    ROBOT_SETTINGS = "robot_settings"
    """The robot's end effector or stiffness frame is not ours, so that nothing would be where it seems."""
    GRIPPER_BLOCKED = "gripper_blocked"
    """The hand did not finish a command in time."""
    BASE_POLICY_FAILED = "base_policy_failed"
    """The base policy had no target, or one that is no pose."""
    PROGRAM_ERROR = "program_error"
    """Our own program failed; the trial's reason says how."""
    OPERATOR_STOP = "operator_stop"
    """The operator pressed the stop key or Ctrl+C."""


class RobotStopped(RuntimeError):
    """The arm stopped, or was not allowed to start.

    Args:
        reason: why.
        detail: what was measured, and what to do.
    """

    def __init__(self, reason: StopReason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail
