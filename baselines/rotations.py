"""Batched rotations in PyTorch, using only operations that ONNX supports. Quaternions are unit, xyzw."""

from __future__ import annotations

import torch
from torch import Tensor


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Product of quaternions (..., 4): rotation ``b`` first, then ``a``."""
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
    # The offset inside the square root keeps the gradient at zero finite.
    half = 0.5 * (rotvec.square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()
    return torch.cat([rotvec * (0.5 * half.sin() / half), half.cos()], dim=-1)


def rotation_between(a: Tensor, b: Tensor) -> Tensor:
    """Shortest rotation vectors (..., 3), in the frame of ``a``, that turn quaternion ``a`` into ``b``."""
    x, y, z, w = a.split(1, dim=-1)
    relative = quat_multiply(torch.cat([-x, -y, -z, w], dim=-1), b)
    relative = relative * torch.where(relative[..., 3:] < 0.0, -1.0, 1.0)
    sine = (relative[..., :3].square().sum(dim=-1, keepdim=True) + 1e-12).sqrt()
    return relative[..., :3] * (2.0 * torch.atan2(sine, relative[..., 3:]) / sine)


def axes_of(quat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The x, y and z axes (..., 3) of the frames given by quaternions (..., 4)."""
    x, y, z, w = quat.split(1, dim=-1)
    return (
        torch.cat([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], dim=-1),
        torch.cat([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], dim=-1),
        torch.cat([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], dim=-1),
    )


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (..., 1) over the last axis."""
    return (a * b).sum(dim=-1, keepdim=True)


def within(vector: Tensor, axes: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Components (..., 3) of ``vector`` along ``axes``."""
    return torch.cat([dot(vector, axis) for axis in axes], dim=-1)


def turned(quat: Tensor, pose: Tensor) -> Tensor:
    """Poses rotated by ``quat`` (..., 4) about the origin. Entries: position, quaternion, then others, unchanged."""
    x, y, z = axes_of(quat)
    position = x * pose[..., 0:1] + y * pose[..., 1:2] + z * pose[..., 2:3]
    return torch.cat([position, quat_multiply(quat, pose[..., 3:7]), pose[..., 7:]], dim=-1)
