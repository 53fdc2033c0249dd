"""The tasks' objects in a MuJoCo model.

Collision bits used by the whole project: robot geoms collide with everything else but not with each other
(``contype 1, conaffinity 0``), movable objects with everything (``2, 3``), the table and fixtures with the
robot and the movable objects (``0, 3``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from oc_residual_gym.robots.geoms import (
    COLLISION_GROUP,
    CONTACT,
    FIXTURE_BITS,
    MOVABLE_BITS,
    NO_BITS,
    SUPPLEMENT,
    VISUAL_GROUP,
)
from oc_residual_gym.robots.shapes import geom_type
from oc_residual_gym.tasks.objects import Drawer, Geom, ObjectSpec, box_inertia

CONTACT_DIMENSIONS = 4
"""Objects resist turning on the spot besides sliding."""
DRAWER_STOP: dict[str, Any] = {"solref_limit": (0.01, 1.0), "solimp_limit": CONTACT["solimp"]}
"""Gives way by 0.35 mm to the 32 N of the impedance's leash, and softens the hand's blow."""
DRAWER_INERTIA_SIZE = (0.1, 0.15, 0.02)
"""Half sizes in metres of the solid box whose inertia a drawer has."""


def add_object(spec: mujoco.MjSpec, item: ObjectSpec, prefix: str) -> mujoco.MjsBody:
    """Add the body ``<prefix>main`` with its drawers ``<prefix><drawer>``, and the meshes of its geoms.

    Contacts are so stiff that a 40 N grasp sinks in by less than 0.1 mm.
    """
    for i, geom in enumerate(item.geoms):
        if geom.type == "mesh":
            _add_mesh(spec, f"{prefix}g{i}", geom)
    body = spec.worldbody.add_body(name=f"{prefix}main")
    if not item.fixed:
        body.add_joint(name=f"{prefix}joint0", type=mujoco.mjtJoint.mjJNT_FREE)
        _set_inertial(body, item.mass, item.inertia, item.center_of_mass)
    _add_geoms(body, prefix, item.geoms, item)
    for drawer in item.drawers:
        _add_drawer(body, prefix, drawer, item)
    return body


def _set_inertial(
    body: mujoco.MjsBody, mass: float, inertia: Sequence[float], center: Sequence[float] = (0.0, 0.0, 0.0)
) -> None:
    body.explicitinertial = True
    body.mass, body.ipos, body.inertia = mass, center, inertia


def _add_mesh(spec: mujoco.MjSpec, name: str, geom: Geom) -> None:
    mesh = spec.add_mesh(name=name, uservert=np.ravel(geom.vertices))
    mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    if geom.faces:
        # A surface that is only seen need not be closed.
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        mesh.userface = np.ravel(geom.faces)


def _add_geoms(body: mujoco.MjsBody, prefix: str, geoms: Sequence[Geom], item: ObjectSpec) -> None:
    contact = {
        "group": COLLISION_GROUP,
        "friction": (item.friction, *SUPPLEMENT),
        "condim": CONTACT_DIMENSIONS,
        **CONTACT,
        **(FIXTURE_BITS if item.fixed else MOVABLE_BITS),
    }
    for i, geom in enumerate(geoms):
        name = f"{prefix}g{i}"
        shape = _shape(geom, name)
        if geom.role != "visual":
            body.add_geom(name=name, **{**contact, **shape, **(geom.bits or {})})
        if geom.role != "collision":
            body.add_geom(name=f"{name}_visual", group=VISUAL_GROUP, mass=0.0, **shape, **NO_BITS)


def _shape(geom: Geom, mesh: str) -> dict[str, Any]:
    placed = {
        "type": geom_type(geom.type),
        "pos": geom.pos,
        "quat": geom.quat,
        "rgba": geom.rgba,
    }
    if geom.type == "mesh":
        return placed | {"meshname": mesh}
    return placed | {"size": (*geom.size, 0.0, 0.0)[:3]}


def _add_drawer(parent: mujoco.MjsBody, prefix: str, drawer: Drawer, item: ObjectSpec) -> None:
    name = prefix + drawer.name
    body = parent.add_body(name=name, pos=drawer.pos)
    body.add_joint(
        name=f"{name}_slide",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=drawer.axis,
        range=(0.0, drawer.travel),
        damping=(drawer.damping, 0.0, 0.0),
        frictionloss=drawer.frictionloss,
        stiffness=(drawer.stiffness, 0.0, 0.0),
        springref=drawer.spring_rest,
        **DRAWER_STOP,
    )
    _set_inertial(body, drawer.mass, box_inertia(drawer.mass, DRAWER_INERTIA_SIZE))
    _add_geoms(body, f"{name}_", drawer.geoms, item)
