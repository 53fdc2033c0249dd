"""Objects of the tasks as data: bodies made of simple shapes, movable, fixed, or with drawers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Color = tuple[float, float, float, float]
"""Red, green, blue, opacity."""

WOOD = (0.76, 0.60, 0.42, 1.0)
DARK_WOOD = (0.52, 0.37, 0.24, 1.0)
RED = (0.80, 0.15, 0.12, 1.0)
GREEN = (0.15, 0.60, 0.25, 1.0)
WHITE = (0.93, 0.93, 0.93, 1.0)
STEEL = (0.55, 0.57, 0.60, 1.0)
BLUE = (0.15, 0.30, 0.65, 1.0)


@dataclass(frozen=True)
class Geom:
    """One shape, in the frame of its body."""

    type: str
    """MuJoCo geom type: box, cylinder, capsule, sphere or mesh."""
    size: tuple[float, ...] = ()
    """MuJoCo half sizes, in metres; a mesh has none."""
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Centre, in metres."""
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Orientation, wxyz as MuJoCo has it."""
    rgba: Color = WOOD
    role: str = "both"
    """"collision", "visual" or "both"."""
    bits: dict[str, int] | None = None
    """Collision bits, where they differ from those of the object."""
    vertices: tuple[tuple[float, float, float], ...] = ()
    """A mesh's corners, in metres. What collides is their convex hull."""
    faces: tuple[tuple[int, int, int], ...] = ()
    """Triangles of a mesh that is only seen: numbers of its vertices, counterclockwise from outside. Without any,
    the convex hull is seen."""


@dataclass(frozen=True)
class Drawer:
    """A part that slides straight out of its object, from its closed position at 0: a drawer, or a button."""

    name: str
    geoms: tuple[Geom, ...]
    pos: tuple[float, float, float]
    """Origin of the drawer's frame when closed, in the object's frame, in metres."""
    travel: float
    """Metres from closed to fully open."""
    mass: float
    """Kilograms."""
    damping: float
    """N s/m."""
    frictionloss: float
    """Newtons."""
    axis: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Direction in which it opens, of unit length, in the object's frame."""
    stiffness: float = 0.0
    """N/m of a spring between it and its object."""
    spring_rest: float = 0.0
    """Opening at which that spring is relaxed, in metres; beyond ``travel``, it always pushes outwards."""


@dataclass(frozen=True)
class ObjectSpec:
    """All that is needed to build one object of a scene."""

    name: str
    geoms: tuple[Geom, ...]
    mass: float = 0.0
    """Kilograms; without meaning for a fixed object."""
    inertia: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Principal moments about the body's origin, which is the centre of mass, in kg m^2."""
    center_of_mass: tuple[float, float, float] = (0.0, 0.0, 0.0)
    friction: float = 0.6
    """Sliding friction; MuJoCo takes the larger one of the two geoms in contact."""
    fixed: bool = False
    """Bolted to the table: its pose is chosen at reset and nothing moves it."""
    drawers: tuple[Drawer, ...] = field(default=())


def box_inertia(mass: float, half: Sequence[float]) -> tuple[float, float, float]:
    """Principal moments of a solid box with half sizes ``half`` (metres), in kg m^2."""
    x, y, z = (2.0 * h for h in half)
    return (mass * (y * y + z * z) / 12, mass * (x * x + z * z) / 12, mass * (x * x + y * y) / 12)


def cylinder_inertia(mass: float, radius: float, length: float) -> tuple[float, float, float]:
    """Principal moments of a solid cylinder along z (metres), in kg m^2."""
    across = mass * (3 * radius**2 + length**2) / 12
    return (across, across, mass * radius**2 / 2)


def solid_box(name: str, half: tuple[float, float, float], mass: float, rgba: Color) -> ObjectSpec:
    """A movable solid box with half sizes ``half`` in metres and ``mass`` in kilograms."""
    return ObjectSpec(name, (Geom("box", half, rgba=rgba),), mass, box_inertia(mass, half))


def ring_quat(angle: float, tilt: float = 0.0) -> tuple[float, float, float, float]:
    """Orientation (wxyz) of a ring's segment at ``angle`` about z, its radial axis tilted by ``tilt`` about its y."""
    cz, sz, cy, sy = np.cos(angle / 2), np.sin(angle / 2), np.cos(tilt / 2), np.sin(tilt / 2)
    return (float(cz * cy), float(-sz * sy), float(cz * sy), float(sz * cy))
