"""Composition of a task's scene: robosuite's table, our FR3 and the task's objects, then what SimWorld adds.

SimWorld adds: a Cartesian impedance as site actuators towards a mocap body that carries the target, one tendon
actuator for the hand, joint motors for the posture torque, and sensors for everything that is read back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import mujoco
import numpy as np
from robosuite.models.arenas import TableArena
from robosuite.models.bases import NullMount
from robosuite.models.tasks import ManipulationTask

from oc_residual_gym.robots import REQUESTED_GL
from oc_residual_gym.robots.constants import GRASP_FORCE, HOME_JOINT_POSITIONS, MAX_OPENING
from oc_residual_gym.robots.fr3 import FR3, FR3Hand, add_gravity_compensation
from oc_residual_gym.robots.mjcf import Visuals
from oc_residual_gym.tasks.base import TABLE_TOP_SIZE, Task
from oc_residual_gym.worlds.impedance import ROTATIONAL_STIFFNESS, TRANSLATIONAL_STIFFNESS, damping_of
from oc_residual_gym.worlds.scene_objects import FIXTURE_BITS, SceneObject

# robosuite's import sets this for the whole process and its children, in which MuJoCo then fails to import where
# there is no OpenGL at all: leave the choice to whoever renders.
if REQUESTED_GL is None:
    os.environ.pop("MUJOCO_GL", None)

PHYSICS_TIMESTEP = 0.002
"""Seconds."""
TABLE_FRICTION = 0.5
"""Wood and metal on a coated table top."""
TABLE_CENTER_X = 0.3
"""Metres in front of the robot's base (the paper's table)."""
TABLE_THICKNESS = 0.05

FIXED_CAMERA = {"position": (0.05, -0.65, 0.75), "target": (0.55, 0.0, 0.15), "fovy": 50.0}
"""At the right shoulder: sees every task; metres in the base frame, degrees."""
PERSON_CAMERA = {"position": (0.15, -1.35, 0.75), "target": (0.36, 0.0, 0.24), "fovy": 40.0}
"""For people: the whole arm, the table and the cabinet's front from the right."""

ROBOT, GRIPPER = "robot0_", "gripper0_right_"
LINKS = tuple(f"{ROBOT}link{i}" for i in range(1, 8))
BODY_NAMES = {
    "table": "table",
    "left_finger": f"{GRIPPER}leftfinger",
    "right_finger": f"{GRIPPER}rightfinger",
}
HAND = f"{ROBOT}right_hand"
HAND_MASS = f"{GRIPPER}right_gripper"
"""The body that carries the hand's inertia."""
TCP_SITE = f"{GRIPPER}tcp"


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


def compose(task: Task, visuals: Visuals) -> ManipulationTask:
    """robosuite model of the task's scene, with ``visuals`` "light" (primitives) or "full" (meshes, textures)."""
    robot = FR3(visuals=visuals)
    robot.add_base(NullMount())
    robot.add_gripper(FR3Hand(idn="0_right", visuals=visuals))
    return compose_around(robot, task, visuals)


def compose_around(robot: FR3, task: Task, visuals: Visuals) -> ManipulationTask:
    """As :func:`compose`, with a robot that has its base and its hand already."""
    arena = TableArena(
        table_full_size=(*TABLE_TOP_SIZE, TABLE_THICKNESS),
        table_friction=(TABLE_FRICTION, 0.005, 0.0001),
        table_offset=(TABLE_CENTER_X, 0.0, 0.8),
    )
    arena.set_origin([0.0, 0.0, -0.8])
    _simplify_arena(arena.root, keep_textures=visuals == "full")
    return ManipulationTask(arena, [robot], [SceneObject(spec) for spec in task.specs])


@lru_cache(maxsize=32)
def build_scene(task: Task, visuals: Visuals = "light") -> Scene:
    """Compile the scene of ``task`` for SimWorld. The model is shared: copy it before changing it."""
    root = ElementTree.fromstring(compose(task, visuals).get_xml())
    world = _section(root, "worldbody")
    for marker in [b for b in world.findall("body") if b.get("name", "").endswith("_eef_target")]:
        world.remove(marker)
    add_gravity_compensation(root)
    set_options(root)
    add_cameras(root)
    _add_impedance(root)
    _add_hand_actuator(root)
    for spec in task.specs:
        if spec.fixed:
            _body(root, f"{spec.name}_main").set("mocap", "true")
    bodies = tuple(s.name for s in task.specs) + tuple(d.name for s in task.specs for d in s.drawers)
    names = body_names(task)
    _add_sensors(root, task, bodies, names)
    model = mujoco.MjModel.from_xml_string(ElementTree.tostring(root, encoding="unicode"))
    return _index(model, task, bodies, names)


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


def _section(root: Element, tag: str) -> Element:
    section = root.find(tag)
    return section if section is not None else SubElement(root, tag)


def _body(root: Element, name: str) -> Element:
    body = root.find(f".//body[@name='{name}']")
    if body is None:
        raise KeyError(f"the scene has no body {name!r}")
    return body


def _simplify_arena(root: Element, keep_textures: bool) -> None:
    """Drop robosuite's walls and cameras; set collision bits; without textures, plain colours."""
    world, assets = _section(root, "worldbody"), _section(root, "asset")
    for light in world.iter("light"):
        light.set("diffuse", "0.5 0.5 0.5")
    for child in list(world):
        name = child.get("name", "")
        if child.tag == "camera" or name.startswith("wall_"):
            world.remove(child)
    plain = {"floor": "0.82 0.82 0.80 1", "table_visual": "0.72 0.70 0.66 1"}
    for geom in world.iter("geom"):
        name = geom.get("name", "")
        if name in ("floor", "table_collision"):
            for key, value in FIXTURE_BITS.items():
                geom.set(key, value)
        # A plain table in both: white objects must stand out from it.
        if not keep_textures or name == "table_visual":
            geom.attrib.pop("material", None)
            geom.set("rgba", plain.get(name, "0.45 0.45 0.47 1"))
    if not keep_textures:
        # Emptied in place: robosuite holds on to the element.
        for child in list(assets):
            assets.remove(child)


def set_options(root: Element) -> None:
    """Give the model ``root`` the project's physics and lights instead of robosuite's."""
    for tag in ("option", "size", "visual", "statistic"):
        for element in root.findall(tag):
            root.remove(element)
    option = SubElement(root, "option", timestep=str(PHYSICS_TIMESTEP), integrator="implicitfast")
    option.set("cone", "elliptic")
    # Holds objects against slow creep in the grasp: friction constraints are stiffer than normal ones.
    option.set("impratio", "10")
    # The default, 1e-6, now and then makes a cylinder that stands on a box, or lies on a disc, seem 17 mm deep in it.
    option.set("ccd_tolerance", "1e-10")
    # A diverged state must stay visible instead of being reset silently.
    SubElement(option, "flag", autoreset="disable")
    SubElement(root, "statistic", center="0.4 0 0.2", extent="1.0", meansize="0.05")
    visual = SubElement(root, "visual")
    SubElement(visual, "map", znear="0.01", zfar="10")
    SubElement(visual, "headlight", ambient="0.3 0.3 0.3", diffuse="0.25 0.25 0.25", specular="0.1 0.1 0.1")
    SubElement(visual, "quality", shadowsize="2048")
    # "global" is a Python keyword-like name only in XML: the offscreen buffer's largest image.
    SubElement(visual, "global", offwidth="1920", offheight="1080")


def add_cameras(root: Element) -> None:
    """Add the cameras "shoulder" and "person"."""
    add_camera(root, "shoulder", FIXED_CAMERA)
    add_camera(root, "person", PERSON_CAMERA)


def add_camera(root: Element, name: str, camera: Mapping[str, Any]) -> None:
    """Add an upright camera: ``position`` and ``target`` in metres, ``fovy`` in degrees."""
    position, target = np.array(camera["position"]), np.array(camera["target"])
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    axes = _text([*right, *np.cross(back, right)])
    placed = {"name": name, "pos": _text(position), "xyaxes": axes, "fovy": str(camera["fovy"])}
    SubElement(_section(root, "worldbody"), "camera", placed)


def _add_impedance(root: Element) -> None:
    """Spring and damper from the TCP to the target's mocap body; the motors' controls are the posture torque."""
    target = Element("body", name="target", mocap="true")
    SubElement(target, "site", name="target", size="0.001", rgba="0 0 0 0")
    _section(root, "worldbody").insert(0, target)
    actuator = _section(root, "actuator")
    for axis in range(6):
        stiffness = TRANSLATIONAL_STIFFNESS if axis < 3 else ROTATIONAL_STIFFNESS
        gear = np.eye(6)[axis]
        SubElement(
            actuator,
            "general",
            name=f"impedance{axis}",
            site=TCP_SITE,
            refsite="target",
            gear=_text(gear),
            gainprm="0",
            biastype="affine",
            biasprm=_text([0.0, -stiffness, -damping_of(stiffness)]),
        )


def _add_hand_actuator(root: Element) -> None:
    """Replace robosuite's two finger actuators by one on the fingers' distance, as the Franka Hand has one motor."""
    actuator = _section(root, "actuator")
    for element in list(actuator):
        if element.get("joint", "").startswith(f"{GRIPPER}finger_joint"):
            actuator.remove(element)
    fixed = SubElement(_section(root, "tendon"), "fixed", name="gripper_width")
    SubElement(fixed, "joint", joint=f"{GRIPPER}finger_joint1", coef="1")
    SubElement(fixed, "joint", joint=f"{GRIPPER}finger_joint2", coef="-1")
    # Saturates at the grasp force once the command is 10 mm ahead of a blocked finger.
    SubElement(
        actuator,
        "position",
        name="gripper",
        tendon="gripper_width",
        kp="4000",
        kv="40",
        forcerange=_text([-GRASP_FORCE, GRASP_FORCE]),
    )


def _add_sensors(root: Element, task: Task, bodies: tuple[str, ...], names: dict[str, str]) -> None:
    """Sensors named ``<group>:<member>``; groups are contiguous in ``sensordata``."""
    existing = root.find("sensor")
    if existing is not None:
        root.remove(existing)
    sensor = SubElement(root, "sensor")

    def frame(group: str, kinds: tuple[str, ...], objtype: str, objname: str, member: str) -> None:
        for kind in kinds:
            SubElement(sensor, kind, name=f"{group}:{member}:{kind}", objtype=objtype, objname=objname)

    frame("tcp_pose", ("framepos", "framequat"), "site", TCP_SITE, "tcp")
    frame("tcp_velocity", ("framelinvel", "frameangvel"), "site", TCP_SITE, "tcp")
    for kind, group in (("jointpos", "joint_positions"), ("jointvel", "joint_velocities")):
        for i in range(1, 8):
            SubElement(sensor, kind, name=f"{group}:{i}", joint=f"{ROBOT}joint{i}")
    SubElement(sensor, "tendonpos", name="gripper_width:", tendon="gripper_width")
    # Joint axes and anchors make the Jacobian: in the FR3 every joint turns about its link's own z axis.
    for i, link in enumerate(LINKS):
        SubElement(sensor, "framezaxis", name=f"joint_axes:{i}", objtype="xbody", objname=link)
    for i, link in enumerate(LINKS):
        SubElement(sensor, "framepos", name=f"joint_anchors:{i}", objtype="xbody", objname=link)
    for body in bodies:
        frame("poses", ("framepos", "framequat"), "xbody", names[body], body)
    for body in bodies:
        frame("velocities", ("framelinvel", "frameangvel"), "xbody", names[body], body)
    for spec in task.specs:
        for drawer in spec.drawers:
            for kind in ("jointpos", "jointvel"):
                SubElement(sensor, kind, name=f"slides:{drawer.name}:{kind}", joint=f"{spec.name}_{drawer.name}_slide")
    for contact, (first, second) in task.contacts.items():
        element = SubElement(sensor, "contact", name=f"contacts:{contact}", num="1", data="found", reduce="mindist")
        for i, name in ((1, first), (2, second)):
            if name == "hand":
                element.set(f"subtree{i}", HAND)
            elif name is not None:
                element.set(f"body{i}", names[name])
    # Net contact wrench on the hand and fingers, about the point ``pos``, in base axes.
    SubElement(sensor, "contact", name="wrench:", num="1", data="force torque pos", reduce="netforce", subtree1=HAND)


def _text(values: Iterable[float]) -> str:
    return " ".join(f"{v:.17g}" for v in values)
