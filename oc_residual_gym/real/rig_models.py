"""What the rig's server is given: our arm, our hand and a task's scene as MJCF for franka-sim, and data about them.

franka-sim takes the body ``fr3_link7`` for the flange and hangs the hand on ``fr3_link8``. On a real FR3 the flange is
0.107 m ahead of link 7's frame: here link 7's frame is moved there along its joint's axis, which changes no motion.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from robosuite.utils.mjcf_utils import string_to_array

from oc_residual_gym.geometry import WXYZ_FROM_XYZW, pose_multiply
from oc_residual_gym.perception.errors import error_model_of
from oc_residual_gym.robots.constants import ARM_LINKS, FINGER_SPEED, GRASP_FORCE, HAND_OFFSET, MAX_OPENING, TCP_OFFSET
from oc_residual_gym.robots.fr3 import FR3Hand, write_arm_mjcf
from oc_residual_gym.robots.mjcf import find, vector
from oc_residual_gym.states import CONTROL_FREQUENCY, Array, TrueState
from oc_residual_gym.tasks.base import InitialState, Task
from oc_residual_gym.worlds.scene import body_names, compose, set_options
from oc_residual_gym.worlds.tracker import NEAR_FINGERS

SELF_COLLISION_MARGIN = 0.05
"""Metres: where franka-sim's self-collision reflex stops the arm; the robot's own margin is not published."""
WATCHED_APART = 3
"""Links that are so many joints apart can meet; nearer ones are kept apart by joint limits."""

_LINK_BIT = 8
_HAND_PREFIX = "gripper0_right_"


def write_models(task: Task | None, start: InitialState | None, folder: Path) -> dict[str, str]:
    """Write the arm (with the task's scene around it, if one is given) and the hand into ``folder``.

    Returns the environment variables that tell franka-sim of them.
    """
    files = {"FR3_MJCF": folder / "arm.xml", "FRANKA_HAND_MJCF": folder / "hand.xml"}
    arm = _arm(folder)
    root = arm if task is None or start is None else _scene(task, start, arm)
    for tree, path in ((root, files["FR3_MJCF"]), (_hand(), files["FRANKA_HAND_MJCF"])):
        ElementTree.indent(tree)
        ElementTree.ElementTree(tree).write(path, encoding="utf-8", xml_declaration=True)
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


def _arm(folder: Path) -> Element:
    """Our arm, with link 7's frame at the flange."""
    path = folder / f".arm.{os.getpid()}.xml"
    write_arm_mjcf(path)
    root = ElementTree.parse(path).getroot()
    path.unlink()
    root.remove(find(root, "keyframe"))  # its length would have to follow the hand's joints
    link7 = find(root, "body", "fr3_link7")
    _move(link7, "pos", HAND_OFFSET * _z_axis(link7))
    for element in link7:
        if element.tag == "joint":
            continue
        if "fromto" in element.attrib:
            ends = string_to_array(element.get("fromto")) - [0, 0, HAND_OFFSET] * 2
            element.set("fromto", vector(ends))
        else:
            _move(element, "pos", np.array([0.0, 0.0, -HAND_OFFSET]))
    SubElement(link7, "body", name="fr3_link8")
    _watch_self_collision(root)
    return root


def _watch_self_collision(root: Element) -> None:
    """Let links that are three or more apart see each other from afar, so that the rig's reflex stops the arm.

    Doubles of the links' capsules report each other and push nothing: with a margin of their own, boxes would now and
    then push what they do not touch. In the workspace box with a tool that points down within 35 degrees no two of
    these links come closer than 85 mm.
    """
    for i, link in enumerate(ARM_LINKS):
        body = find(root, "body", f"fr3_{link}")
        capsules = [g for g in body.findall("geom") if g.get("type") == "capsule" and g.get("contype") != "0"]
        for k, capsule in enumerate(capsules):
            attributes = {
                "name": f"fr3_{link}_watch{k}",
                "contype": str(1 << (_LINK_BIT + i)),
                "conaffinity": str(sum(1 << (_LINK_BIT + j) for j in range(i + 1 - WATCHED_APART))),
                "margin": str(SELF_COLLISION_MARGIN),
                "gap": "1",
            }
            SubElement(body, "geom", {**capsule.attrib, **attributes})


def _z_axis(body: Element) -> Array:
    w, x, y, z = string_to_array(body.get("quat", "1 0 0 0"))
    return np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])


def _move(element: Element, key: str, by: Array) -> None:
    element.set(key, vector(string_to_array(element.get(key, "0 0 0")) + by))


def _hand() -> Element:
    """Our hand, its frame where franka-sim's mount puts a body that is turned by half a turn."""
    gripper = FR3Hand(idn="0_right", visuals="light")
    source = ElementTree.fromstring(gripper.get_xml())
    root = Element("mujoco", model="hand")
    SubElement(root, "compiler", angle="radian", autolimits="true")
    # franka-sim's mount turns by 135 degrees about z, the real one by -45.
    mount = SubElement(SubElement(root, "worldbody"), "body", name="hand_mount", quat="0 0 0 1")
    body = find(source, "body", f"{_HAND_PREFIX}right_gripper")
    mount.append(body)
    # The hand's mass is all on its parent; the rig's MuJoCo takes no body with shapes and without a mass.
    SubElement(find(body, "body", f"{_HAND_PREFIX}hand"), "inertial", pos="0 0 0", mass="0", diaginertia="0 0 0")
    equality = SubElement(root, "equality")
    equality.extend(source.findall("equality/joint"))
    for element in root.iter():
        for key in ("name", "joint1", "joint2"):
            if element.get(key, "").startswith(_HAND_PREFIX):
                element.set(key, element.get(key, "").removeprefix(_HAND_PREFIX))
    # franka-sim adds up both fingers' positions to the width.
    second = find(root, "joint", "finger_joint2")
    second.set("axis", "0 -1 0")
    second.set("range", vector((0.0, MAX_OPENING / 2)))
    for joint in equality:
        joint.set("polycoef", "0 1 0 0 0")
    return root


def _scene(task: Task, start: InitialState, arm: Element) -> Element:
    """The task's scene as SimWorld has it, around this arm instead of robosuite's robot."""
    root = ElementTree.fromstring(compose(task, "light").get_xml())
    for tag in ("actuator", "sensor", "tendon", "equality", "contact", "size", "keyframe"):
        for element in root.findall(tag):
            root.remove(element)
    world = find(root, "worldbody")
    for body in world.findall("body"):
        if body.get("name", "").startswith("robot0_") or body.get("name", "").endswith("_eef_target"):
            world.remove(body)
    _drop_visuals(root)
    set_options(root)
    world.extend(find(arm, "worldbody"))
    poses: Mapping[str, Array] = _poses(task, start)
    for spec in task.specs:
        body = find(root, "body", f"{spec.name}_main")
        body.set("pos", vector(poses[spec.name][:3]))
        body.set("quat", vector(poses[spec.name][3:][WXYZ_FROM_XYZW]))
    return root


def _drop_visuals(root: Element) -> None:
    """Nobody looks, and the rig's MuJoCo does not know every kind of mesh that is only seen."""
    for body in root.iter():
        for geom in body.findall("geom"):
            if geom.get("contype") == geom.get("conaffinity") == "0":
                body.remove(geom)
    used = {geom.get("mesh") for geom in root.iter("geom")}
    assets = find(root, "asset")
    for element in list(assets):
        if element.get("name") not in used:
            assets.remove(element)
        element.attrib.pop("inertia", None)
