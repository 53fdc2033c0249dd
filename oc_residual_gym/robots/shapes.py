"""Primitive shapes of the FR3 and its hand, in link frames (m): for contact, and for fast pictures.

The contact shapes are fitted to robosuite's meshes of the Panda, whose outer shape the FR3 shares: from link
1 to the fingers they leave out at most 10 mm of a mesh and stand out of it by at most 13 mm. Not covered: the
base's cable panel, and the hand's cable and plug above its edge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

Vector = tuple[float, float, float]
Color = tuple[float, float, float, float]

WHITE: Color = (0.93, 0.93, 0.94, 1.0)
DARK: Color = (0.22, 0.23, 0.25, 1.0)


def geom_type(name: str) -> mujoco.mjtGeom:
    """MuJoCo's type of geom with this name in lower case."""
    kind: mujoco.mjtGeom = getattr(mujoco.mjtGeom, f"mjGEOM_{name.upper()}")
    return kind


@dataclass(frozen=True)
class Round:
    """A capsule or cylinder around the line from ``start`` to ``end``."""

    start: Vector
    end: Vector
    radius: float
    type: str = "capsule"
    rgba: Color = WHITE

    def options(self) -> dict[str, Any]:
        """Arguments of ``MjsBody.add_geom``."""
        return {
            "type": geom_type(self.type),
            "fromto": (*self.start, *self.end),
            "size": (self.radius, 0.0, 0.0),
            "rgba": self.rgba,
        }


@dataclass(frozen=True)
class Box:
    """A box around ``center``, turned by ``yaw`` (rad) about z."""

    center: Vector
    half_size: Vector
    yaw: float = 0.0
    rgba: Color = WHITE

    def options(self) -> dict[str, Any]:
        """Arguments of ``MjsBody.add_geom``."""
        return {
            "type": mujoco.mjtGeom.mjGEOM_BOX,
            "pos": self.center,
            "size": self.half_size,
            "quat": (float(np.cos(self.yaw / 2)), 0.0, 0.0, float(np.sin(self.yaw / 2))),
            "rgba": self.rgba,
        }

    def mirrored(self, side: int) -> Box:
        """The box itself (``side`` 1), or its mirror image at the plane y = 0 (-1)."""
        x, y, z = self.center
        return replace(self, center=(x, side * y, z), yaw=side * self.yaw)


Shape = Round | Box

ARM_COLLISION: dict[str, tuple[Shape, ...]] = {
    "link0": (
        Box((-0.05, 0.0, 0.03), (0.085, 0.065, 0.03)),
        Round((-0.039, 0.0, 0.058), (-0.002, 0.0, 0.088), 0.062),
        Round((0.012, 0.0, 0.045), (0.002, 0.0, 0.085), 0.056),
    ),
    "link1": (
        Round((0.0, 0.001, -0.177), (0.0, -0.002, -0.138), 0.056),
        Round((0.0, 0.009, -0.182), (0.0, -0.062, 0.01), 0.049),
        Round((0.0, -0.076, -0.002), (0.0, 0.006, -0.001), 0.055),
    ),
    "link2": (
        Round((0.0, -0.181, -0.001), (0.0, -0.138, 0.001), 0.057),
        Round((0.0, -0.183, -0.01), (0.0, 0.01, 0.063), 0.049),
        Round((0.0, -0.002, 0.075), (0.0, -0.002, -0.002), 0.055),
    ),
    "link3": (
        Round((-0.001, 0.001, -0.119), (0.003, 0.001, -0.064), 0.053),
        Round((0.077, 0.06, -0.004), (0.081, -0.031, -0.001), 0.056),
    ),
    "link4": (
        Round((-0.084, 0.121, 0.0), (-0.078, 0.063, 0.002), 0.054),
        Round((-0.005, 0.004, 0.059), (0.0, 0.001, -0.032), 0.056),
    ),
    "link5": (
        Round((0.0, -0.003, -0.241), (0.0, 0.011, -0.219), 0.055),
        Round((0.0, 0.032, -0.195), (0.0, 0.059, -0.178), 0.037),
        Round((0.0, 0.076, -0.158), (0.0, 0.1, -0.033), 0.026),
        Round((0.0, 0.083, -0.001), (0.0, 0.011, 0.001), 0.051),
    ),
    "link6": (
        Round((0.007, 0.002, 0.001), (0.001, 0.0, 0.007), 0.05),
        Round((0.033, -0.005, 0.023), (0.034, 0.027, 0.008), 0.036),
        Round((0.082, 0.04, 0.001), (0.088, -0.042, 0.0), 0.045),
    ),
    "link7": (
        Round((0.004, 0.003, 0.071), (-0.002, -0.001, 0.076), 0.047),
        Box((0.031, 0.031, 0.084), (0.04, 0.032, 0.013), yaw=np.pi / 4),
    ),
}

HAND_COLLISION = Box((0.0, 0.0, 0.033), (0.0255, 0.1015, 0.033))

FINGER_PAD = Box((0.0, 0.00725, 0.0447), (0.00875, 0.00725, 0.0091))
"""Rubber tip of the finger at +y, in its frame; the tips' inner faces (y = 0) meet in a closed hand."""
FINGER_STEM = Box((0.0, 0.0178, 0.0178), (0.0102, 0.0075, 0.0178))
"""Rest of that finger."""

ARM_VISUAL: dict[str, tuple[Shape, ...]] = {
    "link0": (
        Box((-0.05, 0.0, 0.032), (0.09, 0.07, 0.032)),
        Round((0.0, 0.0, 0.0), (0.0, 0.0, 0.14), 0.059, type="cylinder"),
    ),
    "link1": (
        Round((0.0, 0.0, -0.17), (0.0, -0.045, -0.04), 0.055),
        Round((0.0, -0.074, 0.0), (0.0, 0.0, 0.0), 0.055),
    ),
    "link2": (
        Round((0.0, -0.17, 0.0), (0.0, -0.04, 0.045), 0.055),
        Round((0.0, 0.0, 0.074), (0.0, 0.0, 0.0), 0.055),
    ),
    "link3": (
        Round((0.0, 0.0, -0.12), (0.0, 0.0, -0.066), 0.055),
        Round((0.0825, 0.055, 0.0), (0.0825, 0.0, 0.0), 0.055),
        Round((0.0825, 0.06, 0.0), (0.0825, 0.088, 0.0), 0.053, type="cylinder", rgba=DARK),
    ),
    "link4": (
        Round((-0.0825, 0.124, 0.0), (-0.0825, 0.065, 0.0), 0.055),
        Round((0.0, 0.0, 0.055), (0.0, 0.0, 0.0), 0.055),
        Round((0.0, 0.0, 0.06), (0.0, 0.0, 0.088), 0.053, type="cylinder", rgba=DARK),
    ),
    "link5": (
        Round((0.0, 0.0, -0.245), (0.0, 0.02, -0.2), 0.054),
        Round((0.0, 0.065, -0.17), (0.0, 0.095, -0.03), 0.03),
        Round((0.0, 0.08, 0.0), (0.0, 0.01, 0.0), 0.05),
    ),
    "link6": (
        Round((0.0, 0.0, 0.005), (0.05, 0.02, 0.01), 0.044),
        Round((0.0, 0.0, 0.035), (0.0, 0.0, 0.053), 0.046, type="cylinder", rgba=DARK),
        Round((0.088, -0.05, 0.0), (0.088, 0.076, 0.0), 0.044, type="cylinder"),
        Round((0.088, 0.076, 0.0), (0.088, 0.082, 0.0), 0.037, type="cylinder", rgba=DARK),
    ),
    "link7": (
        Round((0.0, 0.0, 0.052), (0.0, 0.0, 0.107), 0.044, type="cylinder", rgba=DARK),
        Box((0.031, 0.031, 0.08), (0.042, 0.03, 0.017), yaw=np.pi / 4),
    ),
}

HAND_VISUAL = Box((0.0, 0.0, 0.033), (0.023, 0.1, 0.033))
FINGER_VISUAL: tuple[Box, ...] = (
    replace(FINGER_PAD, rgba=DARK),
    replace(FINGER_STEM, rgba=(0.5, 0.5, 0.52, 1.0)),
)
