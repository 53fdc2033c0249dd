"""Description of one FR3 cell: addresses, limits and calibration, read from a YAML file."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from oc_residual_gym.errors import FileError, SettingsError
from oc_residual_gym.parsing import read_yaml
from oc_residual_gym.robots.constants import JOINT_TORQUE_LIMIT
from oc_residual_gym.robots.reflex import Reflex

BOUNDS: dict[str, tuple[float, float]] = {
    "payload_mass": (0.0, 2.2),  # the FR3 carries 3 kg, of which the hand is 0.73
    "speed_cap": (0.02, 0.2),
    "target_limit": (0.1, 1.0),
    "force_threshold": (5.0, 100.0),
    "torque_threshold": (5.0, 0.9 * float(JOINT_TORQUE_LIMIT[0])),
    # Franka's own examples use a third more than a wrist joint can exert.
    "wrist_torque_threshold": (2.0, 4.0 / 3.0 * float(JOINT_TORQUE_LIMIT[6])),
    "max_age": (0.01, 0.5),
    "silence_limit": (0.1, 2.0),
    "lost_limit": (0.1, 5.0),
    "jump_position": (0.005, 0.2),
    "jump_rotation": (0.05, 1.6),
    "reacquire": (1, 100),
}
"""Smallest and largest allowed value. Outside, a limit would no longer protect, or never let the arm move."""


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
    """Whether the control computer must have a real-time kernel; false only in a rehearsal. The robot's state may be up
    to 0.1 s old; false raises this to 0.7 s if ``host`` is a loopback address, so never for a robot."""
    set_tcp: bool = False
    """Whether to set the Franka Hand's TCP in the robot, and its mass (0.73 kg) if Desk has none configured. If false,
    Desk must be configured, which is checked. Any further payload must always be set in Desk."""
    payload_mass: float = 0.0
    """Mass on the wrist besides the hand, such as a camera, in kilograms; must be set in Desk too."""
    speed_cap: float = 0.1
    """Maximum speed of targets in m/s; the policy's own limit is 0.2. Keep 0.1 for first trials."""
    target_limit: float = 0.5
    """Seconds without a new target after which the arm stops; a base policy on a server must answer faster."""
    force_threshold: float = Reflex.force_threshold
    """Force per axis, in N, at which the robot's own collision reflex stops it."""
    torque_threshold: float = Reflex.torque_threshold
    """Torque on joints 1 to 4, in Nm, at which the reflex stops it."""
    wrist_torque_threshold: float = Reflex.wrist_torque_threshold
    """Torque on joints 5 to 7, in Nm, at which the reflex stops it."""

    def __post_init__(self) -> None:
        _check_bounds(self)

    @property
    def is_rehearsed(self) -> bool:
        """Whether this is the rig of a rehearsal, not a robot: on this computer, and without a real-time kernel."""
        try:
            on_this_computer = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            on_this_computer = self.host == "localhost"
        return on_this_computer and not self.realtime

    @property
    def reflex(self) -> Reflex:
        """The three thresholds; by default, the simulation's."""
        return Reflex(self.force_threshold, self.torque_threshold, self.wrist_torque_threshold)


@dataclass(frozen=True)
class Poses:
    """Where object poses come from, and which ones are accepted."""

    source: str
    """"tcp://host:port" of a ZeroMQ publisher, or "ros2://topic-prefix"."""
    calibration: str = ""
    """File of the hand-eye calibration; required if poses are in the camera's frame."""
    max_age: float = 0.2
    """Maximum age of a pose in seconds, from its image to its use; an older pose counts as not seen in that step."""
    silence_limit: float = 1.0
    """Seconds without any reading of an object, or with readings only that are not believed, after which the arm
    stops."""
    lost_limit: float = 3.0
    """Seconds without a usable pose of an object, lost or too old, after which the arm stops."""
    jump_position: float = 0.05
    jump_rotation: float = 0.6
    """Allowed change of a pose between readings, in metres and radians, if the hand is far from the object."""
    reacquire: int = 5
    """Readings in a row that must agree with each other. At the start their pose is then accepted; later, at a place
    where the object cannot be, they stop the arm."""

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
    """Load a cell from a YAML file.

    Raises:
        SettingsError: there is no such file, it is not YAML, or it has unknown, missing or invalid entries.
    """
    try:
        content = read_yaml(Path(path))
    except FileError as error:
        raise SettingsError(f"cannot read the cell's file: {error}") from error
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
