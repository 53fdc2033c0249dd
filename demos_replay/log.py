"""The canonical log: the one form into which every reader converts a teleoperated demonstration.

Base frame: the robot's base, +x forward, z up; metres, radians, seconds; quaternions xyzw. The tool centre point (TCP)
is Franka's, 103.4 mm from the hand's frame, z along the tool, the fingers opening along y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from oc_residual_gym.errors import outside_text
from oc_residual_gym.states import Array, BoolArray

MAX_SECONDS = 3600.0
"""Longest demonstration in seconds; a longer one has another time unit, or is several demonstrations in one."""


class LogError(Exception):
    """A file, or one demonstration in it, cannot be used; the message says what is wrong, where, and what to do.

    The message may hold texts of the file, so it is one printable line.
    """

    def __init__(self, message: str):
        super().__init__(outside_text(message, 2000))


@dataclass(frozen=True)
class LogObject:
    """An object of the recorded scene."""

    poses: Array
    """(T, 7) in the base frame: position of the object's centre, quaternion xyzw. Constant if only its start pose is
    known."""
    half_size: Array | None = None
    """(3,) half extents along the object's own axes in metres; ``None`` if the file does not give them."""
    tracked: bool = True
    """True if the poses follow the object through the demonstration; False if only the first one is known."""


@dataclass(frozen=True)
class Log:
    """One demonstration of T rows. Row t holds what was measured at ``time[t]`` and what was commanded then."""

    file: str
    """Path of the file it was read from."""
    name: str
    """Name of the demonstration in its file."""
    format: str
    """Name of the reader."""
    rate: float
    """Nominal rows per second."""
    time: Array
    """(T,) seconds, strictly increasing, from 0."""
    tcp_pose: Array
    """(T, 7) measured, base frame."""
    gripper_closed: BoolArray
    """(T,) command: True asks for closed fingers, whatever the file's polarity."""
    target: Array | None = None
    """(T, 7) commanded TCP pose that the robot tracks from row t on; ``None`` without absolute targets."""
    gripper_width: Array | None = None
    """(T,) metres between the fingers."""
    joint_positions: Array | None = None
    """(T, 7) joint positions of a Franka arm, rad."""
    objects: Mapping[str, LogObject] = field(default_factory=dict)
    """Objects by their names in the file; empty if the file has no object poses."""
    table_height: float = 0.0
    """Height of the table's top in the base frame, metres."""
    lag: float = 0.0
    """Delay from a commanded pose to the measured one in seconds, as read or estimated."""
    task: str | None = None
    """Name of the task in this package, if the file names one."""
    instruction: str = ""
    synthetic: bool = False
    """Recorded from a scripted operator, not from a person."""
    facts: tuple[str, ...] = ()
    """How the file was interpreted, one sentence each: frames, units, rate, polarity, source of each quantity."""
    assumptions: tuple[str, ...] = ()
    """What was assumed because the file does not say it, one sentence each."""


def check_log(log: Log) -> Log:
    """Return ``log`` if it can be replayed.

    Raises:
        LogError: it is too short, or has entries that are not finite, shapes that do not match, quaternions that are
            not of unit length, or time that does not increase or does not match its rate in seconds.
    """
    rows = len(log.time)
    if rows < 2:
        raise LogError(f"it has {rows} rows; a demonstration needs at least 2")
    shapes = {
        "time": (log.time, ()),
        "tcp_pose": (log.tcp_pose, (7,)),
        "gripper_closed": (log.gripper_closed, ()),
        "target": (log.target, (7,)),
        "gripper_width": (log.gripper_width, ()),
        "joint_positions": (log.joint_positions, (7,)),
        **{f"objects/{name}": (item.poses, (7,)) for name, item in log.objects.items()},
    }
    for name, (values, tail) in shapes.items():
        if values is None:
            continue
        if values.shape != (rows, *tail):
            raise LogError(f"{name} has shape {values.shape}; expected {(rows, *tail)}")
        bad = ~np.isfinite(values).reshape(rows, -1).all(axis=1)
        if bad.any():
            raise LogError(f"{name} is not finite in {bad.sum()} of {rows} rows, first in row {bad.argmax()}")
        if tail == (7,) and not name.startswith("joint"):
            lengths = np.linalg.norm(values[:, 3:], axis=1)
            if (np.abs(lengths - 1.0) > 0.01).any():
                raise LogError(
                    f"{name} has quaternions that are not rotations, first in row {np.abs(lengths - 1).argmax()}"
                )
    steps = np.diff(log.time)
    if (steps <= 0.0).any():
        raise LogError(f"time does not increase after row {int((steps <= 0.0).argmax())}")
    step = float(np.median(steps))
    if not 0.5 <= step * log.rate <= 2.0:
        raise LogError(
            f"its rows are {step:g} apart in time, but at its rate of {log.rate:g} Hz {1.0 / log.rate:g} s: "
            "give time in seconds, and the rate of these rows"
        )
    if log.time[-1] > MAX_SECONDS:
        raise LogError(f"it lasts {log.time[-1]:.0f} s; a demonstration lasts {MAX_SECONDS:.0f} s at most")
    return log
