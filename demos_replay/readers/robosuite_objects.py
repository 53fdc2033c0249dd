"""Find the objects and the table of a robosuite model: their bodies and sizes."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import mujoco
import numpy as np

from oc_residual_gym.states import Array

_FURNITURE = re.compile(r"table|floor|wall|ground|mount|arena", re.IGNORECASE)
"""Matches names of fixed bodies that are not objects of a task."""
_SUFFIX = re.compile(r"_(main|root)$")
"""Suffix that robosuite adds to an object's name to name its body."""


@dataclass(frozen=True)
class FoundObject:
    """An object: a body outside the robot with everything that is rigidly fixed to it."""

    name: str
    body: int
    centre: Array
    """Pose (7,) of its bounding box in its body's frame."""
    half_size: Array | None
    """(3,) half extents of that box along the body's axes, metres; None if its meshes are missing."""


def find_objects(
    model: mujoco.MjModel, qpos: Array, mesh_bodies: Collection[str], robot_bodies: Collection[int]
) -> list[FoundObject]:
    """Find all objects that can move, and fixed ones that belong to the task, such as pegs and bins."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    carriers = _carriers(model)
    found = []
    for body in sorted(set(carriers) - {0} - set(robot_bodies)):
        rigid = [i for i in range(model.nbody) if carriers[i] == body]
        name = model.body(body).name
        meshes = any(model.body(i).name in mesh_bodies for i in rigid)
        geoms = [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] in rigid and _collides(model, geom)]
        fixed = model.body_jntnum[body] == 0
        if not name or (fixed and _FURNITURE.search(name)) or not (geoms or meshes):
            continue
        box = None if meshes else _box(model, data, body, geoms)
        centre, half_size = box or (np.zeros(3), None)
        pose = np.concatenate([centre, [0.0, 0.0, 0.0, 1.0]])
        found.append(FoundObject(_SUFFIX.sub("", name), body, pose, half_size))
    return found


def table_top(model: mujoco.MjModel, qpos: Array, objects: list[FoundObject]) -> tuple[float, str | None]:
    """World height (m) of the surface that objects start on, and its source in the model (None if not found)."""
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    for site in range(model.nsite):
        if model.site(site).name == "table_top":
            return float(data.site_xpos[site, 2]), "site table_top"
    # Without a table, objects lie in bins: the widest box of a bin is its floor.
    for pattern in (r".*table.*", r"bin1"):
        tops = []
        for geom in range(model.ngeom):
            name = model.body(model.geom_bodyid[geom]).name
            if re.fullmatch(pattern, name, re.IGNORECASE) and _collides(model, geom):
                low, high = _extent(model, geom, data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3))
                tops.append((np.prod(high[:2] - low[:2]), high[2], name))
        if tops:
            _, height, name = max(tops)
            return float(height), f"body {name}"
    return 0.0, None


def _carriers(model: mujoco.MjModel) -> list[int]:
    """For each body, the movable or world-fixed body to which it is rigidly attached (possibly itself)."""
    carriers = [0]
    for body in range(1, model.nbody):
        parent = int(model.body_parentid[body])
        alone = model.body_jntnum[body] > 0 or parent == 0
        carriers.append(body if alone else carriers[parent])
    return carriers


def _collides(model: mujoco.MjModel, geom: int) -> bool:
    return bool(model.geom_contype[geom] or model.geom_conaffinity[geom])


def _extent(model: mujoco.MjModel, geom: int, position: Array, turn: Array) -> tuple[Array, Array]:
    """Least and greatest coordinates (3,) of a shape along the axes of the frame that it is placed in."""
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        start = model.mesh_vertadr[mesh]
        points = position + model.mesh_vert[start : start + model.mesh_vertnum[mesh]] @ turn.T
        return points.min(axis=0), points.max(axis=0)
    centre, half = position + turn @ model.geom_aabb[geom, :3], np.abs(turn) @ model.geom_aabb[geom, 3:]
    return centre - half, centre + half


def _box(model: mujoco.MjModel, data: mujoco.MjData, body: int, geoms: list[int]) -> tuple[Array, Array] | None:
    """Centre and half size of the bounding box of ``geoms``, in the body's frame."""
    turn = data.xmat[body].reshape(3, 3)
    extents = [
        _extent(model, g, turn.T @ (data.geom_xpos[g] - data.xpos[body]), turn.T @ data.geom_xmat[g].reshape(3, 3))
        for g in geoms
        if model.geom_type[g] != mujoco.mjtGeom.mjGEOM_PLANE
    ]
    if not extents:
        return None
    low, high = np.min([low for low, _ in extents], axis=0), np.max([high for _, high in extents], axis=0)
    return (low + high) / 2, (high - low) / 2
