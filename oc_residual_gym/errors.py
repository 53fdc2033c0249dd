"""Exceptions and stop reasons of this package, and the functions that validate a name and clean a text for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class SettingsError(ValueError):
    """A requested name or setting does not exist or does not fit; the message lists valid ones."""


class FileError(SettingsError):
    """A file does not exist, or does not hold what it should; the message names the file and the problem."""


class EngineError(SettingsError):
    """The engine is unavailable, or a job keeps losing its worker; the message says what to do."""


class WorkerError(SettingsError):
    """A worker has other versions or files than its driver; the message names both."""


class WorkerLost(Exception):
    """A worker process ended before its job was done; the message says how."""


class BasePolicyError(RuntimeError):
    """A base policy could not return targets (server lost, invalid output). The episode is truncated."""


class RenderError(RuntimeError):
    """This machine cannot render images; the message says what to install."""


class KeptElsewhere(SettingsError):
    """A result could not be written where it belongs; the message is one line that says where it is, and what to do."""


class RigError(RuntimeError):
    """The rig cannot be installed, started or reached."""


class MessageError(ValueError):
    """A pose message does not follow its documented schema; the text says where."""


class StopReason(StrEnum):
    """Why the arm stopped, as reported in ``info["failure"]`` and in the trial's file. The arm stays stopped."""

    POSES_SILENT = "poses_silent"
    """The pose source has sent no usable pose for longer than its limit."""
    POSES_JUMPED = "poses_jumped"
    """A pose jumped farther than the object can have moved, and stayed there or did not settle."""
    POSES_CONTRADICT = "poses_contradict"
    """Two sources give different poses for one object."""
    POSES_OUTSIDE = "poses_outside"
    """A pose lies where its object cannot be: outside the workspace, under the table, or moved although it is fixed."""
    POSES_FROZEN = "poses_frozen"
    """The pose source repeats exactly the same numbers, which a live camera never does."""
    TARGETS_STALE = "targets_stale"
    """The controlling process sent no target in time: it is frozen, too slow, or has ended."""
    TARGET_REFUSED = "target_refused"
    """A target was not finite, outside the workspace box, or farther from the last one than the rate limit allows."""
    LINK_LOST = "link_lost"
    """The robot's controller no longer answers."""
    LINK_LATE = "link_late"
    """The robot still answers, but its state arrives too late."""
    READING_INVALID = "reading_invalid"
    """The arm or the hand reported a value that is not a finite number."""
    ROBOT_REFLEX = "robot_reflex"
    """The robot's own safety functions stopped it (collision, limits, communication)."""
    ROBOT_SETTINGS = "robot_settings"
    """The robot's end effector or stiffness frame differs from ours, so poses and forces would be wrong."""
    GRIPPER_BLOCKED = "gripper_blocked"
    """The hand did not finish a command in time, or its fingers did not move."""
    BASE_POLICY_FAILED = "base_policy_failed"
    """The base policy returned no target, or one that is not a pose."""
    PROGRAM_ERROR = "program_error"
    """An error in this program; the trial's ``reason`` names it."""
    OPERATOR_STOP = "operator_stop"
    """The operator pressed the stop key or Ctrl+C."""


@dataclass(frozen=True)
class Stop:
    """A stop of the arm, after a fault or on request. Times are ``time.monotonic()`` seconds."""

    reason: StopReason
    detail: str
    seen_at: float
    """When the fault was noticed."""
    stopped_at: float | None = None
    """When the arm came to rest; ``None`` while it still moves, or if nothing can be measured anymore."""


class RobotStopped(RuntimeError):
    """The arm stopped, or was not allowed to start.

    Args:
        reason: why it stopped.
        detail: what was measured, and what to do.
    """

    def __init__(self, reason: StopReason, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def one_of(kind: str, name: str, valid: Iterable[str], error: type[Exception] = SettingsError) -> str:
    """Return ``name`` if it is one of ``valid``.

    Raises:
        SettingsError: it is not; the message lists the valid names. ``error`` sets another exception type.

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


_ESCAPE_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)


def outside_text(text: object, most: int = 500) -> str:
    r"""A text from outside (a server, a log, an entry) as one printable line of at most ``most`` characters.

    Terminal escape codes are removed, line breaks and tabs become spaces, and other control characters "?".

    >>> outside_text("\x1b[31mout of\nmemory\x07")
    'out of memory?'
    """
    line = re.sub(r"\s", " ", _ESCAPE_CODES.sub("", str(text))).strip()
    line = "".join(c if c.isprintable() else "?" for c in line[: most + 1])
    return line if len(line) <= most else f"{line[: most - 3]}..."
