"""Hand-eye calibration: the pose of a fixed camera in the robot's base frame, with an id that every trial records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from oc_residual_gym.errors import FileError, MessageError, SettingsError
from oc_residual_gym.geometry import pose_multiply, pose_relative
from oc_residual_gym.parsing import read_json, read_yaml
from oc_residual_gym.perception.messages import checked_pose, is_finite_number
from oc_residual_gym.perception.sources import missing_package
from oc_residual_gym.states import Array

REQUIRED = ("id", "created", "method", "base_from_camera", "rms_error_mm")


@dataclass(frozen=True)
class Calibration:
    """A hand-eye calibration of a camera that does not move."""

    id: str
    """Unique id; every new calibration needs a new one."""
    created: str
    """Date, year first."""
    method: str
    """How it was measured, in words."""
    base_from_camera: Array
    """(7,) pose of the camera's optical frame (z forward, x right, y down) in the base frame: metres, xyzw."""
    rms_error_mm: float
    """Root mean square distance, in millimetres, between true points and the same points as the camera sees them."""

    @property
    def label(self) -> str:
        """Label stored in results: the id and eight digits of the pose's hash, which reveal an edit under an old id."""
        return f"{self.id} ({hashlib.sha256(self.base_from_camera.tobytes()).hexdigest()[:8]})"

    def apply(self, poses: Array) -> Array:
        """Transform poses ``(..., 7)`` from the camera's frame to the base frame."""
        return pose_multiply(np.array(np.broadcast_to(self.base_from_camera, poses.shape)), poses)

    def undo(self, poses: Array) -> Array:
        """Transform poses ``(..., 7)`` from the base frame to the camera's frame."""
        return pose_relative(np.array(np.broadcast_to(self.base_from_camera, poses.shape)), poses)


def load_calibration(path: str | Path) -> Calibration:
    """Read a calibration from a YAML or JSON file.

    Raises:
        SettingsError: there is no such file, it cannot be read, or an entry is missing or invalid.
    """
    try:
        content = (read_json if Path(path).suffix == ".json" else read_yaml)(Path(path))
    except ImportError as error:
        raise missing_package(error) from error
    except FileError as error:
        raise SettingsError(f"cannot read the calibration: {error}") from error
    if not isinstance(content, Mapping):
        raise SettingsError(f"the calibration {path} is not a table; it needs {', '.join(REQUIRED)}")
    if missing := [key for key in REQUIRED if content.get(key) in (None, "")]:
        raise SettingsError(f"the calibration {path} lacks {', '.join(missing)}")
    if unknown := [str(key) for key in content if key not in REQUIRED]:
        raise SettingsError(
            f"the calibration {path} has the unknown entry {unknown[0]!r}; known: {', '.join(REQUIRED)}"
        )
    error_mm = content["rms_error_mm"]
    if not is_finite_number(error_mm) or error_mm < 0:
        raise SettingsError(f"the calibration {path}: rms_error_mm is {error_mm!r}; give millimetres")
    for key in ("id", "method"):
        if not isinstance(content[key], str):
            raise SettingsError(f"the calibration {path}: {key} is {content[key]!r}; give a text, in quotes if needed")
    # YAML parses an unquoted date as a date object.
    if not isinstance(content["created"], str | date | datetime):
        raise SettingsError(f"the calibration {path}: created is {content['created']!r}; give a date, year first")
    pose = _camera_pose(content["base_from_camera"], path)
    return Calibration(content["id"], str(content["created"]), content["method"], pose, float(error_mm))


def _camera_pose(entry: Any, path: str | Path) -> Array:
    where = f"the calibration {path}: base_from_camera"
    if not isinstance(entry, Mapping) or set(entry) != {"position", "quaternion"}:
        raise SettingsError(f"{where} needs position (x, y, z in metres) and quaternion (x, y, z, w)")
    for key, count in (("position", 3), ("quaternion", 4)):
        value = entry[key]
        if not isinstance(value, list) or len(value) != count or not all(map(is_finite_number, value)):
            raise SettingsError(f"{where}: {key} is {value!r}; give {count} finite numbers")
    try:
        pose = checked_pose(np.array(entry["position"], float), np.array(entry["quaternion"], float))
    except MessageError as error:
        raise SettingsError(f"{where}: {error}") from error
    return pose
