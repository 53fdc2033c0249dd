"""Infer the meaning of unlabelled columns of a Franka arm's log from their values.

A gripper is always the last column. Before it,

- seven columns are a position and a quaternion if the last four have length 1 in every row, else seven joint angles if
  all lie in a Franka arm's range;
- six are a position and extrinsic xyz Euler angles, if the position is in front of the robot and within its reach.

Everything else is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.log import LogError
from demos_replay.readers.arms import check_joints, check_reach, poses_from_euler
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.states import Array, BoolArray

UNIT = 0.02
"""Maximum deviation from length 1 of a stored unit quaternion."""
IN_FRONT = 0.1
"""Minimum x in metres (base frame) of a tool that works on a table; this package's workspace starts at 0.2 m."""
CLEARER = 0.2
"""Minimum difference between the downward cosines of two quaternion orders for choosing by them."""
DRIFT = 0.05
"""Fraction of the gripper's range by which measurements may exceed it."""
MOVED = 0.2
"""Minimum motion of fingers that open or close, as a fraction of the gripper's range."""

FRAME = "Stored poses are those of a Franka Hand's TCP, 103.4 mm from the flange, in the robot's base frame."
HAND = "The gripper is a Franka Hand, its TCP 103.4 mm from the flange."


@dataclass(frozen=True)
class Columns:
    """An arm's motion in T rows."""

    meaning: str
    tcp: Array
    """(T, 7) poses in the base frame."""
    joints: Array | None
    """(T, 7) rad, if joint positions were stored."""
    assumptions: tuple[str, ...]


def check_width(values: Array, where: str) -> None:
    """Check that ``values`` (T, n) have 7 or 8 columns.

    Raises:
        LogError: they do not.
    """
    width = values.shape[1]
    if width in (14, 16):
        raise LogError(f"{where} is {width} wide: two arms (as of ALOHA), not one Franka arm")
    if width not in (7, 8):
        raise LogError(
            f"{where} is {width} wide, which is no known layout; expected 8 (seven joints, or position and quaternion, "
            "and gripper) or 7 (position, Euler angles, gripper)"
        )


def understand(values: Array, where: str) -> Columns:
    """Interpret ``values`` (T, 7 or 8) of the dataset at ``where``.

    Raises:
        LogError: they cannot be replayed.
    """
    check_width(values, where)
    if values.shape[1] == 7:
        return _euler(values, where)
    lengths = np.linalg.norm(np.clip(values[:, 3:7], -1e3, 1e3), axis=1)
    if (np.abs(lengths - 1.0) < UNIT).all():
        return _quaternion(values, where)
    try:
        check_joints(values[:, :7], where)
    except LogError as error:
        raise LogError(
            f"{where} is neither a pose (columns 4 to 7 have lengths of {lengths.min():.3g} to {lengths.max():.3g}, "
            f"and a quaternion's is 1) nor joint positions ({error})"
        ) from error
    meaning = f"{where} is seven joint positions in rad and the gripper: all lie in a Franka arm's range."
    return Columns(meaning, forward_kinematics(values[:, :7]), values[:, :7], (HAND,))


def _quaternion(values: Array, where: str) -> Columns:
    check_reach(values[:, :3], where)
    stored = values[:, 3:7]
    orders = {"xyzw": stored, "wxyz": np.roll(stored, -1, axis=1)}
    # At a table the tool points down. If both orders give that, choose the one with the hand's x axis forward.
    axes = {order: Rotation.from_quat(quat).as_matrix().mean(axis=0) for order, quat in orders.items()}
    down = {order: -matrix[2, 2] for order, matrix in axes.items()}
    forward = {order: matrix[0, 0] for order, matrix in axes.items()}
    better = down if abs(down["wxyz"] - down["xyzw"]) > CLEARER else forward
    order = "wxyz" if better["wxyz"] > better["xyzw"] else "xyzw"
    quaternions = orders[order] / np.linalg.norm(stored, axis=1, keepdims=True)
    assumption = (
        f"The quaternion of {where} is ordered {order}, because the tool then points down, or its x axis forward: "
        + ", ".join(f"{key} gives cosines of {down[key]:.2f} and {forward[key]:.2f}" for key in orders)
        + "."
    )
    meaning = (
        f"{where} is a position in metres, a quaternion and the gripper: columns 4 to 7 have length 1 in every row."
    )
    tcp = np.concatenate([values[:, :3], quaternions], axis=1)
    return Columns(meaning, tcp, None, (assumption, FRAME))


def _euler(values: Array, where: str) -> Columns:
    try:
        check_reach(values[:, :3], where)
        tcp = poses_from_euler(values[:, :6], where)
    except LogError as error:
        raise LogError(f"{where} is 7 wide, but not position, Euler angles and gripper: {error}") from error
    ahead = float(np.median(values[:, 0]))
    if ahead < IN_FRONT:
        raise LogError(
            f"{where} is 7 wide, but not position, Euler angles and gripper: the position would be at x = {ahead:.3g}"
            " m, not in front of the robot. Seven joints without a gripper, or relative motions, cannot be replayed"
        )
    assumption = f"The angles of {where} are extrinsic xyz Euler angles (roll, pitch, yaw) in rad."
    meaning = (
        f"{where} is a position in metres, three angles and the gripper: it lies in front of the robot, within reach."
    )
    return Columns(meaning, tcp, None, (assumption, FRAME))


@dataclass(frozen=True)
class Fingers:
    """Gripper openings read from one column."""

    opening: Array
    """(T,) distance between the fingers as a fraction of a Franka Hand's 80 mm."""
    more_is_open: bool
    """True if a greater value in the column is more open."""
    assumptions: tuple[str, ...]

    @property
    def move(self) -> bool:
        """Whether the fingers open or close at all."""
        return bool(np.ptp(self.opening) > MOVED)

    @property
    def closed(self) -> BoolArray:
        """(T,) True below the middle of the measured range, or below 0.5 if the fingers do not move."""
        return self.opening < (0.5 * (self.opening.min() + self.opening.max()) if self.move else 0.5)


# Unit, greatest value, and its fraction of 80 mm; then relative ranges: unit, least and greatest value. In both, the
# first that fits is used.
_METRIC = (("metres moved by each finger", 0.04, 1.0), ("metres between the fingers", 0.085, 0.085 / MAX_OPENING))
_RELATIVE = (("from 0 to 1", 0.0, 1.0), ("from -1 to 1", -1.0, 1.0), ("from 0 to 255", 0.0, 255.0))


def fingers(values: Array, where: str, more_is_open: bool | None = None) -> Fingers:
    """Interpret the gripper column ``values`` (T,) of the dataset at ``where``, with ``more_is_open`` if known.

    Raises:
        LogError: the values fit no unit.
    """
    low, high = float(values.min()), float(values.max())
    found = f"The gripper in {where} goes from {low:.4g} to {high:.4g}"
    for unit, most, share in _METRIC if high > low else ():
        if _within(low, high, 0.0, most):
            return Fingers(np.clip(values / most, 0.0, 1.0) * share, True, (f"{found}: taken for {unit}.",))
    fitting = [(unit, least, most) for unit, least, most in _RELATIVE if _within(low, high, least, most)]
    if not fitting:
        raise LogError(f"the gripper, last column of {where}, goes from {low:.4g} to {high:.4g}: no known unit")
    unit, least, most = fitting[0]
    shares = np.clip((values - least) / (most - least), 0.0, 1.0)
    assumptions = [f"{found}: taken for shares {unit} of {1000 * MAX_OPENING:.0f} mm."]
    if more_is_open is None:
        more_is_open, reason = _polarity(shares)
        assumptions.append(f"The greater value of it is {'open' if more_is_open else 'closed'}: {reason}.")
    return Fingers(shares if more_is_open else 1.0 - shares, more_is_open, tuple(assumptions))


def _within(low: float, high: float, least: float, most: float) -> bool:
    """Whether values from ``low`` to ``high`` fit the range from ``least`` to ``most``, with some drift allowed."""
    drift = min(DRIFT * (most - least), 0.1)
    return least - drift <= low and high <= most + drift


def _polarity(shares: Array) -> tuple[bool, str]:
    """Whether a greater value is more open, and the reason."""
    low, high = shares.min(), shares.max()
    start = float(np.median(shares[:5]))
    if high - low > MOVED and abs(start - 0.5 * (low + high)) > 0.15 * (high - low):
        return start > 0.5 * (low + high), "demonstrations start with open fingers"
    return True, "as ALOHA has it, because the fingers hardly move, or start half open"
