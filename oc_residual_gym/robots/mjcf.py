"""MJCF text of a model composed with ``mujoco.MjSpec``, at full precision.

``MjSpec.to_xml`` keeps six digits, and writes what only its own MuJoCo knows. This writes the part of the language
that our models use, for simulators with another MuJoCo and for robosuite, which composes from XML elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import mujoco
import numpy as np

from oc_residual_gym.files import write_bytes

_GEOM_NUMBERS = ("contype", "conaffinity", "condim", "group", "priority", "margin", "gap")
_GEOM_VECTORS = ("friction", "solref", "solimp", "rgba")
_SIZES = {"plane": 3, "sphere": 1, "capsule": 2, "cylinder": 2, "box": 3}
_INTEGRATORS = ("Euler", "RK4", "implicit", "implicitfast")
_CONES = ("pyramidal", "elliptic")


def write_mjcf(spec: mujoco.MjSpec, path: Path) -> None:
    """Write ``spec`` to ``path``, which appears complete or not at all."""
    root = mjcf_of(spec)
    ElementTree.indent(root)
    write_bytes(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def mjcf_of(spec: mujoco.MjSpec) -> Element:
    """The model as an element: options, hulls, bodies, motors, coupled joints and keyframes."""
    root = Element("mujoco", model=spec.modelname)
    SubElement(root, "compiler", angle="radian", autolimits="true", inertiagrouprange="0 0")
    root.extend(settings_elements(spec))
    asset = SubElement(root, "asset")
    asset.extend(hull_element(mesh) for mesh in spec.meshes)
    world = SubElement(root, "worldbody")
    _append_contents(world, spec.worldbody)
    actuator = SubElement(root, "actuator")
    for motor in spec.actuators:
        SubElement(actuator, "motor", name=motor.name, joint=motor.target, ctrlrange=text(motor.ctrlrange))
    equality = SubElement(root, "equality")
    equality.extend(coupling_element(coupling) for coupling in spec.equalities)
    keyframe = SubElement(root, "keyframe")
    for key in spec.keys:
        SubElement(keyframe, "key", name=key.name, qpos=text(key.qpos))
    return root


def settings_elements(spec: mujoco.MjSpec) -> list[Element]:
    """Elements of the physics options, the visual settings and, if they are set, the model's statistics."""
    option = Element("option", timestep=str(spec.option.timestep))
    option.set("integrator", _INTEGRATORS[int(spec.option.integrator)])
    option.set("cone", _CONES[int(spec.option.cone)])
    for key in ("impratio", "ccd_tolerance"):
        option.set(key, str(getattr(spec.option, key)))
    if spec.option.disableflags & mujoco.mjtDisableBit.mjDSBL_AUTORESET:
        SubElement(option, "flag", autoreset="disable")
    visual, source = Element("visual"), spec.visual
    SubElement(visual, "map", znear=str(source.map.znear), zfar=str(source.map.zfar))
    lights = {key: text(getattr(source.headlight, key)) for key in ("ambient", "diffuse", "specular")}
    SubElement(visual, "headlight", lights)
    SubElement(visual, "quality", shadowsize=str(source.quality.shadowsize))
    SubElement(visual, "global", offwidth=str(source.global_.offwidth), offheight=str(source.global_.offheight))
    if np.isnan(spec.stat.extent):
        return [option, visual]
    statistic = {"center": text(spec.stat.center), "extent": str(spec.stat.extent), "meansize": str(spec.stat.meansize)}
    return [option, visual, Element("statistic", statistic)]


def body_element(body: mujoco.MjsBody) -> Element:
    """The body with all that it holds."""
    element = Element("body", name=body.name, pos=text(body.pos), quat=text(body.quat))
    if body.gravcomp:
        element.set("gravcomp", text([body.gravcomp]))
    _append_contents(element, body)
    return element


def _append_contents(element: Element, body: mujoco.MjsBody) -> None:
    element.extend(_joint(joint) for joint in body.joints)
    if body.explicitinertial:
        element.append(_inertial(body))
    element.extend(geom_element(geom) for geom in body.geoms)
    element.extend(_site(site) for site in body.sites)
    element.extend(camera_element(camera) for camera in body.cameras)
    element.extend(body_element(child) for child in body.bodies)


def geom_element(geom: mujoco.MjsGeom) -> Element:
    """A primitive, or a mesh of the same model."""
    kind = _name(geom.type)
    element = Element("geom", {"name": geom.name, "type": kind, **_placed(geom)})
    if kind == "mesh":
        element.set("mesh", geom.meshname)
    else:
        element.set("size", text(geom.size[: 1 if "fromto" in element.attrib else _SIZES[kind]]))
    if not np.isnan(geom.mass):
        element.set("mass", text([geom.mass]))
    for key in _GEOM_NUMBERS:
        element.set(key, text([getattr(geom, key)]))
    for key in _GEOM_VECTORS:
        element.set(key, text(getattr(geom, key)))
    return element


def hull_element(mesh: mujoco.MjsMesh) -> Element:
    """A mesh of vertices and, if it is only seen, faces."""
    element = Element("mesh", name=mesh.name, vertex=text(mesh.uservert))
    if len(mesh.userface):
        element.set("face", text(mesh.userface))
        # A surface need not be closed. MuJoCo before 3.3 does not know the attribute.
        element.set("inertia", "shell")
    return element


def coupling_element(coupling: mujoco.MjsEquality) -> Element:
    """The equality of two joints."""
    element = Element("joint", name=coupling.name, joint1=coupling.name1, joint2=coupling.name2)
    element.set("polycoef", text(coupling.data[:5]))
    for key in ("solref", "solimp"):
        element.set(key, text(getattr(coupling, key)))
    return element


def text(values: Iterable[float]) -> str:
    """Numbers as an attribute, at full precision."""
    return " ".join(str(int(value)) if float(value).is_integer() else repr(float(value)) for value in values)


def _name(kind: Any) -> str:
    """The language's word for a type of joint or geom."""
    return str(kind.name).split("_", maxsplit=1)[1].lower()


def _placed(item: Any) -> dict[str, str]:
    """Position and orientation, or the two ends of an axis."""
    if hasattr(item, "fromto") and not np.isnan(item.fromto[0]):
        return {"fromto": text(item.fromto)}
    return {"pos": text(item.pos), "quat": text(item.quat)}


def _inertial(body: mujoco.MjsBody) -> Element:
    element = Element("inertial", pos=text(body.ipos), mass=text([body.mass]))
    if np.isnan(body.fullinertia[0]):
        element.set("quat", text(body.iquat))
        element.set("diaginertia", text(body.inertia))
    else:
        element.set("fullinertia", text(body.fullinertia))
    return element


def _joint(joint: mujoco.MjsJoint) -> Element:
    kind = _name(joint.type)
    element = Element("joint", name=joint.name, type=kind)
    if kind == "free":
        return element
    element.set("axis", text(joint.axis))
    element.set("range", text(joint.range))
    element.set("damping", text(joint.damping[:1]))
    for key in ("armature", "frictionloss"):
        element.set(key, text([getattr(joint, key)]))
    if joint.stiffness[0]:
        element.set("stiffness", text(joint.stiffness[:1]))
        element.set("springref", text([joint.springref]))
    element.set("solreflimit", text(joint.solref_limit))
    element.set("solimplimit", text(joint.solimp_limit))
    if joint.actfrcrange[0] < joint.actfrcrange[1]:
        element.set("actuatorfrcrange", text(joint.actfrcrange))
    if joint.actgravcomp:
        element.set("actuatorgravcomp", "true")
    return element


def _site(site: mujoco.MjsSite) -> Element:
    element = Element("site", {"name": site.name, "type": _name(site.type), **_placed(site)})
    element.set("size", text(site.size))
    element.set("rgba", text(site.rgba))
    element.set("group", str(site.group))
    return element


def camera_element(camera: mujoco.MjsCamera) -> Element:
    """A camera of fixed pose."""
    element = Element("camera", name=camera.name, pos=text(camera.pos), fovy=text([camera.fovy]))
    turned = camera.alt.type == mujoco.mjtOrientation.mjORIENTATION_XYAXES
    element.set("xyaxes" if turned else "quat", text(camera.alt.xyaxes if turned else camera.quat))
    return element
