"""What one FR3 cell is: addresses, limits and calibration, read from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.robots.constants import JOINT_TORQUE_LIMIT

BOUNDS: dict[str, tuple[float, float]] = {
    "payload_mass": (0.0, 2.2),  # the FR3 carries 3 kg, of which the hand is 0.73
    "speed_cap": (0.02, 0.2),
    "target_limit": (0.1, 1.0),
    "force_threshold": (5.0, 100.0),
    "torque_threshold": (5.0, 0.9 * float(JOINT_TORQUE_LIMIT[0])),
    # Franka's own examples go a third beyond what a wrist joint can exert.
    "wrist_torque_threshold": (2.0, 4.0 / 3.0 * float(JOINT_TORQUE_LIMIT[6])),
    "max_age": (0.01, 0.5),
    "silence_limit": (0.1, 2.0),
    "lost_limit": (0.1, 5.0),
    "jump_position": (0.005, 0.2),
    "jump_rotation": (0.05, 1.6),
    "reacquire": (1, 100),
}
"""Least and greatest value of every number: beyond them it would no longer protect, or never let the arm move."""


def _check_bounds(settings: Any) -> None:
    for name, (low, high) in BOUNDS.items():
        value = getattr(settings, name, None)
        if value is not None and not low <= value <= high:
            raise SettingsError(f"{name} is {value}; give {low:g} to {high:g}")


@dataclass(frozen=True)
class Robot:
    """The arm and its hand."""

    host: str
    """Address of the robot's controller, whose ports are fixed."""
    realtime: bool = True
    """Whether the control computer must have a real-time kernel; only a rehearsal does without."""
    set_tcp: bool = False
    """Whether to tell the robot where the Franka Hand's TCP is, and what the hand weighs (0.73 kg) if Desk knows of no
    mass at all; otherwise Desk must have done so, which is checked. A payload besides is always Desk's to know."""
    payload_mass: float = 0.0
    """Kilograms that the wrist carries besides the hand, such as a camera; also set in Desk."""
    speed_cap: float = 0.1
    """Metres a second that targets move at most; the policy's own limit is 0.2. Keep 0.1 for first trials."""
    target_limit: float = 0.5
    """Seconds without a new target after which the arm stops; a base policy on a server must answer in less."""
    force_threshold: float = 50.0
    """Newtons along each axis at which the robot's own collision reflex stops it."""
    torque_threshold: float = 38.0
    """Nm on joints 1 to 4 at which it stops."""
    wrist_torque_threshold: float = 16.0
    """Nm on joints 5 to 7 at which it stops."""

    def __post_init__(self) -> None:
        _check_bounds(self)


@dataclass(frozen=True)
class Poses:
    """Where object poses come from, and what is believed of them."""

    source: str
    """"tcp://host:port" of a ZeroMQ publisher, or "ros2://topic-prefix"."""
    calibration: str = ""
    """File of the hand-eye calibration; needed where poses come in the camera's frame."""
    max_age: float = 0.2
    """Seconds from an image to the use of its pose; an older pose counts as lost for that step."""
    silence_limit: float = 1.0
    """Seconds without any word of an object, or with nothing but jumps, after which the arm stops."""
    lost_limit: float = 3.0
    """Seconds without a usable pose of an object that the source reports as lost, or too late, after which it stops."""
    jump_position: float = 0.05
    jump_rotation: float = 0.6
    """Metres and radians, beyond what the TCP itself moved, that a pose may change from one reading to the next."""
    reacquire: int = 5
    """Readings in a row that must agree with each other before a pose that jumped is believed."""

    def __post_init__(self) -> None:
        _check_bounds(self)


@dataclass(frozen=True)
class Cell:
    """One FR3 cell."""

    name: str
    robot: Robot
    poses: Poses
    operator: str = ""
    path: str = field(default="", compare=False)
    """The file it was read from."""


def load_cell(path: str | Path) -> Cell:
    """The cell described by a YAML file.

    Raises:
        SettingsError: there is no such file, it is no YAML, or has unknown, missing or wrongly typed entries.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read the cell's file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is no YAML file: {error}") from error
    return _build(Cell, content, str(path), {"path": str(path)})


def _build(kind: type, content: Any, where: str, known: Mapping[str, Any] | None = None) -> Any:
    if not isinstance(content, Mapping):
        raise SettingsError(f"{where} is {content!r}; expected a table with {_names(kind)}")
    types, values = get_type_hints(kind), dict(known or {})
    for key, value in content.items():
        if key not in types or key in values:
            raise SettingsError(f"{where}: unknown entry {key!r}; known are {_names(kind)}")
        if types[key] in (Robot, Poses):
            value = _build(types[key], value, f"{where}, {key}")
        elif types[key] is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif type(value) is not types[key]:
            raise SettingsError(f"{where}: {key} is {value!r}; give a {types[key].__name__}")
        values[key] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingsError(f"{where}: {error}; it needs {_names(kind)}") from error
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _names(kind: type) -> str:
    return ", ".join(f.name for f in fields(kind) if f.name != "path")
