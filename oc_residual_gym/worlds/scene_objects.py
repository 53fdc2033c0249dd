"""robosuite models of the tasks' objects.

Collision bits used by the whole project: robot geoms collide with everything else but not with each other
(``contype 1, conaffinity 0``), movable objects with everything (``2, 3``), the table and fixtures with the
robot and the movable objects (``0, 3``).
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np
from robosuite.models.objects import MujocoGeneratedObject
from robosuite.utils.mjcf_utils import array_to_string, new_body, new_element, new_geom, new_joint

from oc_residual_gym.tasks.objects import Drawer, Geom, ObjectSpec, box_inertia

MOVABLE_BITS = {"contype": "2", "conaffinity": "3"}
FIXTURE_BITS = {"contype": "0", "conaffinity": "3"}
NO_BITS = {"contype": "0", "conaffinity": "0"}

# So stiff that a 40 N grasp sinks in by less than 0.1 mm, and as stiff as 2 ms steps allow (two of them).
CONTACT_SOLREF = (0.004, 1.0)
CONTACT_SOLIMP = (0.95, 0.99, 0.001)
# A drawer's end stop: gives way by 0.35 mm to the 32 N of the impedance's leash, and softens the hand's blow.
DRAWER_STOP_SOLREF = (0.01, 1.0)


class SceneObject(MujocoGeneratedObject):
    """robosuite model of an :class:`ObjectSpec`; its bodies are ``<name>_main`` and ``<name>_<drawer>``."""

    def __init__(self, spec: ObjectSpec):
        # Collision geoms get their visual twins below, which can have other bits and colours than robosuite's.
        super().__init__(duplicate_collision_geoms=False)
        self._name = spec.name
        self.spec = spec
        body = new_body(name="main")
        if not spec.fixed:
            body.append(new_joint(name="joint0", type="free"))
            body.append(_inertial(spec.mass, spec.inertia, spec.center_of_mass))
        _append_geoms(body, "", spec.geoms, spec)
        _append_meshes(self.asset, spec)
        for drawer in spec.drawers:
            body.append(_drawer_body(drawer, spec))
        self._obj = body
        self._get_object_properties()

    @property
    def bottom_offset(self) -> np.ndarray:
        return np.array([0.0, 0.0, -self._extent()[2]])

    @property
    def top_offset(self) -> np.ndarray:
        return np.array([0.0, 0.0, self._extent()[2]])

    @property
    def horizontal_radius(self) -> float:
        return float(np.linalg.norm(self._extent()[:2]))

    def _extent(self) -> np.ndarray:
        """Half sizes of an axis-aligned box around all geoms (upper bound), in metres."""
        reach = [np.abs(g.pos) + np.linalg.norm(g.size) for g in self.spec.geoms if g.type != "mesh"]
        corners = [np.abs(g.vertices).max(axis=0) for g in self.spec.geoms if g.type == "mesh"]
        return np.max([*reach, *corners], axis=0)


def _inertial(mass: float, inertia: Sequence[float], center: Sequence[float] = (0, 0, 0)) -> Element:
    return new_element(
        "inertial", None, pos=array_to_string(center), mass=str(mass), diaginertia=array_to_string(inertia)
    )


def _append_meshes(asset: Element, spec: ObjectSpec) -> None:
    """Meshes of the object's own geoms, named after them."""
    for i, geom in enumerate(spec.geoms):
        if geom.type == "mesh":
            # A surface that is only seen need not be closed.
            mesh = new_element("mesh", f"{spec.name}_g{i}", inertia="shell" if geom.faces else "convex")
            mesh.set("vertex", array_to_string(np.ravel(geom.vertices)))
            if geom.faces:
                mesh.set("face", array_to_string(np.ravel(geom.faces)))
            asset.append(mesh)


def _append_geoms(body: Element, prefix: str, geoms: Sequence[Geom], spec: ObjectSpec) -> None:
    bits = FIXTURE_BITS if spec.fixed else MOVABLE_BITS
    for i, geom in enumerate(geoms):
        shape = {"type": geom.type, "size": geom.size, "pos": geom.pos, "quat": array_to_string(geom.quat)}
        if geom.type == "mesh":
            shape.update(size=None, mesh=f"{prefix}g{i}")
        if geom.role != "visual":
            body.append(
                new_geom(
                    name=f"{prefix}g{i}",
                    group=0,
                    friction=array_to_string((spec.friction, 0.005, 0.0001)),
                    condim="4",
                    solref=array_to_string(CONTACT_SOLREF),
                    solimp=array_to_string(CONTACT_SOLIMP),
                    rgba=array_to_string(geom.rgba),
                    **shape,
                    **(geom.bits or bits),
                )
            )
        if geom.role != "collision":
            body.append(
                new_geom(
                    name=f"{prefix}g{i}_visual", group=1, mass="0", rgba=array_to_string(geom.rgba), **shape, **NO_BITS
                )
            )


def _drawer_body(drawer: Drawer, spec: ObjectSpec) -> Element:
    body = new_body(name=drawer.name, pos=drawer.pos)
    body.append(
        new_joint(
            name=f"{drawer.name}_slide",
            type="slide",
            axis=array_to_string(drawer.axis),
            limited="true",
            range=array_to_string((0.0, drawer.travel)),
            damping=str(drawer.damping),
            frictionloss=str(drawer.frictionloss),
            solreflimit=array_to_string(DRAWER_STOP_SOLREF),
            solimplimit=array_to_string(CONTACT_SOLIMP),
            **_spring(drawer),
        )
    )
    body.append(_inertial(drawer.mass, box_inertia(drawer.mass, (0.1, 0.15, 0.02))))
    _append_geoms(body, f"{drawer.name}_", drawer.geoms, spec)
    return body


def _spring(drawer: Drawer) -> dict[str, str]:
    """The joint's attributes of a drawer with a spring; none without."""
    if not drawer.stiffness:
        return {}
    return {"stiffness": str(drawer.stiffness), "springref": str(drawer.spring_rest)}
