"""Composition of a task's scene with ``mujoco.MjSpec``: arena, our FR3, the task's objects, drives and sensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mujoco
import numpy as np

from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS, MAX_OPENING
from oc_residual_gym.robots.fr3 import GRIPPER, ROBOT, add_gravity_compensation, add_robot
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.worlds.arena import add_arena
from oc_residual_gym.worlds.instruments import (
    HAND,
    HAND_MASS,
    TCP_SITE,
    add_hand_drive,
    add_impedance,
    add_sensors,
    add_target,
)
from oc_residual_gym.worlds.scene_objects import add_object
from oc_residual_gym.worlds.visuals import Visuals, check_visuals, dress

__all__ = ["GRIPPER", "HAND", "HAND_MASS", "PHYSICS_TIMESTEP", "TCP_SITE", "Scene", "build_scene"]

PHYSICS_TIMESTEP = 0.002
"""Seconds."""

FIXED_CAMERA = {"position": (0.05, -0.65, 0.75), "target": (0.55, 0.0, 0.15), "fovy": 50.0}
"""At the right shoulder: sees every task; metres in the base frame, degrees."""
PERSON_CAMERA = {"position": (0.15, -1.35, 0.75), "target": (0.36, 0.0, 0.24), "fovy": 40.0}
"""For people: the whole arm, the table and the cabinet's front from the right."""

BODY_NAMES = {
    "table": "table",
    "left_finger": f"{GRIPPER}leftfinger",
    "right_finger": f"{GRIPPER}rightfinger",
}


@dataclass(frozen=True)
class Scene:
    """A compiled model and where to find things in it."""

    model: mujoco.MjModel
    bodies: tuple[str, ...]
    """Reported bodies, in the order of the pose sensors: objects, then drawers."""
    body_ids: dict[str, int]
    fixtures: tuple[str, ...]
    """Objects that are mocap bodies, after the target, in the order of ``mocap_pos``."""
    drawers: tuple[str, ...]
    sensors: dict[str, slice]
    """Sensor group to its columns in ``sensordata``."""
    home: np.ndarray
    """(nq,) joint positions with the arm at home, the hand open, objects at their frames' origin."""
    arm_qpos: np.ndarray
    """(7,) addresses in qpos; equal to those in qvel."""
    finger_qpos: np.ndarray
    """(2,) addresses in qpos."""
    free_qpos: dict[str, int]
    """Movable object to the address of its free joint in qpos."""
    slide_qpos: dict[str, int]
    """Drawer to the address of its slide in qpos."""


def empty_scene(name: str) -> mujoco.MjSpec:
    """A model of this name with the project's physics and lights, and nothing in it."""
    spec = mujoco.MjSpec()
    spec.modelname = name
    spec.compiler.degree = False
    # A fixture's mass follows from its contact shapes, which are in group 0.
    spec.compiler.inertiagrouprange = (0, 0)
    set_options(spec)
    return spec


@lru_cache(maxsize=32)
def build_scene(task: Task, visuals: Visuals = "light") -> Scene:
    """Compile the scene of ``task`` for SimWorld. The model is shared: copy it before changing it.

    Raises:
        ValueError: ``visuals`` is unknown.
    """
    check_visuals(visuals)
    bodies = tuple(s.name for s in task.specs) + tuple(d.name for s in task.specs for d in s.drawers)
    names = body_names(task)
    spec = empty_scene(task.name)
    add_target(spec)
    add_arena(spec)
    add_robot(spec)
    add_gravity_compensation(spec)
    for item in task.specs:
        add_object(spec, item, f"{item.name}_").mocap = item.fixed
    add_cameras(spec)
    add_impedance(spec)
    add_hand_drive(spec)
    add_sensors(spec, task, bodies, names)
    if visuals == "full":
        dress(spec)
    return _index(spec.compile(), task, bodies, names)


def body_names(task: Task) -> dict[str, str]:
    """Body names of the tasks to those of the model."""
    names = dict(BODY_NAMES)
    for spec in task.specs:
        names[spec.name] = f"{spec.name}_main"
        names.update({d.name: f"{spec.name}_{d.name}" for d in spec.drawers})
    return names


def _index(model: mujoco.MjModel, task: Task, bodies: tuple[str, ...], names: dict[str, str]) -> Scene:
    sensors: dict[str, slice] = {}
    for i in range(model.nsensor):
        group = model.sensor(i).name.split(":")[0]
        start, stop = int(model.sensor_adr[i]), int(model.sensor_adr[i] + model.sensor_dim[i])
        sensors[group] = slice(sensors[group].start if group in sensors else start, stop)

    def address(joint: str) -> int:
        return int(model.joint(joint).qposadr[0])

    arm = np.array([address(f"{ROBOT}joint{i}") for i in range(1, 8)])
    fingers = np.array([address(f"{GRIPPER}finger_joint{i}") for i in (1, 2)])
    signs = np.array([np.sign(model.joint(f"{GRIPPER}finger_joint{i}").range.sum()) for i in (1, 2)])
    home = model.qpos0.copy()
    home[arm] = HOME_JOINT_POSITIONS
    home[fingers] = signs * MAX_OPENING / 2
    return Scene(
        model=model,
        bodies=bodies,
        body_ids={b: model.body(names[b]).id for b in bodies},
        fixtures=tuple(s.name for s in task.specs if s.fixed),
        drawers=tuple(d.name for s in task.specs for d in s.drawers),
        sensors=sensors,
        home=home,
        arm_qpos=arm,
        finger_qpos=fingers,
        free_qpos={s.name: address(f"{s.name}_joint0") for s in task.specs if not s.fixed},
        slide_qpos={d.name: address(f"{s.name}_{d.name}_slide") for s in task.specs for d in s.drawers},
    )


def set_options(spec: mujoco.MjSpec) -> None:
    """Give the model the project's physics and lights."""
    option = spec.option
    option.timestep = PHYSICS_TIMESTEP
    option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    # Holds objects against slow creep in the grasp: friction constraints are stiffer than normal ones.
    option.impratio = 10.0
    # The default, 1e-6, now and then makes a cylinder that stands on a box, or lies on a disc, seem 17 mm deep in it.
    option.ccd_tolerance = 1e-10
    # A diverged state must stay visible instead of being reset silently.
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
    if mujoco.__version__ == "4.0.0":
        # Its sparse Cholesky factorisation is wrong.
        option.jacobian = mujoco.mjtJacobian.mjJAC_DENSE
    spec.stat.center, spec.stat.extent, spec.stat.meansize = (0.4, 0.0, 0.2), 1.0, 0.05
    visual = spec.visual
    visual.map.znear, visual.map.zfar = 0.01, 10.0
    visual.headlight.ambient, visual.headlight.diffuse = (0.3, 0.3, 0.3), (0.25, 0.25, 0.25)
    visual.headlight.specular = (0.1, 0.1, 0.1)
    visual.quality.shadowsize = 2048
    # The offscreen buffer's largest image.
    visual.global_.offwidth, visual.global_.offheight = 1920, 1080


def add_cameras(spec: mujoco.MjSpec) -> None:
    """Add the cameras "shoulder" and "person"."""
    add_camera(spec, "shoulder", FIXED_CAMERA)
    add_camera(spec, "person", PERSON_CAMERA)


def add_camera(spec: mujoco.MjSpec, name: str, camera: Mapping[str, Any]) -> None:
    """Add an upright camera: ``position`` and ``target`` in metres, ``fovy`` in degrees."""
    position, target = np.array(camera["position"]), np.array(camera["target"])
    # Not np.linalg.norm: its rounding depends on the processor, and the camera is part of the model.
    back = (position - target) / math.hypot(*(position - target))
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= math.hypot(*right)
    axes = [*right, *np.cross(back, right)]
    spec.worldbody.add_camera(name=name, pos=position, xyaxes=axes, fovy=camera["fovy"])
