"""Symmetry groups: their sizes, closure, and that the nearest equivalent is the nearest."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.tasks.symmetry import SYMMETRIES, Symmetry, angle_between, canonical, nearest_equivalent

SIZES = {"none": 1, "yaw_180": 2, "yaw_90": 4, "box": 4, "bar": 8, "cube": 24}
ROUND = {"axis_z": 1, "cylinder": 2}
"""Symmetries with an axis, and how many directions of the axis look alike."""
STEPS = 360
IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])


def rotations(count: int, seed: int = 0) -> Rotation:
    return Rotation.random(count, random_state=seed)


def test_every_symmetry_is_counted_here() -> None:
    assert SIZES.keys() | ROUND.keys() == SYMMETRIES.keys()


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_a_finite_group_has_its_number_of_different_rotations(name: str, size: int) -> None:
    members = SYMMETRIES[name].members()
    assert members.shape == (size, 4)
    alike = np.abs(members @ members.T) > 1.0 - 1e-9
    np.testing.assert_array_equal(alike, np.eye(size, dtype=bool))


@pytest.mark.parametrize(("name", "directions"), ROUND.items())
def test_a_round_object_looks_the_same_after_any_turn(name: str, directions: int) -> None:
    members = Rotation.from_quat(SYMMETRIES[name].members(STEPS))
    assert len(members) == directions * STEPS
    axes = members.apply([0.0, 0.0, 1.0])
    assert len(np.unique(np.round(axes, 9), axis=0)) == directions
    np.testing.assert_allclose(np.abs(axes[:, 2]), 1.0, atol=1e-12)


@pytest.mark.parametrize("name", SYMMETRIES)
def test_products_and_inverses_of_members_are_members(name: str) -> None:
    group = SYMMETRIES[name]
    members = Rotation.from_quat(group.members(steps=5))
    for member in members:
        np.testing.assert_allclose(angle_between(IDENTITY, (member * members).as_quat(), group), 0.0, atol=1e-7)
    np.testing.assert_allclose(angle_between(IDENTITY, members.inv().as_quat(), group), 0.0, atol=1e-7)


@pytest.mark.parametrize("name", SYMMETRIES)
def test_the_nearest_equivalent_is_the_nearest_of_all(name: str) -> None:
    quats, references = rotations(50), rotations(50, seed=1)
    members = Rotation.from_quat(SYMMETRIES[name].members(STEPS))
    nearest = nearest_equivalent(quats.as_quat(), references.as_quat(), name)
    angles = angle_between(references.as_quat(), quats.as_quat(), name)
    for quat, reference, found, angle in zip(quats, references, Rotation.from_quat(nearest), angles, strict=True):
        equivalents = quat * members
        # An equivalent, to within half of the steps in which round ones are listed.
        assert (found.inv() * equivalents).magnitude().min() <= np.pi / STEPS + 1e-9
        assert (reference.inv() * found).magnitude() == pytest.approx(angle, abs=1e-9)
        smallest = (reference.inv() * equivalents).magnitude().min()
        assert smallest - np.pi / STEPS - 1e-9 <= angle <= smallest + 1e-9


@pytest.mark.parametrize("name", SYMMETRIES)
def test_equivalents_have_one_canonical_orientation_and_no_angle_between_them(name: str) -> None:
    for quat in rotations(20):
        alike = (quat * Rotation.from_quat(SYMMETRIES[name].members())).as_quat()
        alike *= np.where(np.arange(len(alike)) % 2, 1.0, -1.0)[:, None]  # both signs mean the same rotation
        np.testing.assert_allclose(angle_between(quat.as_quat(), alike, name), 0.0, atol=1e-7)
        chosen = Rotation.from_quat(canonical(alike, name))
        np.testing.assert_allclose((chosen[0].inv() * chosen).magnitude(), 0.0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "turn", "degrees"),
    [
        ("none", [0, 0, 90], 90),
        ("yaw_180", [0, 0, 180], 0),
        ("yaw_180", [180, 0, 0], 180),
        ("axis_z", [0, 0, 77], 0),
        ("axis_z", [90, 0, 0], 90),
        ("box", [180, 0, 0], 0),
        ("box", [0, 0, 90], 90),
        ("bar", [90, 0, 0], 0),
        ("bar", [0, 180, 0], 0),
        ("bar", [0, 90, 0], 90),
        ("bar", [0, 170, 0], 10),
        ("cube", [0, 90, 0], 0),
        ("cube", [45, 0, 0], 45),
        ("cylinder", [180, 0, 30], 0),
        ("cylinder", [150, 0, 0], 30),
    ],
)
def test_angle_up_to_symmetry(name: str, turn: list[float], degrees: float) -> None:
    a = rotations(1)[0]
    b = a * Rotation.from_euler("xyz", turn, degrees=True)
    assert np.degrees(angle_between(a.as_quat(), b.as_quat(), name)) == pytest.approx(degrees, abs=1e-6)


def test_one_orientation_is_compared_with_many() -> None:
    quats = rotations(6).as_quat().reshape(2, 3, 4)
    angles = angle_between(IDENTITY, quats, "bar")
    assert angles.shape == (2, 3)
    assert angles[1, 2] == angle_between(IDENTITY, quats[1, 2], "bar")
    assert nearest_equivalent(quats, quats[0, 0], "bar").shape == (2, 3, 4)


def test_a_group_of_ones_own() -> None:
    """A hexagonal prism along x, and a rod of any shape that is round about the diagonal."""
    prism = Symmetry(tuple(map(tuple, Rotation.create_group("D6", "X").as_quat())))
    assert angle_between(IDENTITY, Rotation.from_euler("x", 60, degrees=True).as_quat(), prism) < 1e-6
    diagonal = (0.6, 0.8, 0.0)
    rod = Symmetry(axis=diagonal)
    assert angle_between(IDENTITY, Rotation.from_rotvec(2.0 * np.array(diagonal)).as_quat(), rod) < 1e-6


@pytest.mark.parametrize(
    ("turns", "axis", "message"),
    [
        (((0, 0, 0, 1), (0, 0, np.sin(0.5), np.cos(0.5))), None, "not a group"),
        (((1, 0, 0, 0), (0, 0, 0, 1)), None, "not the identity"),
        (((0, 0, 0, 1), (0, 0, 2, 0)), None, "unit quaternions"),
        (((0, 0, 0, 1, 0),), None, "unit quaternions"),
        (((0, 0, 0, 1),), (0, 0, 2), "unit vector"),
        (((0, 0, 0, 1), (0, 0.5**0.5, 0, 0.5**0.5)), (0, 0, 1), "tilts the axis"),
    ],
)
def test_what_is_not_a_group_is_refused(turns: tuple, axis: tuple | None, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Symmetry(turns, axis)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"'round'.*none, yaw_180, .*cube, cylinder"):
        canonical(IDENTITY, "round")
