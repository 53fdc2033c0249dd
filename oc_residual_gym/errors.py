"""Everything this package raises on purpose, and the check of a name against those that exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class SettingsError(ValueError):
    """Something that was asked for does not exist or does not fit; the message says what would."""


class EngineError(SettingsError):
    """The engine is not there, or a job keeps losing its worker; the message says what to do."""


class WorkerError(SettingsError):
    """A worker would not do what its driver would: it has other versions or files; the message names both."""


class WorkerLost(Exception):
    """A worker ended before its job did; the message says how."""


class BasePolicyError(RuntimeError):
    """A base policy could not give targets (server lost, bad output). The episode ends as truncated."""


class RenderError(RuntimeError):
    """No picture can be made on this machine; the message says what to install."""


class RigError(RuntimeError):
    """The rig cannot be installed, started or reached."""


class MessageError(ValueError):
    """A pose message that is not as documented; the text says where."""


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


@dataclass(frozen=True)
class Stop:
    """A stop by itself, or on request. Times are ``time.monotonic()`` seconds."""

    reason: StopReason
    detail: str
    seen_at: float
    """When the fault was noticed."""
    stopped_at: float | None = None
    """When the arm had come to rest; ``None`` while it is coming to rest, or where nothing can be measured any more."""


class RobotStopped(RuntimeError):
    """The arm stopped, or was not allowed to start.

    Args:
        reason: why.
        detail: what was measured, and what to do.
    """

    def __init__(self, reason: StopReason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def one_of(kind: str, name: str, valid: Iterable[str], error: type[Exception] = SettingsError) -> str:
    """``name``, if it is one of ``valid``.

    Raises:
        SettingsError: it is not (or ``error``, where that is given); the message lists the valid names.

    >>> one_of("split", "val", ("train", "val", "test"))
    'val'
    >>> one_of("split", "dev", ("train", "val", "test"))
    Traceback (most recent call last):
    oc_residual_gym.errors.SettingsError: unknown split 'dev': choose one of train, val, test
    """
    names = list(valid)
    if name not in names:
        raise error(f"unknown {kind} {name!r}: choose one of {', '.join(names)}")
    return name
