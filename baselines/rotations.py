"""Batched rotations and geometric features in PyTorch, using only operations that ONNX supports.

Quaternions are unit, xyzw.
"""

from __future__ import annotations

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from oc_residual_gym.tasks.symmetry import Symmetry

Axes = tuple[Tensor, Tensor, Tensor]
"""The x, y and z axes (..., 3) of frames."""
NEAR, NEARER = 0.04, 0.01
"""Length scales in metres of the saturating distance features, in addition to the linear one."""


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


def cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross products (n, 3), by elementwise operations."""
    ax, ay, az = a.split(1, dim=1)
    bx, by, bz = b.split(1, dim=1)
    return torch.cat([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], dim=1)


def outside(vector: Tensor, axes: Axes) -> Tensor:
    """Vectors (n, 3) from the frame with ``axes`` to the frame in which these are given."""
    x, y, z = axes
    return x * vector[:, 0:1] + y * vector[:, 1:2] + z * vector[:, 2:3]


def near(vector: Tensor) -> Tensor:
    """``vector`` (n, d) in metres at three scales, because an MLP resolves millimetres badly in a range of 0.5 m."""
    size = vector.abs()
    return torch.cat([vector * 8.0, vector / (NEAR + size), vector / (NEARER + size)], dim=1)


def visible_axes(axes: Axes, symmetry: Symmetry, tool: Axes) -> list[Tensor]:
    """Axes (n, 3) that are the same for all orientations that look alike; ``axes`` are those of one of them.

    These are the x and z axes of the equivalent whose x axis points most along the tool's and whose z axis points most
    upwards; of a round object, the axis that points most upwards.
    """
    members = torch.from_numpy(Rotation.from_quat(symmetry.turns).as_matrix()).to(axes[0].dtype)
    fixed = [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0)] if symmetry.axis is None else [symmetry.axis]
    # (n, G, 3) for each visible axis, by elementwise operations only: matrix products depend on the batch size.
    alike = []
    for axis in fixed:
        own = members @ torch.tensor(axis, dtype=axes[0].dtype)
        alike.append(axes[0][:, None] * own[:, :1] + axes[1][:, None] * own[:, 1:2] + axes[2][:, None] * own[:, 2:])
    likeness = alike[-1][..., 2:]
    if symmetry.axis is None:
        likeness = likeness + dot(alike[0], tool[0][:, None])
    best = likeness.argmax(dim=1, keepdim=True).expand(-1, -1, 3)
    return [axis.gather(1, best)[:, 0] for axis in alike]
