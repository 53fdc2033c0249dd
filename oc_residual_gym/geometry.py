"""Rotations and poses, bit-identical for any number of worlds.

Quaternions are unit, ordered xyzw, float64; poses are ``(..., 7)``: position in metres, then quaternion.

The first functions take arrays of any batch shape. They use only elementwise operations and ``einsum``, because matrix
products and ``scipy``'s ``Rotation.apply`` round differently for different batch sizes, so that a world's result would
depend on the number of worlds. The functions ending in ``_one`` take one item; Numba compiles them for the loops over
worlds that run at every control step, where a NumPy call costs more than its arithmetic. Code that runs less often uses
``scipy.spatial.transform.Rotation``.
"""

from __future__ import annotations

import math

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.states import Array

IDENTITY_QUATERNION = np.array([0.0, 0.0, 0.0, 1.0])
WXYZ_FROM_XYZW, XYZW_FROM_WXYZ = [3, 0, 1, 2], [1, 2, 3, 0]
"""Indices that reorder quaternions from ours (xyzw) to MuJoCo's (wxyz), and back."""

# Left-multiplication matrix of a quaternion: L(a)[i, j] = _LEFT_SIGN[i, j] * a[_LEFT_INDEX[i, j]], a * b = L(a) b.
_LEFT_INDEX = np.array([[3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2], [0, 1, 2, 3]])
_LEFT_SIGN = np.array([[1.0, -1, 1, 1], [1, 1, -1, 1], [-1, 1, 1, 1], [-1, -1, -1, 1]])
_CONJUGATE = np.array([-1.0, -1.0, -1.0, 1.0])


def quat_multiply(a: Array, b: Array) -> Array:
    """Product of quaternions ``(..., 4)``: rotation ``b`` first, then ``a``."""
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
    """Euclidean norm over the last axis."""
    return _row_norms(v.reshape(-1, v.shape[-1])).reshape(v.shape[:-1])


@njit("float64[:](float64[:,:])")
def _row_norms(v: Array) -> Array:
    result = np.empty(len(v))
    for n in range(len(v)):
        total = 0.0
        for i in range(v.shape[1]):
            total += v[n, i] * v[n, i]
        result[n] = math.sqrt(total)
    return result


def matrix_from_quat(q: Array) -> Array:
    """Rotation matrices ``(..., 3, 3)`` of unit quaternions ``(..., 4)``."""
    return _matrices(q.reshape(-1, 4)).reshape(*q.shape[:-1], 3, 3)


@njit("float64[:,:,:](float64[:,:])")
def _matrices(q: Array) -> Array:
    result = np.empty((len(q), 3, 3))
    for n in range(len(q)):
        x, y, z, w = q[n, 0], q[n, 1], q[n, 2], q[n, 3]
        out = result[n]
        out[0, 0], out[0, 1], out[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
        out[1, 0], out[1, 1], out[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
        out[2, 0], out[2, 1], out[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return result


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
    # The tiny offset makes angle / sin(angle / 2) approach its limit 2 at zero; the sign picks the shorter rotation.
    sine = norm(q[..., :3]) + 1e-30
    factor = np.arctan2(sine, np.abs(q[..., 3])) * 2.0 / sine
    return q[..., :3] * np.copysign(factor, q[..., 3])[..., None]


def rotation_between(a: Array, b: Array) -> Array:
    """Rotation vectors ``(..., 3)`` in the frame of ``a`` that turn quaternion ``a`` into ``b``."""
    return rotvec_from_quat(quat_multiply(quat_conjugate(a), b))


def pose_multiply(a: Array, b: Array) -> Array:
    """Composition of poses ``(..., 7)``: ``b``, given in the frame of ``a``, expressed in the parent frame of ``a``."""
    position = a[..., :3] + rotate(a[..., 3:], b[..., :3])
    return np.concatenate([position, quat_multiply(a[..., 3:], b[..., 3:])], axis=-1)


def pose_relative(a: Array, b: Array) -> Array:
    """Poses ``(..., 7)`` of ``b`` in the frame of ``a``; both are given in the same frame."""
    position = rotate_inverse(a[..., 3:], b[..., :3] - a[..., :3])
    return np.concatenate([position, quat_multiply(quat_conjugate(a[..., 3:]), b[..., 3:])], axis=-1)


def clip_norm(v: Array, limit: float) -> Array:
    """Vectors ``(..., n)`` shortened to a norm of at most ``limit`` (above 0)."""
    return v * (limit / np.maximum(norm(v), limit))[..., None]


def towards(origin: Array, target: Array, limit: float) -> Array:
    """Quaternions ``(N, 4)``: ``origin`` turned towards ``target`` on the shortest path, by at most ``limit`` rad."""
    cosine = np.einsum("...i,...i->...", origin, target)
    beyond = np.abs(cosine) < np.cos(0.5 * limit)
    if not beyond.any():
        return target
    half = np.arccos(np.minimum(np.abs(cosine), 1.0))
    sine = np.maximum(np.sin(half), 1e-12)
    partway = (np.sin(half - 0.5 * limit) / sine)[..., None] * origin
    partway += np.copysign(np.sin(0.5 * limit) / sine, cosine)[..., None] * target
    return np.where(beyond[..., None], partway, target)


@njit()
def multiply_one(a: Array, b: Array) -> tuple[float, float, float, float]:
    """Product of two quaternions (4,)."""
    return (
        a[3] * b[0] + a[0] * b[3] + a[1] * b[2] - a[2] * b[1],
        a[3] * b[1] - a[0] * b[2] + a[1] * b[3] + a[2] * b[0],
        a[3] * b[2] + a[0] * b[1] - a[1] * b[0] + a[2] * b[3],
        a[3] * b[3] - a[0] * b[0] - a[1] * b[1] - a[2] * b[2],
    )


@njit()
def rotate_inverse_one(q: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Vector (x, y, z) turned by the inverse of quaternion (4,)."""
    a, b, c, w = -q[0], -q[1], -q[2], q[3]
    u, v, t = 2 * (b * z - c * y), 2 * (c * x - a * z), 2 * (a * y - b * x)
    return x + w * u + b * t - c * v, y + w * v + c * u - a * t, z + w * t + a * v - b * u


@njit()
def rotvec_one(q: tuple[float, float, float, float]) -> tuple[float, float, float]:
    """Shortest rotation vector, in radians, of a unit quaternion."""
    sine = math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2])
    factor = 2.0 if sine < 1e-12 else 2.0 * math.atan2(sine, abs(q[3])) / sine
    factor = math.copysign(factor, q[3])
    return factor * q[0], factor * q[1], factor * q[2]


@njit()
def quat_from_rotvec_one(x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """Quaternion of a rotation vector in radians."""
    angle = math.sqrt(x * x + y * y + z * z)
    factor = 0.5 if angle < 1e-12 else math.sin(0.5 * angle) / angle
    return factor * x, factor * y, factor * z, math.cos(0.5 * angle)


@njit()
def rot6d_one(q: Array, out: Array) -> None:
    """Write the first two columns of the rotation matrix of quaternion (4,) into ``out`` (6,)."""
    x, y, z, w = q[0], q[1], q[2], q[3]
    out[0], out[1], out[2] = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)
    out[3], out[4], out[5] = 2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)


@njit()
def towards_one(origin: Array, target: Array, limit: float, out: Array) -> None:
    """Write into ``out`` (4,) the quaternion ``origin`` turned towards ``target``, by at most ``limit`` rad."""
    cosine = origin[0] * target[0] + origin[1] * target[1] + origin[2] * target[2] + origin[3] * target[3]
    half = math.acos(min(abs(cosine), 1.0))
    start, end = 0.0, 1.0
    if half > 0.5 * limit:
        start = math.sin(half - 0.5 * limit) / math.sin(half)
        end = math.copysign(math.sin(0.5 * limit) / math.sin(half), cosine)
    for i in range(4):
        out[i] = start * origin[i] + end * target[i]


@njit()
def approach_one(origin: Array, target: Array, limit: float, out: Array) -> None:
    """Write into ``out`` (3,) the point ``origin`` moved towards ``target``, by at most ``limit``."""
    x, y, z = target[0] - origin[0], target[1] - origin[1], target[2] - origin[2]
    distance = math.sqrt(x * x + y * y + z * z)
    if distance > limit:
        factor = limit / distance
        out[0], out[1], out[2] = origin[0] + factor * x, origin[1] + factor * y, origin[2] + factor * z
    else:
        out[0], out[1], out[2] = target[0], target[1], target[2]
