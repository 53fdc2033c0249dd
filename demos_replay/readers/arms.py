"""Helpers for logs of real Franka arms: joint ranges, grippers, poses as six numbers, clocks, lag."""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.log import LogError
from demos_replay.readers.content import number
from oc_residual_gym.robots.constants import JOINT_LOWER, JOINT_UPPER, MAX_OPENING
from oc_residual_gym.robots.kinematics import TCP_FROM_FLANGE
from oc_residual_gym.states import Array

# The union of both arms' ranges, because logs of a Panda are replayed too (limits: Franka Emika Panda datasheet), plus
# 3 degrees, because an arm at its limit is sometimes measured beyond it.
_PANDA_LOWER = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
_PANDA_UPPER = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
_JOINT_MARGIN = 0.05
LOWEST_JOINTS: Array = np.minimum(JOINT_LOWER, _PANDA_LOWER) - _JOINT_MARGIN
HIGHEST_JOINTS: Array = np.maximum(JOINT_UPPER, _PANDA_UPPER) + _JOINT_MARGIN

REACH = 1.2
"""Maximum metres from the base to a TCP: 0.855 m to the wrist's centre (datasheet), plus flange and gripper."""
LAGS = 8
"""Maximum number of rows by which a measured pose may lag behind its command."""
_MOVING = 0.01
"""Minimum motion in metres for estimating a lag."""
_RATES = (2.0, 500.0)
"""Plausible range of logging rates, rows per second."""
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True)
class Gripper:
    """A gripper on an arm's flange."""

    name: str
    description: str
    tcp: Array
    """(7,) pose of the point between the fingertips in the flange's frame; the fingers move along its y."""
    max_width: float
    """Metres between the fully opened fingers."""


FRANKA_HAND = Gripper("franka_hand", "a Franka Hand", TCP_FROM_FLANGE, MAX_OPENING)
ROBOTIQ_2F85 = Gripper(
    "robotiq_2f85",
    "a Robotiq 2F-85",
    # Centre of the finger pads, which moves from 142 mm (open) to 155 mm (closed), by MuJoCo Menagerie's model
    # ``robotiq_2f85`` on its coupling; this value is for an object of 40 mm.
    np.array([0.0, 0.0, 0.153, 0.0, 0.0, 0.0, 1.0]),
    0.085,
)
GRIPPERS = {gripper.name: gripper for gripper in (FRANKA_HAND, ROBOTIQ_2F85)}


def check_joints(joint_positions: Array, where: str, beyond: float = 0.0) -> None:
    """Check that ``joint_positions`` (T, 7), rad, are within the range of an FR3 or a Panda.

    Raises:
        LogError: a joint exceeds the range by more than ``beyond`` rad.
    """
    outside = (joint_positions < LOWEST_JOINTS - beyond) | (joint_positions > HIGHEST_JOINTS + beyond)
    if outside.any():
        row, joint = np.argwhere(outside)[0]
        raise LogError(
            f"{where} has joint {joint + 1} at {joint_positions[row, joint]:.4g} rad in row {row}: out of the range of "
            f"a Franka arm, {LOWEST_JOINTS[joint]:.2f} to {HIGHEST_JOINTS[joint]:.2f} rad"
        )


def check_reach(positions: Array, where: str) -> None:
    """Check that ``positions`` (T, 3), metres, are within reach of an arm at the origin.

    Raises:
        LogError: a position is out of reach.
    """
    distances = np.linalg.norm(np.clip(positions, -1e6, 1e6), axis=1)
    if (distances > REACH).any():
        raise LogError(
            f"{where} is {distances.max():.4g} m from the base in row {distances.argmax()}: out of the reach of a "
            f"Franka arm, {REACH} m, so it is not in metres, or not in the base frame"
        )


def poses_from_euler(values: Array, where: str) -> Array:
    """Poses (T, 7) from positions (metres) and extrinsic xyz Euler angles (rad), (T, 6).

    Raises:
        LogError: the angles are not in rad.
    """
    angles = values[:, 3:]
    if np.abs(angles).max() > 2 * np.pi:
        raise LogError(f"{where} has angles up to {np.abs(angles).max():.4g}: not in rad")
    return np.concatenate([values[:, :3], Rotation.from_euler("xyz", angles).as_quat()], axis=1)


def check_rows(group: h5py.Group, name: str) -> None:
    """Check that dataset ``name`` of ``group`` has enough rows for a demonstration.

    Raises:
        LogError: it has fewer than 2.
    """
    dataset = group.get(name)
    if isinstance(dataset, h5py.Dataset) and dataset.shape and dataset.shape[0] < 2:
        raise LogError(f"{dataset.name} has {dataset.shape[0]} rows; a demonstration needs at least 2")


def clock(stamps: Array, where: str) -> tuple[Array, str]:
    """Convert time stamps (T,) in s, ms, us or ns to seconds (T,) from 0; also return the unit.

    Raises:
        LogError: the time stamps do not increase, or fit no unit.
    """
    steps = np.diff(stamps)
    if (steps <= 0.0).any():
        raise LogError(f"{where} does not increase after row {int((steps <= 0.0).argmax())}")
    for unit, seconds in _UNITS.items():
        if _RATES[0] <= 1.0 / (np.median(steps) * seconds) <= _RATES[1]:
            return (stamps - stamps[0]) * seconds, unit
    raise LogError(f"{where} has steps of {np.median(steps):.3g}: no plausible rate in {', '.join(_UNITS)}")


def rate_attribute(file: h5py.File) -> tuple[float, str] | None:
    """Rows per second, and the name of the file's attribute that gives it; ``None`` if there is none.

    Raises:
        LogError: the rate is implausible.
    """
    for name in ("fps", "hz", "frequency", "control_freq", "control_frequency", "rate"):
        value = number(file, name)
        if value is not None:
            if not _RATES[0] <= value <= _RATES[1]:
                raise LogError(f"the attribute {name!r} is {value:g}: not a plausible rate of teleoperation in Hz")
            return value, name
    return None


def find_lag(target: Array, measured: Array) -> tuple[int, float] | None:
    """Lag in rows from command to measurement, and the remaining distance (m, RMS); ``None`` without motion.

    The lag is the shift of up to ``LAGS`` rows that best aligns positions ``target`` (T, 3) with ``measured`` (T, 3) in
    the least-squares sense, up to a constant offset.
    """
    longest = min(LAGS, (len(target) - 1) // 2)
    rows = len(target) - longest
    if longest < 1 or np.ptp(measured, axis=0).max() < _MOVING:
        return None
    errors = np.empty(longest + 1)
    for shift in range(longest + 1):
        difference = measured[shift : shift + rows] - target[:rows]
        errors[shift] = ((difference - difference.mean(axis=0)) ** 2).sum(axis=1).mean()
    return int(errors.argmin()), float(np.sqrt(errors.min()))


def follow(
    target: Array, tcp: Array, source: str, rate: float, farthest: float, facts: list[str], assumptions: list[str]
) -> tuple[Array | None, float]:
    """Commanded poses ``target`` (T, 7) if the measured ones follow them, else ``None``; and the lag in seconds.

    Args:
        target: commanded poses, read from the dataset ``source``.
        tcp: measured poses (T, 7).
        source: name for the sentences that are added to ``facts`` and ``assumptions``.
        rate: rows per second.
        farthest: maximum metres between the two, after removing the lag.
    """
    found = find_lag(target[:, :3], tcp[:, :3])
    shift = found[0] if found else 0
    away = np.linalg.norm(target[: len(tcp) - shift, :3] - tcp[shift:, :3], axis=1)
    distance = float(np.median(away))
    if distance > farthest:
        assumptions.append(
            f"The measured poses stand for {source}, which lies {1000 * distance:.0f} mm from them: it is relative, or "
            "in another frame."
        )
        return None, 0.0
    if found is None:
        assumptions.append("The arm hardly moves: the lag from command to measurement is assumed to be 0.")
    else:
        facts.append(
            f"The arm follows {source} by {shift} rows ({shift / rate:.2f} s), found by least squares; "
            f"{1000 * found[1]:.1f} mm remain."
        )
    return target, shift / rate


def top_speed(positions: Array, time: Array) -> float:
    """Maximum speed of positions (T, 3) between rows, m/s."""
    return float((np.linalg.norm(np.diff(positions, axis=0), axis=1) / np.diff(time)).max())
