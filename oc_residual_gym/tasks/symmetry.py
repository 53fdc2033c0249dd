"""Symmetry groups: the rotations of an object after which it looks the same.

A tracker may report a symmetric object in any pose that looks the same: equivalent poses. Whatever compares or reads
rotations of objects asks this module, so that equivalent poses mean the same everywhere. If ``g`` is in an object's
group, orientations ``q`` and ``q * g`` are equivalent. Quaternions are unit, xyzw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.compiled import njit
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.geometry import IDENTITY_QUATERNION, multiply_one, norm, quat_multiply, rotation_between
from oc_residual_gym.states import Array

TOLERANCE = 1e-5
"""Radians within which rotations count as equal when a group is checked."""


def angle_between(a: Array, b: Array, symmetry: str | Symmetry) -> Array:
    """Smallest angle in radians between ``a`` and any equivalent of ``b``: 0 if they look the same.

    Args:
        a, b: orientations (..., 4), broadcast against each other.
        symmetry: the object's symmetry, by name or as a group.

    Returns:
        Angles (...,) in [0, pi].

    Raises:
        SettingsError: there is no symmetry of that name; the message lists the known ones.
    """
    nearest = nearest_equivalent(b, a, symmetry)
    return norm(rotation_between(np.broadcast_to(a, nearest.shape), nearest))


def nearest_equivalent(quat: Array, reference: Array, symmetry: str | Symmetry) -> Array:
    """The equivalents (..., 4) of orientations ``quat`` that are nearest to ``reference``.

    Args:
        quat, reference: orientations (..., 4), broadcast against each other.
        symmetry: the object's symmetry, by name or as a group.

    Raises:
        SettingsError: there is no symmetry of that name; the message lists the known ones.
    """
    turns = nearest_turn(quat, reference, symmetry)
    return quat_multiply(np.broadcast_to(quat, turns.shape), turns)


def canonical(quat: Array, symmetry: str | Symmetry) -> Array:
    """The equivalents (..., 4) of orientations ``quat`` that are nearest to the identity.

    It is the same for all equivalent orientations, unless two equivalents are equally near, as for a cube that is
    turned by 45 degrees.

    Raises:
        SettingsError: there is no symmetry of that name; the message lists the known ones.
    """
    return nearest_equivalent(quat, IDENTITY_QUATERNION, symmetry)


def nearest_turn(quat: Array, reference: Array, symmetry: str | Symmetry) -> Array:
    """The members ``g`` (..., 4) of the group with which ``quat * g`` is the equivalent nearest to ``reference``.

    See :func:`nearest_equivalent`.
    """
    (turns,), (axis,) = stacked([symmetry])
    quats, references = (np.array(q, float) for q in np.broadcast_arrays(quat, reference))
    result = np.empty(quats.shape)
    _nearest_turns(quats.reshape(-1, 4), references.reshape(-1, 4), turns, axis, result.reshape(-1, 4))
    return result


@dataclass(frozen=True)
class Symmetry:
    """A group of rotations in the object's own frame: finitely many turns, each followed by any turn about an axis.

    Raises:
        SettingsError: the rotations are not a group.
    """

    turns: tuple[tuple[float, float, float, float], ...] = ((0.0, 0.0, 0.0, 1.0),)
    """Quaternions xyzw, with the identity first. ``scipy``'s ``Rotation.create_group`` makes the usual ones."""
    axis: tuple[float, float, float] | None = None
    """Unit vector about which the object looks the same after any turn; ``None`` if there is none."""

    def __post_init__(self) -> None:
        turns = np.array(self.turns, float)
        if turns.ndim != 2 or turns.shape[1] != 4 or np.abs(np.linalg.norm(turns, axis=1) - 1.0).max() > TOLERANCE:
            raise SettingsError("the turns of a symmetry are not unit quaternions xyzw")
        if np.abs(turns[0] - IDENTITY_QUATERNION).max() > TOLERANCE:
            raise SettingsError(f"the first turn of a symmetry is {self.turns[0]}, not the identity (0, 0, 0, 1)")
        rotations = Rotation.from_quat(turns)
        if self.axis is not None:
            if np.shape(self.axis) != (3,) or abs(np.linalg.norm(self.axis) - 1.0) > TOLERANCE:
                raise SettingsError(f"the axis of a symmetry is {self.axis}: it must be a unit vector (x, y, z)")
            if np.linalg.norm(np.cross(rotations.apply(self.axis), self.axis), axis=1).max() > TOLERANCE:
                raise SettingsError("a turn of a symmetry tilts the axis about which any turn looks the same")
        products = np.concatenate([(first * rotations).as_quat() for first in rotations])
        left = np.stack([(turn.inv() * Rotation.from_quat(products)).as_quat() for turn in rotations])
        along = left[..., :3] @ (self.axis or np.zeros(3))
        # Squared cosine of half the angle between each turn and each product, up to a turn about the axis.
        foreign = (left[..., 3] ** 2 + along**2).max(axis=0) < np.cos(TOLERANCE / 2) ** 2 - 1e-12
        if foreign.any():
            raise SettingsError(
                f"the turns of a symmetry are not a group: two of them in a row make "
                f"{np.round(products[foreign][0], 4).tolist()}, which is not among them"
            )

    def members(self, steps: int = 8) -> Array:
        """Rotations (M, 4) of the group: all if it is finite, otherwise ``steps`` turns about the axis of each."""
        turns = Rotation.from_quat(self.turns)
        if self.axis is None:
            return turns.as_quat()
        spins = Rotation.from_rotvec(np.outer(np.arange(steps) * 2.0 * np.pi / steps, self.axis))
        return np.concatenate([(turn * spins).as_quat() for turn in turns])


def _group(name: str, along: str = "Z", axis: tuple[float, float, float] | None = None) -> Symmetry:
    turns = Rotation.create_group(name, along).as_quat()
    turns = turns[np.argsort(-np.abs(turns[:, 3]), kind="stable")]  # the identity comes first
    turns = np.where(np.abs(turns) < TOLERANCE, 0.0, turns * np.where(turns[:, 3:] < 0.0, -1.0, 1.0))
    return Symmetry(tuple((float(x), float(y), float(z), float(w)) for x, y, z, w in turns), axis)


SYMMETRIES = {
    "none": Symmetry(),
    # Turns about z only: the object has a top and a bottom.
    "yaw_180": _group("C2"),
    "yaw_90": _group("C4"),
    "axis_z": Symmetry(axis=(0.0, 0.0, 1.0)),
    # Solids.
    "box": _group("D2"),
    "bar": _group("D4", "X"),
    "cube": _group("O"),
    "cylinder": Symmetry(((0.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, 0.0)), (0.0, 0.0, 1.0)),
}
"""Symmetries by name. "none"; about z only: half turns ("yaw_180"), quarter turns ("yaw_90") or any turn ("axis_z",
such as a cup); of solids: a "box" with three different sides (4 rotations), a "bar" with a square section along x (8),
a "cube" (24), and a "cylinder" along z (any turn, and end over end)."""


def symmetry_of(symmetry: str | Symmetry) -> Symmetry:
    """The symmetry named ``symmetry``, or ``symmetry`` itself if it is a group.

    Raises:
        SettingsError: there is no symmetry of that name; the message lists the known ones.
    """
    if isinstance(symmetry, Symmetry):
        return symmetry
    return SYMMETRIES[one_of("object symmetry", symmetry, SYMMETRIES)]


def stacked(symmetries: Sequence[str | Symmetry]) -> tuple[Array, Array]:
    """The symmetries of K objects for compiled code: turns (K, G, 4), padded with the identity, and axes (K, 3), zero
    where there is none.

    Raises:
        SettingsError: there is no symmetry of that name; the message lists the known ones.
    """
    groups = [symmetry_of(symmetry) for symmetry in symmetries]
    turns = np.tile(IDENTITY_QUATERNION, (len(groups), max((len(g.turns) for g in groups), default=1), 1))
    axes = np.zeros((len(groups), 3))
    for k, group in enumerate(groups):
        turns[k, : len(group.turns)] = group.turns
        if group.axis is not None:
            axes[k] = group.axis
    return turns, axes


@njit()
def nearest_turn_one(relative: Array, turns: Array, axis: Array) -> tuple[float, float, float, float]:
    """The member of the group ``turns`` (G, 4) and ``axis`` (3,) that turns ``relative`` (4,) nearest to the identity.

    Of equally near ones, the first.
    """
    x, y, z, w = relative[0], relative[1], relative[2], relative[3]
    best, chosen = -1.0, 0
    for g in range(len(turns)):
        turned = multiply_one(relative, turns[g])
        along = turned[0] * axis[0] + turned[1] * axis[1] + turned[2] * axis[2]
        # Squared cosine of half the angle that is left once the turn about the axis is undone.
        likeness = turned[3] * turned[3] + along * along
        if likeness > best + 1e-12:
            best, chosen = likeness, g
            x, y, z, w = turned
    turn = turns[chosen]
    if axis[0] == 0.0 and axis[1] == 0.0 and axis[2] == 0.0:
        return turn[0], turn[1], turn[2], turn[3]
    half = math.atan2(x * axis[0] + y * axis[1] + z * axis[2], w)
    sine = -math.sin(half)
    return multiply_one(turn, np.array([sine * axis[0], sine * axis[1], sine * axis[2], math.cos(half)]))


@njit("void(float64[:,:],float64[:,:],float64[:,:],float64[:],float64[:,:])")
def _nearest_turns(quats: Array, references: Array, turns: Array, axis: Array, out: Array) -> None:
    """Write the members that turn ``quats`` (n, 4) nearest to ``references`` (n, 4) into ``out`` (n, 4)."""
    inverse, relative = np.empty(4), np.empty(4)
    for n in range(len(quats)):
        reference = references[n]
        inverse[0], inverse[1], inverse[2], inverse[3] = -reference[0], -reference[1], -reference[2], reference[3]
        relative[0], relative[1], relative[2], relative[3] = multiply_one(inverse, quats[n])
        out[n, 0], out[n, 1], out[n, 2], out[n, 3] = nearest_turn_one(relative, turns, axis)
