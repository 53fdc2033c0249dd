"""The tasks' objects as data: bodies of simple shapes that are movable, fixed, or have drawers."""

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
    """One shape in the frame of its body."""

    type: str
    """MuJoCo geom type: box, cylinder, capsule, sphere or mesh."""
    size: tuple[float, ...] = ()
    """MuJoCo half sizes in metres; empty for a mesh."""
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Centre in metres."""
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Orientation as a quaternion wxyz, MuJoCo's order."""
    rgba: Color = WOOD
    role: str = "both"
    """Use of the shape: "collision", "visual" or "both"."""
    bits: dict[str, int] | None = None
    """MuJoCo collision bits (``contype``, ``conaffinity``), if they differ from the object's."""
    vertices: tuple[tuple[float, float, float], ...] = ()
    """Vertices of a mesh in metres. Collisions use their convex hull."""
    faces: tuple[tuple[int, int, int], ...] = ()
    """Triangles of a visual mesh: vertex indices, counterclockwise from outside. If empty, the convex hull is drawn."""


@dataclass(frozen=True)
class Drawer:
    """A part that slides straight out of its object, such as a drawer or a button. Its closed position is 0."""

    name: str
    geoms: tuple[Geom, ...]
    pos: tuple[float, float, float]
    """Origin of the drawer's frame when closed, in the object's frame, in metres."""
    travel: float
    """Metres from closed to fully open."""
    mass: float
    """Mass in kilograms."""
    damping: float
    """Viscous damping in N s/m."""
    frictionloss: float
    """Dry friction in newtons."""
    axis: tuple[float, float, float] = (1.0, 0.0, 0.0)
    """Unit vector of the opening direction, in the object's frame."""
    stiffness: float = 0.0
    """Stiffness in N/m of a spring between the part and its object."""
    spring_rest: float = 0.0
    """Opening in metres at which that spring is relaxed. Beyond ``travel``, the spring always pushes outwards."""


@dataclass(frozen=True)
class ObjectSpec:
    """Specification of one object in a scene."""

    name: str
    geoms: tuple[Geom, ...]
    mass: float = 0.0
    """Kilograms; ignored for a fixed object."""
    inertia: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Principal moments of inertia about the centre of mass, in kg m^2."""
    center_of_mass: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Metres in the body's frame."""
    friction: float = 0.6
    """Sliding friction coefficient; MuJoCo uses the larger one of the two geoms in contact."""
    fixed: bool = False
    """Whether the object is bolted to the table: reset sets its pose, and nothing moves it."""
    drawers: tuple[Drawer, ...] = field(default=())
    """Parts that slide out of the object."""


def box_inertia(mass: float, half: Sequence[float]) -> tuple[float, float, float]:
    """Principal moments of inertia, in kg m^2, of a solid box with half sizes ``half`` in metres."""
    x, y, z = (2.0 * h for h in half)
    return (mass * (y * y + z * z) / 12, mass * (x * x + z * z) / 12, mass * (x * x + y * y) / 12)


def cylinder_inertia(mass: float, radius: float, length: float) -> tuple[float, float, float]:
    """Principal moments of inertia, in kg m^2, of a solid cylinder along z; sizes in metres."""
    across = mass * (3 * radius**2 + length**2) / 12
    return (across, across, mass * radius**2 / 2)


def solid_box(name: str, half: tuple[float, float, float], mass: float, rgba: Color) -> ObjectSpec:
    """A movable solid box with half sizes ``half`` in metres and ``mass`` in kilograms."""
    return ObjectSpec(name, (Geom("box", half, rgba=rgba),), mass, box_inertia(mass, half))


def ring_quat(angle: float, tilt: float = 0.0) -> tuple[float, float, float, float]:
    """Quaternion wxyz of a ring segment: turned by ``angle`` about z, then tilted by ``tilt`` about its own y axis."""
    cz, sz, cy, sy = np.cos(angle / 2), np.sin(angle / 2), np.cos(tilt / 2), np.sin(tilt / 2)
    return (float(cz * cy), float(-sz * sy), float(cz * sy), float(sz * cy))
