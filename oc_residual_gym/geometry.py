"""Rotations and poses over any batch shape, bit-identical for any batch size.

Quaternions are unit, ordered xyzw, float64; poses are ``(..., 7)``: position in metres, then quaternion.
Only elementwise operations and ``einsum`` are used: matrix products (and ``scipy``'s ``Rotation.apply``) round
differently for different batch sizes, which would make a world depend on how many neighbours it has.
Code that is not run at every control step uses ``scipy.spatial.transform.Rotation`` instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

IDENTITY_QUATERNION = np.array([0.0, 0.0, 0.0, 1.0])

# Left-multiplication matrix of a quaternion: L(a)[i, j] = _LEFT_SIGN[i, j] * a[_LEFT_INDEX[i, j]], a * b = L(a) b.
_LEFT_INDEX = np.array([[3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2], [0, 1, 2, 3]])
_LEFT_SIGN = np.array([[1.0, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, 1], [-1, -1, -1, 1]])
_CONJUGATE = np.array([-1.0, -1.0, -1.0, 1.0])


def _rotation_matrix_coefficients() -> Array:
    """Coefficients C with R.ravel() = outer(q, q).ravel() @ C for a unit quaternion q (xyzw)."""
    x, y, z, w = range(4)
    terms = {
        (0, 0): [(1, x, x), (-1, y, y), (-1, z, z), (1, w, w)],
        (1, 1): [(-1, x, x), (1, y, y), (-1, z, z), (1, w, w)],
        (2, 2): [(-1, x, x), (-1, y, y), (1, z, z), (1, w, w)],
        (0, 1): [(2, x, y), (-2, z, w)],
        (1, 0): [(2, x, y), (2, z, w)],
        (0, 2): [(2, x, z), (2, y, w)],
        (2, 0): [(2, x, z), (-2, y, w)],
        (1, 2): [(2, y, z), (-2, x, w)],
        (2, 1): [(2, y, z), (2, x, w)],
    }
    coefficients = np.zeros((16, 9))
    for (row, column), products in terms.items():
        for factor, i, j in products:
            coefficients[4 * i + j, 3 * row + column] = factor
    return coefficients


_MATRIX_COEFFICIENTS = _rotation_matrix_coefficients()


def quat_multiply(a: Array, b: Array) -> Array:
    """Product of quaternions ``(..., 4)``: the rotation ``b`` first, then ``a``."""
    return np.einsum("...ij,...j->...i", left_matrix(a), b)


def left_matrix(q: Array) -> Array:
    """Matrices ``(..., 4, 4)`` that multiply quaternions by ``q`` from the left."""
    left = q.take(_LEFT_INDEX, axis=-1)
    left *= _LEFT_SIGN
    return left


def quat_conjugate(q: Array) -> Array:
    """Inverse of unit quaternions ``(..., 4)``."""
    return q * _CONJUGATE


def quat_normalize(q: Array) -> Array:
    """Quaternions ``(..., 4)`` scaled to unit length."""
    return q / np.sqrt(np.einsum("...i,...i->...", q, q))[..., None]


def norm(v: Array) -> Array:
    """Euclidean length over the last axis."""
    return np.sqrt(np.einsum("...i,...i->...", v, v))


def matrix_from_quat(q: Array) -> Array:
    """Rotation matrices ``(..., 3, 3)`` of unit quaternions ``(..., 4)``."""
    outer = (q[..., :, None] * q[..., None, :]).reshape(*q.shape[:-1], 16)
    return np.einsum("...i,ij->...j", outer, _MATRIX_COEFFICIENTS).reshape(*q.shape[:-1], 3, 3)


def rotate(q: Array, v: Array) -> Array:
    """Vectors ``(..., 3)`` rotated by unit quaternions ``(..., 4)``."""
    return np.einsum("...ij,...j->...i", matrix_from_quat(q), v)


def rotate_inverse(q: Array, v: Array) -> Array:
    """Vectors ``(..., 3)`` rotated by the inverses of unit quaternions ``(..., 4)``."""
    return np.einsum("...ji,...j->...i", matrix_from_quat(q), v)


def quat_from_rotvec(rotvec: Array) -> Array:
    """Quaternions ``(..., 4)`` of rotation vectors ``(..., 3)`` in radians."""
    half = np.maximum(0.5 * norm(rotvec), 1e-12)
    quat = np.empty((*rotvec.shape[:-1], 4))
    quat[..., :3] = rotvec * (0.5 * np.sin(half) / half)[..., None]
    quat[..., 3] = np.cos(half)
    return quat


def rotvec_from_quat(q: Array) -> Array:
    """Shortest rotation vectors ``(..., 3)``, in radians, of unit quaternions ``(..., 4)``."""
    # The tiny offset continues angle / sin(angle / 2) to its limit 2 at zero; the sign makes it the short way round.
    sine = norm(q[..., :3]) + 1e-30
    factor = np.arctan2(sine, np.abs(q[..., 3])) * 2.0 / sine
    return q[..., :3] * np.copysign(factor, q[..., 3])[..., None]


def rotation_between(a: Array, b: Array) -> Array:
    """Rotation vectors ``(..., 3)`` in the frame of ``a`` that turn quaternion ``a`` into ``b``."""
    return rotvec_from_quat(quat_multiply(quat_conjugate(a), b))


def rot6d_from_quat(q: Array) -> Array:
    """First two columns of the rotation matrices, one after the other, ``(..., 6)`` (Zhou et al., CVPR 2019)."""
    matrix = matrix_from_quat(q)
    return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)


def pose_multiply(a: Array, b: Array) -> Array:
    """Composition of poses ``(..., 7)``: pose ``b``, given in the frame of ``a``, in the frame ``a`` is given in."""
    position = a[..., :3] + rotate(a[..., 3:], b[..., :3])
    return np.concatenate([position, quat_multiply(a[..., 3:], b[..., 3:])], axis=-1)


def pose_relative(a: Array, b: Array) -> Array:
    """Poses ``(..., 7)`` of ``b`` in the frame of ``a``, both given in one frame."""
    position = rotate_inverse(a[..., 3:], b[..., :3] - a[..., :3])
    return np.concatenate([position, quat_multiply(quat_conjugate(a[..., 3:]), b[..., 3:])], axis=-1)


def clip_norm(v: Array, limit: float) -> Array:
    """Vectors ``(..., n)`` shortened to at most ``limit`` (above 0) over the last axis."""
    return v * (limit / np.maximum(norm(v), limit))[..., None]


def towards(origin: Array, target: Array, limit: float) -> Array:
    """Quaternions ``(N, 4)`` on the shortest way from ``origin`` to ``target``, at most ``limit`` radians along it."""
    cosine = np.einsum("...i,...i->...", origin, target)
    beyond = np.abs(cosine) < np.cos(0.5 * limit)
    if not beyond.any():
        return target
    half = np.arccos(np.minimum(np.abs(cosine), 1.0))
    sine = np.maximum(np.sin(half), 1e-12)
    partway = (np.sin(half - 0.5 * limit) / sine)[..., None] * origin
    partway += np.copysign(np.sin(0.5 * limit) / sine, cosine)[..., None] * target
    return np.where(beyond[..., None], partway, target)
