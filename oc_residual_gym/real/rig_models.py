"""What the rig's server is given: our arm, our hand and a task's scene as MJCF for franka-sim, and data about them.

franka-sim takes the body ``fr3_link7`` for the flange and hangs the hand on ``fr3_link8``. On a real FR3 the flange is
0.107 m ahead of link 7's frame: here link 7's frame is moved there along its joint's axis, which changes no motion.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from oc_residual_gym.geometry import WXYZ_FROM_XYZW, pose_multiply
from oc_residual_gym.perception.errors import error_model_of
from oc_residual_gym.robots.constants import (
    ARM_LINKS,
    FINGER_SPEED,
    GRASP_FORCE,
    HAND_OFFSET,
    HOME_JOINT_POSITIONS,
    MAX_OPENING,
    TCP_OFFSET,
)
from oc_residual_gym.robots.fr3 import add_bare_arm, add_motors, empty_arm_model
from oc_residual_gym.robots.hand import add_hand
from oc_residual_gym.robots.mjcf import write_mjcf
from oc_residual_gym.robots.reflex import WRENCH_FILTER
from oc_residual_gym.states import CONTROL_FREQUENCY, Array, TrueState
from oc_residual_gym.tasks.base import InitialState, Task
from oc_residual_gym.worlds.arena import add_arena
from oc_residual_gym.worlds.scene import body_names, empty_scene
from oc_residual_gym.worlds.scene_objects import add_object
from oc_residual_gym.worlds.tracker import NEAR_FINGERS

SELF_COLLISION_MARGIN = 0.05
"""Metres: where franka-sim's self-collision reflex stops the arm; the robot's own margin is not published."""
START_OFFSET = 0.1
"""Radians of every joint from the home posture to the arm's first one: homing has a way to go, and a short one."""
WATCHED_APART = 3
"""Links that are so many joints apart can meet; nearer ones are kept apart by joint limits."""

_LINK_BIT = 8
_ARM_PREFIX = "fr3_"


def write_models(task: Task | None, start: InitialState | None, folder: Path) -> dict[str, str]:
    """Write the arm (with the task's scene around it, if one is given) and the hand into ``folder``.

    Returns the environment variables that tell franka-sim of them.
    """
    files = {"FR3_MJCF": folder / "arm.xml", "FRANKA_HAND_MJCF": folder / "hand.xml"}
    if task is None or start is None:
        spec = empty_arm_model()
        add_motors(spec, _ARM_PREFIX, "joint{}")
    else:
        spec = _scene(task, start)
    _add_arm(spec)
    write_mjcf(spec, files["FR3_MJCF"])
    write_mjcf(_hand(), files["FRANKA_HAND_MJCF"])
    return {name: str(path) for name, path in files.items()}


def scene_data(task: Task | None, start: InitialState | None, full_scene: bool, pose_errors: str) -> dict[str, Any]:
    """What the server must know besides the models; poses are (7,) with xyzw, lengths in metres.

    ``objects``: what is published, by name: the name of its body, and its pose at the start. ``bodies``: those whose
    true state is told, and the name of each in the model. ``slides``: openings by drawer.

    Raises:
        SettingsError: there is no error model of that name.
    """
    data: dict[str, Any] = {
        "errors": asdict(error_model_of(pose_errors)),
        "control_frequency": CONTROL_FREQUENCY,
        "hand": {"speed": FINGER_SPEED, "force": GRASP_FORCE, "opening": MAX_OPENING, "tcp": TCP_OFFSET},
        "wrench_filter": WRENCH_FILTER,
        "joints": (HOME_JOINT_POSITIONS + START_OFFSET).tolist(),
        "near_fingers": NEAR_FINGERS,
        "full_scene": full_scene,
        "objects": {},
        "bodies": {},
        "slides": {},
    }
    if task is None or start is None:
        return data
    poses, names = _poses(task, start), body_names(task)
    data["objects"] = {o: {"body": b, "pose": poses[b].tolist()} for o, b in _observed(task, start).items()}
    data["bodies"] = {name: {"model": names[name], "pose": poses[name].tolist()} for name in poses}
    drawers = {d.name: f"{s.name}_{d.name}_slide" for s in task.specs for d in s.drawers}
    data["slides"] = {d: {"joint": j, "opening": start.slides.get(d, 0.0)} for d, j in drawers.items()}
    return data


def _poses(task: Task, start: InitialState) -> dict[str, Array]:
    """(7,) of each object and drawer at the start."""
    poses = {}
    for spec in task.specs:
        poses[spec.name] = np.asarray(start.poses[spec.name], float)
        for drawer in spec.drawers:
            offset = np.array([*drawer.pos, 0.0, 0.0, 0.0, 1.0])
            offset[:3] += start.slides.get(drawer.name, 0.0) * np.array(drawer.axis)
            poses[drawer.name] = pose_multiply(poses[spec.name], offset)
    return poses


def _observed(task: Task, start: InitialState) -> dict[str, str]:
    """Body whose pose each observed object has in this episode."""
    bodies = [b for s in task.specs for b in (s.name, *(d.name for d in s.drawers))]
    # Told apart by where they are: the task itself picks from numbered poses.
    marked = {b: np.full((1, 7), float(i)) for i, b in enumerate(bodies)}
    state = TrueState(
        poses=marked,
        velocities={},
        contacts={},
        slides={},
        parameters={k: np.array([v], float) for k, v in start.parameters.items()},
        table_height=np.zeros(1),
        tcp_pose=np.zeros((1, 7)),
        gripper_width=np.zeros(1),
    )
    return {o.name: bodies[int(p[0, 0])] for o, p in zip(task.objects, task.object_poses(state), strict=True)}


def _add_arm(spec: mujoco.MjSpec) -> None:
    """Add our arm, with link 7's frame at the flange."""
    link7 = add_bare_arm(spec, _ARM_PREFIX)
    offset = np.array([0.0, 0.0, HAND_OFFSET])
    link7.pos = link7.pos + HAND_OFFSET * _z_axis(link7)
    link7.ipos = link7.ipos - offset
    for item in (*link7.geoms, *link7.sites):
        if np.isnan(item.fromto[0]):
            item.pos = item.pos - offset
        else:
            item.fromto = item.fromto - np.tile(offset, 2)
    link7.add_body(name=f"{_ARM_PREFIX}link8")
    _watch_self_collision(spec)


def _watch_self_collision(spec: mujoco.MjSpec) -> None:
    """Let links that are three or more apart see each other from afar, so that the rig's reflex stops the arm.

    Doubles of the links' capsules report each other and push nothing: with a margin of their own, boxes would now and
    then push what they do not touch. In the workspace box with a tool that points down within 35 degrees no two of
    these links come closer than 85 mm.
    """
    for i, link in enumerate(ARM_LINKS):
        body = spec.body(f"{_ARM_PREFIX}{link}")
        capsules = [g for g in body.geoms if g.type == mujoco.mjtGeom.mjGEOM_CAPSULE and g.contype]
        for k, capsule in enumerate(capsules):
            body.add_geom(
                name=f"{_ARM_PREFIX}{link}_watch{k}",
                type=capsule.type,
                fromto=capsule.fromto,
                size=capsule.size,
                rgba=capsule.rgba,
                solref=capsule.solref,
                solimp=capsule.solimp,
                mass=0.0,
                contype=1 << (_LINK_BIT + i),
                conaffinity=sum(1 << (_LINK_BIT + j) for j in range(i + 1 - WATCHED_APART)),
                margin=SELF_COLLISION_MARGIN,
                gap=1.0,
            )


def _z_axis(body: mujoco.MjsBody) -> Array:
    w, x, y, z = body.quat
    return np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])


def _hand() -> mujoco.MjSpec:
    """Our hand, its frame where franka-sim's mount puts a body that is turned by half a turn."""
    spec = mujoco.MjSpec()
    spec.modelname = "hand"
    # franka-sim's mount turns by 135 degrees about z, the real one by -45.
    mount = spec.worldbody.add_body(name="hand_mount", quat=(0.0, 0.0, 0.0, 1.0))
    add_hand(spec, mount, prefix="")
    # The hand's mass is all on its parent; the rig's MuJoCo takes no body with shapes and without a mass.
    frame = spec.body("hand")
    frame.explicitinertial, frame.ipos = True, (0.0, 0.0, 0.0)
    # franka-sim adds up both fingers' positions to the width.
    second = spec.joint("finger_joint2")
    second.axis, second.range = (0.0, -1.0, 0.0), (0.0, MAX_OPENING / 2)
    for coupling in spec.equalities:
        coupling.data[1] = 1.0
    return spec


def _scene(task: Task, start: InitialState) -> mujoco.MjSpec:
    """The task's scene as SimWorld has it, without a robot."""
    spec = empty_scene(task.name)
    add_arena(spec)
    poses = _poses(task, start)
    for item in task.specs:
        body = add_object(spec, item, f"{item.name}_")
        body.pos, body.quat = poses[item.name][:3], poses[item.name][3:][WXYZ_FROM_XYZW]
    _drop_visuals(spec)
    return spec


def _drop_visuals(spec: mujoco.MjSpec) -> None:
    """Nobody looks, and the rig's MuJoCo does not know every kind of mesh that is only seen."""
    for geom in [g for g in spec.geoms if not (g.contype or g.conaffinity)]:
        spec.delete(geom)
    used = {geom.meshname for geom in spec.geoms}
    for mesh in [m for m in spec.meshes if m.name not in used]:
        spec.delete(mesh)
