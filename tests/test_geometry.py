"""Rotations and poses agree with SciPy, and do not depend on how many of them are computed at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym import geometry
from oc_residual_gym.states import Array

WORLDS = 64


def rotations(seed: int) -> Rotation:
    """Random rotations, the hard cases first: none, hardly any, nearly half a turn, exactly half a turn."""
    hard = [[0, 0, 0], [1e-13, 0, 0], [0, 1e-7, 0], [0, 0, np.pi - 1e-9], [np.pi, 0, 0]]
    random = Rotation.random(WORLDS - len(hard), random_state=seed)
    return Rotation.concatenate([Rotation.from_rotvec(hard), random])


def vectors(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((WORLDS, 3))


def poses(seed: int) -> Array:
    return np.concatenate([vectors(seed), rotations(seed).as_quat()], axis=1)


def assert_same_rotation(quats: Array, expected: Rotation) -> None:
    np.testing.assert_allclose(np.linalg.norm(quats, axis=-1), 1.0, atol=1e-12)
    difference = Rotation.from_quat(quats) * expected.inv()
    np.testing.assert_allclose(difference.magnitude(), 0.0, atol=1e-12)


def test_quaternion_product_and_inverse() -> None:
    a, b = rotations(0), rotations(1)
    assert_same_rotation(geometry.quat_multiply(a.as_quat(), b.as_quat()), a * b)
    assert_same_rotation(geometry.quat_conjugate(a.as_quat()), a.inv())


def test_normalize_keeps_the_direction() -> None:
    quats = rotations(0).as_quat()
    np.testing.assert_allclose(geometry.quat_normalize(3.7 * quats), quats, atol=1e-15)


def test_rotate_and_its_inverse() -> None:
    rotation, v = rotations(0), vectors(1)
    np.testing.assert_allclose(geometry.rotate(rotation.as_quat(), v), rotation.apply(v), atol=1e-12)
    np.testing.assert_allclose(geometry.rotate_inverse(rotation.as_quat(), v), rotation.inv().apply(v), atol=1e-12)


def test_matrix_and_six_numbers() -> None:
    rotation = rotations(0)
    matrix = rotation.as_matrix()
    np.testing.assert_allclose(geometry.matrix_from_quat(rotation.as_quat()), matrix, atol=1e-12)
    first_two_columns = np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)
    for quat, expected in zip(rotation.as_quat(), first_two_columns, strict=True):
        six = np.empty(6)
        geometry.rot6d_one(quat, six)
        np.testing.assert_allclose(six, expected, atol=1e-12)


def test_rotation_vectors_both_ways() -> None:
    rotation = rotations(0)
    assert_same_rotation(geometry.quat_from_rotvec(rotation.as_rotvec()), rotation)
    rotvec = geometry.rotvec_from_quat(rotation.as_quat())
    assert_same_rotation(Rotation.from_rotvec(rotvec).as_quat(), rotation)
    assert np.all(geometry.norm(rotvec) <= np.pi + 1e-12)
    small = np.array([[1e-9, -2e-9, 3e-9]])
    np.testing.assert_allclose(geometry.rotvec_from_quat(geometry.quat_from_rotvec(small)), small, rtol=1e-9)


def test_rotation_vector_ignores_the_sign_of_the_quaternion() -> None:
    quats = Rotation.random(20, random_state=3).as_quat()
    np.testing.assert_allclose(geometry.rotvec_from_quat(-quats), geometry.rotvec_from_quat(quats), atol=1e-12)


def test_rotation_between_is_in_the_first_frame() -> None:
    a, b = rotations(0), rotations(1)
    turn = geometry.rotation_between(a.as_quat(), b.as_quat())
    assert_same_rotation((a * Rotation.from_rotvec(turn)).as_quat(), b)


def test_pose_composition_and_its_inverse() -> None:
    a, b = poses(0), poses(1)
    rotation_a, rotation_b = Rotation.from_quat(a[:, 3:]), Rotation.from_quat(b[:, 3:])
    product = geometry.pose_multiply(a, b)
    np.testing.assert_allclose(product[:, :3], a[:, :3] + rotation_a.apply(b[:, :3]), atol=1e-12)
    assert_same_rotation(product[:, 3:], rotation_a * rotation_b)
    relative = geometry.pose_relative(a, product)
    np.testing.assert_allclose(relative[:, :3], b[:, :3], atol=1e-12)
    assert_same_rotation(relative[:, 3:], rotation_b)


def test_clip_norm_shortens_only_what_is_too_long() -> None:
    v = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(geometry.clip_norm(v, 1.0), [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], atol=1e-15)


QUATERNIONS = rotations(0).as_quat(), rotations(1).as_quat()
ARGUMENTS: dict[Callable[..., Array], tuple[Array, ...]] = {
    geometry.quat_multiply: QUATERNIONS,
    geometry.quat_conjugate: QUATERNIONS[:1],
    geometry.quat_normalize: (2.0 * QUATERNIONS[0],),
    geometry.norm: (vectors(0),),
    geometry.matrix_from_quat: QUATERNIONS[:1],
    geometry.rotate: (QUATERNIONS[0], vectors(1)),
    geometry.rotate_inverse: (QUATERNIONS[0], vectors(1)),
    geometry.quat_from_rotvec: (vectors(0),),
    geometry.rotvec_from_quat: QUATERNIONS[:1],
    geometry.rotation_between: QUATERNIONS,
    geometry.pose_multiply: (poses(0), poses(1)),
    geometry.pose_relative: (poses(0), poses(1)),
    geometry.clip_norm: (vectors(0), 0.5 * np.ones(())),
}


@pytest.mark.parametrize("function", ARGUMENTS, ids=lambda function: function.__name__)
def test_bit_identical_for_any_number(function: Callable[..., Array]) -> None:
    arguments = ARGUMENTS[function]
    together = function(*arguments)
    for size in (1, 2, 7):
        for start in range(0, WORLDS - size + 1):
            rows = slice(start, start + size)
            alone = function(*(a[rows] if a.ndim else a for a in arguments))
            np.testing.assert_array_equal(alone, together[rows], strict=True)
    # One more batch axis, as of the objects in a world.
    stacked = function(*(np.stack([a, a], axis=1) if a.ndim else a for a in arguments))
    np.testing.assert_array_equal(stacked[:, 1], together)
