"""Rotations of batches in PyTorch, made of operations that ONNX has; quaternions are unit, xyzw."""

from __future__ import annotations

import torch
from torch import Tensor


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of quaternions (..., 4): the rotation ``b`` first, then ``a``."""
    ax, ay, az, aw = a.split(1, dim=-1)
    bx, by, bz, bw = b.split(1, dim=-1)
    return torch.cat(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ],
        dim=-1,
    )


def quat_from_rotvec(rotvec: Tensor) -> Tensor:
    """Quaternions (..., 4) of rotation vectors (..., 3) in radians."""
    # The offset under the root keeps the gradient at zero finite.
    half = 0.5 * (rotvec.square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()
    return torch.cat([rotvec * (0.5 * half.sin() / half), half.cos()], dim=-1)


def rotation_between(a: Tensor, b: Tensor) -> Tensor:
    """Rotation vectors (..., 3) in the frame of ``a`` that turn quaternion ``a`` into ``b``, the short way."""
    x, y, z, w = a.split(1, dim=-1)
    relative = quat_multiply(torch.cat([-x, -y, -z, w], dim=-1), b)
    relative = relative * torch.where(relative[..., 3:] < 0.0, -1.0, 1.0)
    sine = (relative[..., :3].square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()
    return relative[..., :3] * (2.0 * torch.atan2(sine, relative[..., 3:]) / sine)


def axes_of(quat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rotated x, y and z axis (..., 3) of quaternions (..., 4)."""
    x, y, z, w = quat.split(1, dim=-1)
    return (
        torch.cat([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], dim=-1),
        torch.cat([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], dim=-1),
        torch.cat([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    )


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (..., 1)."""
    return (a * b).sum(dim=-1, keepdim=True)


def within(vector: Tensor, axes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """``vector`` (..., 3) in the frame of these axes."""
    return torch.cat([dot(vector, axis) for axis in axes], dim=-1)


def turned(quat: Tensor, pose: Tensor) -> Tensor:
    """Poses (..., 7 or more: position, quaternion, whatever stays) turned by ``quat`` (..., 4) about the origin."""
    x, y, z = axes_of(quat)
    position = x * pose[..., 0:1] + y * pose[..., 1:2] + z * pose[..., 2:3]
    return torch.cat([position, quat_multiply(quat, pose[..., 3:7]), pose[..., 7:]], dim=-1)
