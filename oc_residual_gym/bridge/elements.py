"""Edits of robosuite's XML trees: replace the bodies of its Panda by ours, and show ours with its meshes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from xml.etree.ElementTree import Element

from oc_residual_gym.robots.geoms import VISUAL_GROUP


def find(root: Element, name: str) -> Element:
    """The body with this name: ``root`` or one below it. Raises ``StopIteration`` if there is none."""
    return next(body for body in root.iter("body") if body.get("name") == name)


def visual_geoms(body: Element) -> list[Element]:
    """The body's own visual geoms."""
    return [geom for geom in body.findall("geom") if geom.get("group") == str(VISUAL_GROUP)]


def replace_visuals(ours: Element, theirs: Element, bodies: Iterable[str]) -> None:
    """Remove all visual geoms in ``ours``, and give the named bodies those that they have in ``theirs``."""
    for body in ours.iter("body"):
        for geom in visual_geoms(body):
            body.remove(geom)
    for name in bodies:
        find(ours, name).extend(visual_geoms(find(theirs, name)))


def drop_meshes(asset: Element, names: Collection[str]) -> None:
    """Remove the named meshes, which nothing uses any more."""
    for mesh in [m for m in asset.findall("mesh") if m.get("name") in names]:
        asset.remove(mesh)
