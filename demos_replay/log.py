"""The canonical log: what every reader makes of a teleoperated demonstration, whatever its file looks like.

Base frame: the robot's base, +x forward, z up; metres, radians, seconds; quaternions xyzw. The tool centre point (TCP)
is Franka's, 103.4 mm from the hand's frame, z along the tool, the fingers opening along y.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from oc_residual_gym.states import Array, BoolArray

MAX_SECONDS = 3600.0
"""Longest demonstration in seconds: what claims to be longer has its time in another unit, or holds several."""


class LogError(Exception):
    """A file, or one demonstration in it, cannot be used; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class LogObject:
    """An object of the recorded scene."""

    poses: Array
    """(T, 7) in the base frame: position of the object's centre, quaternion xyzw. Constant where only its start pose
    is known."""
    half_size: Array | None = None
    """(3,) half extents along the object's own axes in metres, where the file tells."""
    tracked: bool = True
    """Do the poses follow the object through the demonstration, or is only the first one known?"""


@dataclass(frozen=True)
class Log:
    """One demonstration of T rows. Row t holds what was measured at ``time[t]`` and what was commanded there."""

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
    """(T, 7) commanded TCP pose that the robot tracks from row t on, where the file has absolute ones."""
    gripper_width: Array | None = None
    """(T,) metres between the fingers."""
    joint_positions: Array | None = None
    """(T, 7) of a Franka arm."""
    objects: Mapping[str, LogObject] = field(default_factory=dict)
    """By their names in the file; empty where the file has no object poses."""
    table_height: float = 0.0
    """Height of the table's top in the base frame, metres."""
    lag: float = 0.0
    """Seconds from a commanded pose to the measured one, as read or estimated."""
    task: str | None = None
    """Our task's name, where the file says it."""
    instruction: str = ""
    synthetic: bool = False
    """Recorded from a scripted operator, not from a person."""
    facts: tuple[str, ...] = ()
    """What was understood, one sentence each: frames, units, rate, polarity, where each quantity came from."""
    assumptions: tuple[str, ...] = ()
    """What the file does not tell and was assumed, one sentence each."""


def check_log(log: Log) -> Log:
    """``log``, if it can be replayed.

    Raises:
        LogError: it is empty or too short, has entries that are not finite, shapes that do not fit together,
            quaternions without length, or time that does not increase, or not in seconds at about its rate.
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
                    f"{name} has quaternions that are no rotations, first in row {np.abs(lengths - 1).argmax()}"
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
