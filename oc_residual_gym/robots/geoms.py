"""How shapes become geoms of a MuJoCo model: contact settings, collision bits, colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.shapes import Color, Shape
from oc_residual_gym.states import Array

CONTACT: dict[str, Any] = {"solref": (0.004, 1.0), "solimp": (0.95, 0.99, 0.001, 0.5, 2.0)}
"""The stiffest that 2 ms steps allow: a time constant of two steps. The last two of ``solimp`` are MuJoCo's own."""
LIMIT: dict[str, Any] = {"solref_limit": CONTACT["solref"], "solimp_limit": CONTACT["solimp"]}
"""The same for the end stop of a joint."""

COLLISION_GROUP, VISUAL_GROUP, MARKER_GROUP = 0, 1, 4
"""Groups of geoms and sites. Pictures show the visual group only."""

# Robot geoms touch objects (2, 3) and fixtures (0, 3) but not each other: Franka's own controller keeps the
# arm out of itself, and shapes that overlap a little at the joints must not brake it.
ROBOT_BITS = {"contype": 1, "conaffinity": 0}
MOVABLE_BITS = {"contype": 2, "conaffinity": 3}
FIXTURE_BITS = {"contype": 0, "conaffinity": 3}
NO_BITS = {"contype": 0, "conaffinity": 0}

SUPPLEMENT = (0.005, 0.0001)
"""Torsional (m) and rolling (m) friction beside a sliding one: MuJoCo's defaults."""


def quaternion(rotation: Rotation) -> Array:
    """(4,) in MuJoCo's order wxyz."""
    return np.roll(rotation.as_quat(), 1)


def add_collision(
    body: mujoco.MjsBody, name: str, shape: Shape, color: Color, contact: Mapping[str, Any] = CONTACT
) -> None:
    """Add a robot's contact shape; ``color`` shows it in MuJoCo's viewer. The mass is the link's: a shape has none."""
    options = {**shape.options(), "rgba": color}
    body.add_geom(name=name, mass=0.0, group=COLLISION_GROUP, **ROBOT_BITS, **options, **contact)


def add_visual(body: mujoco.MjsBody, name: str, shape: Shape) -> None:
    """Add a visual shape, without contacts."""
    body.add_geom(name=name, mass=0.0, group=VISUAL_GROUP, **NO_BITS, **shape.options())
