"""What the models of arm and hand share: XML helpers, contact settings, the choice of visuals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, get_args
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from robosuite.utils.mjcf_utils import array_to_string
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.shapes import Shape

Visuals = Literal["light", "full"]
"""``full``: robosuite's meshes, for people. ``light``: primitives without mesh or texture, for policies."""

CONTACT = {"solref": "0.004 1", "solimp": "0.95 0.99 0.001"}
"""The stiffest that 2 ms steps allow: a time constant of two steps."""

# Robot geoms touch objects (2, 3) and fixtures (0, 3) but not each other: Franka's own controller keeps the
# arm out of itself, and shapes that overlap a little at the joints must not brake it.
_ROBOT_BITS = {"contype": "1", "conaffinity": "0"}
_NO_BITS = {"contype": "0", "conaffinity": "0"}


def check_visuals(visuals: str) -> None:
    if visuals not in get_args(Visuals):
        raise ValueError(f"visuals must be one of {', '.join(get_args(Visuals))}; got {visuals!r}")


def vector(values: Iterable[float]) -> str:
    """Numbers as an attribute, at full precision."""
    return str(array_to_string([float(value) for value in values]))


def quaternion(rotation: Rotation) -> str:
    """A rotation as an attribute, in MuJoCo's order wxyz."""
    return vector(np.roll(rotation.as_quat(), 1))


def find(root: Element, tag: str, name: str | None = None) -> Element:
    """The first descendant with this tag and name; robosuite's files have those we ask for."""
    return next(e for e in root.iter(tag) if name is None or e.get("name") == name)


def append_collision(body: Element, name: str, shape: Shape, contact: Mapping[str, str] = CONTACT) -> None:
    _append_geom(body, name, shape, {"group": "0", **_ROBOT_BITS, **contact})


def append_visual(body: Element, name: str, shape: Shape) -> None:
    _append_geom(body, name, shape, {"group": "1", **_NO_BITS})


def _append_geom(body: Element, name: str, shape: Shape, attributes: Mapping[str, str]) -> None:
    """Masses are the links' own: a shape has none."""
    SubElement(body, "geom", {"name": name, "mass": "0", **shape.attributes(), **attributes})


def drop_geoms(body: Element, collision_only: bool) -> None:
    """Remove the body's own geoms: all, or those of group 0."""
    for geom in body.findall("geom"):
        if not collision_only or geom.get("group") == "0":
            body.remove(geom)


def drop_assets(asset: Element, meshes: Collection[str | None] | None) -> None:
    """Remove the named meshes, or (None) every mesh, texture and material."""
    for element in list(asset):
        if meshes is None or (element.tag == "mesh" and element.get("name") in meshes):
            asset.remove(element)
