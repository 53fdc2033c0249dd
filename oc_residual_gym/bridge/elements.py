"""Edits of robosuite's XML trees: our bodies take the places, and the meshes, of its Panda."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from xml.etree.ElementTree import Element

from oc_residual_gym.robots.geoms import VISUAL_GROUP


def find(root: Element, name: str) -> Element:
    """The body with this name, ``root`` itself or one within; robosuite's files have those that we ask for."""
    return next(body for body in root.iter("body") if body.get("name") == name)


def visual_geoms(body: Element) -> list[Element]:
    """The body's own geoms that are only seen."""
    return [geom for geom in body.findall("geom") if geom.get("group") == str(VISUAL_GROUP)]


def replace_visuals(ours: Element, theirs: Element, bodies: Iterable[str]) -> None:
    """Show the named bodies within ``ours`` as those within ``theirs``, and nothing else."""
    for body in ours.iter("body"):
        for geom in visual_geoms(body):
            body.remove(geom)
    for name in bodies:
        find(ours, name).extend(visual_geoms(find(theirs, name)))


def drop_meshes(asset: Element, names: Collection[str]) -> None:
    """Remove meshes that nothing uses any more."""
    for mesh in [m for m in asset.findall("mesh") if m.get("name") in names]:
        asset.remove(mesh)
