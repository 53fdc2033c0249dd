"""Compile the kinematics of a recorded MuJoCo model, without the meshes and textures that it refers to.

Old robosuite files refer to meshes on the recording machine, and MJCF has changed since. The compiler therefore gets
only the elements that place bodies, joints, shapes and sites. Joints keep their order, so that recorded states keep
their meaning. The only meshes read are those of robosuite's own objects, from the installed robosuite.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import mujoco

from demos_replay.log import LogError

_NAMES = {"name", "class", "childclass", "mesh", "hfield", "file"}
_PLACED = {"name", "class", "childclass", "pos", "quat", "axisangle", "xyaxes", "zaxis", "euler"}
_KEPT = {
    "mujoco": set[str](),
    "compiler": {"angle", "eulerseq", "coordinate"},
    "default": {"class"},
    "asset": set[str](),
    "worldbody": set[str](),
    "body": _PLACED | {"mocap"},
    "frame": _PLACED,
    "joint": {"name", "class", "type", "pos", "axis", "ref"},
    "freejoint": {"name"},
    "geom": _PLACED | {"type", "size", "fromto", "contype", "conaffinity", "mesh", "hfield"},
    "site": _PLACED | {"type", "size", "fromto"},
    "mesh": {"name", "file", "scale", "refpos", "refquat"},
}
"""Elements that place something, with the attributes that matter for it."""
_GENERATED = {"attach", "composite", "flexcomp", "replicate"}
"""Elements from which the compiler generates bodies."""

_NOT_FINITE = re.compile(r"\b(nan|inf)", re.IGNORECASE)

# A robosuite model has some hundred elements, nested about 20 deep, in 50 kB.
_MAX_CHARACTERS, _MAX_ELEMENTS, _MAX_DEPTH = 10_000_000, 20_000, 100

_SHAPELESS = (mujoco.mjtGeom.mjGEOM_MESH, mujoco.mjtGeom.mjGEOM_HFIELD, mujoco.mjtGeom.mjGEOM_SDF)


@dataclass(frozen=True)
class KinematicModel:
    """The kinematics of a recorded model."""

    model: mujoco.MjModel
    mesh_bodies: frozenset[str]
    """Names of bodies whose collision meshes are left out."""


def kinematic_model(xml: str) -> KinematicModel:
    """Compile the kinematics of a recorded model.

    Raises:
        LogError: it is not MJCF, includes other files, or is far larger than any recorded scene.
    """
    tree = _parse(xml)
    reduced = _reduce(tree)
    # Inertia is not used, but the compiler requires it for moving bodies.
    reduced.insert(0, Element("compiler", boundmass="0.001", boundinertia="0.001", autolimits="true"))
    try:
        spec = mujoco.MjSpec.from_string(ElementTree.tostring(reduced, encoding="unicode"))
        meshes = {mesh.name for mesh in spec.meshes}
        mesh_bodies = set()
        for geom in spec.geoms:
            if geom.meshname not in meshes and (geom.type in _SHAPELESS or geom.meshname or geom.hfieldname):
                if geom.contype or geom.conaffinity:
                    mesh_bodies.add(geom.parent.name)
                spec.delete(geom)
        return KinematicModel(spec.compile(), frozenset(mesh_bodies))
    except (ValueError, TypeError, mujoco.FatalError) as error:
        raise LogError(f"its model does not compile: {' '.join(str(error).split())}") from error


def _parse(xml: str) -> Element:
    if len(xml) > _MAX_CHARACTERS:
        raise LogError(f"its model has {len(xml)} characters; recorded scenes have far fewer")
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise LogError("its model declares a document type or entities, which no recorded model has")
    try:
        tree = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError) as error:
        raise LogError(f"its model is not XML ({error})") from error
    if tree.tag != "mujoco":
        raise LogError(f"its model is not MJCF: its root is <{tree.tag}>, not <mujoco>")
    if sum(1 for _ in tree.iter()) > _MAX_ELEMENTS:
        raise LogError(f"its model has more than {_MAX_ELEMENTS} elements; recorded scenes have far fewer")
    if next(tree.iter("include"), None) is not None:
        raise LogError("its model includes other files; only self-contained models can be read")
    return tree


def _reduce(element: Element, depth: int = 0) -> Element:
    if depth > _MAX_DEPTH:
        raise LogError(f"its model is nested more than {_MAX_DEPTH} deep; recorded scenes are not")
    attributes = {key: value for key, value in element.attrib.items() if key in _KEPT[element.tag]}
    for key, value in attributes.items():
        if key not in _NAMES and _NOT_FINITE.search(value):
            raise LogError(f"its model has a <{element.tag}> with {key}={value!r}")
    reduced = Element(element.tag, attributes)
    for child in element:
        if child.tag in _GENERATED:
            raise LogError(f"its model has a <{child.tag}>, which cannot be reduced to its kinematics")
        kept = (_installed_mesh(child) if element.tag == "asset" else None) if child.tag == "mesh" else child
        if kept is not None and kept.tag in _KEPT:
            reduced.append(_reduce(kept, depth + 1))
    return reduced


def _installed_mesh(mesh: Element) -> Element | None:
    """``mesh`` with its path in the installed robosuite, if it belongs to one of robosuite's objects."""
    path = mesh.get("file", "")
    match = re.search(r"models/assets/(objects/meshes/(\w+)\.(stl|msh|obj))$", path)
    robosuite = find_spec("robosuite")
    if match is None or robosuite is None or robosuite.origin is None:
        return None
    installed = Path(robosuite.origin).parent / "models" / "assets" / match[1]
    if not installed.is_file():
        return None
    return Element("mesh", {"name": match[2]} | mesh.attrib | {"file": str(installed)})
