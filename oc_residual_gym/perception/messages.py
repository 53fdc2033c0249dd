"""Read and validate object pose messages; ``docs/pose_messages.md`` documents the schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oc_residual_gym.errors import MessageError
from oc_residual_gym.states import Array

SCHEMA, VERSION = "oc-residual-poses", 1
FRAMES = ("base", "camera")
STATUSES = ("tracking", "fixed", "lost")
CONTRADICTED = "contradicted"
"""Status of a reading that a source gives instead, if two publishers send different poses of the object."""

FARTHEST = 5.0
"""Maximum distance of an object in metres: the FR3's reach plus that of a camera that sees it."""
UNIT_TOLERANCE = 0.01
"""Allowed deviation of a quaternion's length from 1: covers float32 rounding, rejects mixed-up entries."""
OLDEST = 60.0
"""Maximum age in seconds; a larger value is probably a time of day."""


@dataclass(frozen=True)
class TrackedPose:
    """One reading of one object."""

    pose: Array
    """(7,) metres and unit quaternion xyzw, in the source's frame; NaN if the object is lost."""
    stamp: float
    """When the image was taken, in seconds of this machine's ``time.monotonic()``."""
    status: str
    """"tracking"; "fixed" for an object that cannot move and was measured once; "lost"; or :data:`CONTRADICTED`."""


@dataclass(frozen=True)
class PoseMessage:
    """One message from a publisher."""

    frame: str
    calibration: str
    objects: Mapping[str, TrackedPose]


def read_message(text: bytes | str, received: float) -> PoseMessage:
    """Parse one message.

    Args:
        text: JSON as documented in ``docs/pose_messages.md``.
        received: arrival time in seconds of ``time.monotonic()``.

    Raises:
        MessageError: it does not follow the schema.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise MessageError(f'"schema" is not {SCHEMA!r}')
    if content.get("version") != VERSION:
        raise MessageError(f'"version" is {content.get("version")!r}; this client reads {VERSION}')
    frame, calibration = _choice(content, "frame", FRAMES), content.get("calibration", "")
    objects = content.get("objects")
    if not isinstance(calibration, str):
        raise MessageError(f'"calibration" is {calibration!r}; give an id in quotes')
    if not isinstance(objects, dict):
        raise MessageError('"objects" is not a table of objects')
    return PoseMessage(frame, calibration, {name: _tracked(name, entry, received) for name, entry in objects.items()})


def _tracked(name: str, entry: Any, received: float) -> TrackedPose:
    try:
        if not isinstance(entry, dict):
            raise MessageError("is not a table")
        status = _choice(entry, "status", STATUSES)
        age = float(_numbers([entry.get("age", 0.0)], "age", 1)[0])
        if not 0.0 <= age <= OLDEST:
            raise MessageError(f'"age" is {age}; give seconds from the image to sending, 0 to {OLDEST:.0f}')
        if status == "lost":
            return TrackedPose(np.full(7, np.nan), received - age, status)
        position, quaternion = entry.get("position"), entry.get("quaternion")
        pose = checked_pose(_numbers(position, "position", 3), _numbers(quaternion, "quaternion", 4))
    except MessageError as error:
        raise MessageError(f"object {name!r}: {error}") from error
    return TrackedPose(pose, received - age, status)


def checked_pose(position: Array, quaternion: Array) -> Array:
    """Pose (7,) from a position (3,) in metres and a quaternion xyzw (4,), which is scaled to unit length.

    Raises:
        MessageError: it is not finite, is too far away, or the quaternion is not of unit length.
    """
    pose = np.concatenate([position, quaternion]).astype(float)
    if not np.isfinite(pose).all():
        raise MessageError(f"its pose {pose.tolist()} is not finite")
    if np.linalg.norm(pose[:3]) > FARTHEST:
        raise MessageError(f'"position" {pose[:3].tolist()} is more than {FARTHEST} m away; give metres')
    length = np.linalg.norm(pose[3:])
    if abs(length - 1.0) > UNIT_TOLERANCE:
        raise MessageError(f'"quaternion" {pose[3:].tolist()} has length {length:.3f}; give a unit quaternion, xyzw')
    pose[3:] /= length
    return pose


def _choice(content: Mapping[str, Any], key: str, choices: Sequence[str]) -> str:
    value = content.get(key)
    if not isinstance(value, str) or value not in choices:
        raise MessageError(f'"{key}" is {value!r}; give one of {", ".join(map(repr, choices))}')
    return value


def _numbers(value: Any, key: str, count: int) -> Array:
    if not isinstance(value, list) or len(value) != count:
        raise MessageError(f'"{key}" is {value!r}; give {count} numbers')
    if not all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in value):
        raise MessageError(f'"{key}" is {value!r}; give numbers')
    try:
        return np.array(value, dtype=float)
    except OverflowError as error:
        raise MessageError(f'"{key}" is {value!r}: too large') from error


def is_finite_number(value: Any) -> bool:
    """Whether ``value`` is a finite number, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
