"""Where an object can be: within the workspace, on or above the table, and at the start not in the air."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.envs.actions import WORKSPACE_HIGH, WORKSPACE_LOW
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.objects import Geom, ObjectSpec

MARGIN = 0.15
"""Metres by which an object's origin may lie outside the workspace box of the TCP, on each side and above."""
SUNK = 0.015
"""Metres by which an object's lowest point may seem to be under the table: errors of tracker and calibration."""
FLOATING = 0.03
"""Metres above the table at which an object's lowest point may be at the start, when nothing holds it."""


def impossible(pose: Array, spec: ObjectSpec | None, starting: bool) -> str:
    """Why an object cannot be at ``pose`` (7,), in words; "" if it can.

    Args:
        pose: position in metres and quaternion xyzw in the base frame; the table top is z = 0.
        spec: the object's shape; ``None`` if it is unknown. Its origin then stands for its lowest point.
        starting: whether the episode has not begun yet, so that nothing holds the object.
    """
    beyond = np.maximum(WORKSPACE_LOW - pose[:3], pose[:3] - WORKSPACE_HIGH)
    beyond[2] = max(pose[2] - WORKSPACE_HIGH[2], 0.0)
    axis = int(beyond.argmax())
    if beyond[axis] > MARGIN:
        return f"is {100 * beyond[axis]:.0f} cm outside the workspace along {'xyz'[axis]}"
    low = pose[2] + (lowest_point(spec, pose[3:]) if spec is not None else 0.0)
    if low < -SUNK:
        return f"is {-100 * low:.1f} cm under the table"
    if starting and spec is not None and low > FLOATING:
        return f"floats {100 * low:.0f} cm above the table"
    return ""


def lowest_point(spec: ObjectSpec, quat: Array) -> float:
    """Height in metres of the lowest point of an object above its own origin, for an orientation (4,) xyzw."""
    down = Rotation.from_quat(quat).inv().apply([0.0, 0.0, -1.0])
    return -max((_reach(geom, down) for geom in spec.geoms if geom.role != "visual"), default=0.0)


def _reach(geom: Geom, direction: Array) -> float:
    """How far a shape reaches along a unit vector (3,) in its body's frame, in metres from the body's origin."""
    w, x, y, z = geom.quat
    own, size = Rotation.from_quat([x, y, z, w]).inv().apply(direction), np.array(geom.size)
    if geom.type == "mesh":
        extent = float((np.array(geom.vertices).reshape(-1, 3) @ own).max(initial=0.0))
    elif geom.type == "box":
        extent = float(np.abs(own) @ size)
    elif geom.type == "cylinder":
        extent = float(size[0] * np.hypot(own[0], own[1]) + size[1] * abs(own[2]))
    elif geom.type == "capsule":
        extent = float(size[0] + size[1] * abs(own[2]))
    else:
        extent = float(size.max(initial=0.0))
    return float(np.dot(geom.pos, direction)) + extent
