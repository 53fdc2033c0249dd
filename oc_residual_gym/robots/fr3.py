"""The Franka Research 3 with the Franka Hand as robosuite models: ``robosuite.make(..., robots="FR3")``.

Kinematics, inertias and limits come from Franka's robot description (see :mod:`.constants`), meshes and naming
from robosuite's Panda. Importing this module registers both models with robosuite.

Names, after robosuite's prefixes (robot 0):

=============================  =================================================================================
bodies                         ``robot0_link0`` .. ``robot0_link7``; ``robot0_right_hand`` is the hand's frame;
                               ``gripper0_right_right_gripper`` carries the hand (turned by -90 degrees about z),
                               ``gripper0_right_leftfinger`` (at +y of the hand), ``gripper0_right_rightfinger``
joints                         ``robot0_joint1`` .. ``robot0_joint7``; ``gripper0_right_finger_joint1`` (0 to 0.04 m)
                               and ``gripper0_right_finger_joint2`` (-0.04 m to 0); both 0 = closed
actuators                      ``robot0_torq_j1`` .. ``robot0_torq_j7``; ``gripper0_right_gripper_finger_joint1``, ``2``
sites                          ``gripper0_right_tcp`` (axes of the hand: fingers move along y),
                               ``gripper0_right_grip_site`` (robosuite's, same point, turned by -90 degrees about z)
contact geoms                  ``robot0_link<i>_collision<k>``, ``gripper0_right_hand_collision``,
                               ``gripper0_right_finger1_pad_collision``, ``gripper0_right_finger1_collision``, ``2``
cameras                        ``robot0_wrist``, robosuite's ``robot0_eye_in_hand`` and ``robot0_robotview``
=============================  =================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from robosuite.models.grippers import PandaGripper, register_gripper
from robosuite.models.robots import Panda
from robosuite.robots import register_robot_class
from robosuite.utils.mjcf_utils import array_to_string, string_to_array
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.constants import (
    ARM_JOINTS,
    ARM_LINKS,
    FINGER_SPEED,
    FR3_DESCRIPTION,
    GRASP_FORCE,
    HAND_OFFSET,
    HAND_ROTATION,
    HOME_JOINT_POSITIONS,
    JOINT_LOWER,
    JOINT_TORQUE_LIMIT,
    JOINT_UPPER,
    MAX_OPENING,
    TCP_OFFSET,
)
from oc_residual_gym.robots.shapes import (
    ARM_COLLISION,
    ARM_VISUAL,
    FINGER_PAD,
    FINGER_STEM,
    FINGER_VISUAL,
    HAND_COLLISION,
    HAND_VISUAL,
    PAD_FRICTION,
    Shape,
)

Visuals = Literal["light", "full"]
"""``full``: robosuite's meshes, for people. ``light``: primitives without mesh or texture, for policies."""

JOINT_DAMPING = 1.0
"""Nm s/rad. Identified on an FR3: 0.21 (source below); more of it settles the null space."""
JOINT_ARMATURE = np.array([0.195, 0.195, 0.195, 0.195, 0.074, 0.074, 0.074])
"""kg m^2: what the FR3's joint torque control leaves of the rotors' inertia, as identified under torque control for
MuJoCo Menagerie's ``franka_fr3`` (its changelog, 2025-04-25). Uncontrolled, the rotors would add 0.61 (joints 1, 2),
0.46 (3, 4) and 0.21 kg m^2 (5 to 7): Franka's figures in the README of Drake's ``franka_description``."""
JOINT_FRICTIONLOSS = 0.0
"""Nm: torque control compensates friction (0.2 Nm in the robot description); ``twin`` adds what it may leave."""

# Franka Hand, from Franka's robot description (end_effectors/franka_hand).
HAND_INERTIAL = {"pos": "-0.01 0 0.03", "mass": "0.73", "diaginertia": "0.001 0.0025 0.0017"}
FINGER_INERTIAL = {"pos": "0 0 0", "mass": "0.015", "diaginertia": "2.375e-6 2.375e-6 7.5e-7"}
FINGER_ORIGIN = 0.0584
"""Fingers' frames from the hand's frame along z, m."""
FINGER_ARMATURE = 0.1
"""kg a finger, drive included: MuJoCo Menagerie's Panda hand."""
FINGER_DAMPING = 10.0
"""N s/m a finger: 0.5 N at full speed."""
FINGER_GAIN = 5000.0
"""N/m, robosuite's gripper control only: full force from 8 mm of error on, as on a 16 mm peg."""
FINGER_GAIN_DAMPING = 40.0
"""N s/m: critical damping for that gain."""

CONTACT = {"solref": "0.004 1", "solimp": "0.95 0.99 0.001"}
"""The stiffest that 2 ms steps allow: a time constant of two steps."""
PAD_CONTACT = {
    "solref": "0.004 1",
    "solimp": "0.99 0.999 0.001",
    "condim": "4",
    "friction": f"{PAD_FRICTION} 0.005 0.0001",
    "priority": "1",
}
"""A 40 N grasp sinks into a 60 g block by 0.03 mm (with ``CONTACT`` 0.16 mm, and a held cylinder chatters). Priority:
what the pads touch is held with these numbers, whatever its own are."""
ROBOT_BITS = {"contype": "1", "conaffinity": "0"}
"""Robot geoms touch objects (2, 3) and fixtures (0, 3) but not each other: Franka's own controller keeps the arm
out of itself, and shapes that overlap a little at the joints must not brake it."""
NO_BITS = {"contype": "0", "conaffinity": "0"}

# Wrist camera: beside the hand, tilted inwards; sees the fingertips and the axis down to 25 cm below them.
WRIST_CAMERA_POSITION = (0.07, 0.0, 0.03)
WRIST_CAMERA_TILT = np.radians(20.0)
WRIST_CAMERA_FOVY = 58.0


def _vector(values: Iterable[float]) -> str:
    return array_to_string([float(value) for value in values])


def _quaternion(rotation: Rotation) -> str:
    """MuJoCo's wxyz at full precision."""
    return _vector(np.roll(rotation.as_quat(), 1))


def _append_geom(body: Element, name: str, shape: Shape, **attributes: str) -> None:
    SubElement(body, "geom", {"name": name, **shape.attributes(), **attributes})


def _append_collision(body: Element, name: str, shape: Shape, contact: Mapping[str, str] = CONTACT) -> None:
    _append_geom(body, name, shape, group="0", **ROBOT_BITS, **contact)


def _append_visual(body: Element, name: str, shape: Shape) -> None:
    _append_geom(body, name, shape, group="1", mass="0", **NO_BITS)


def _arm(prefix: str, visual_meshes: Mapping[str, list[Element]] | None) -> tuple[Element, Element]:
    """Bodies of the arm from the robot description, with light visuals where no meshes are given: (first, last)."""
    first = parent = Element("body")
    for link, joint in zip(ARM_LINKS, (None, *ARM_JOINTS), strict=True):
        body = parent if joint is None else SubElement(parent, "body")
        body.set("name", prefix + link)
        inertial = FR3_DESCRIPTION["links"][link]
        SubElement(
            body,
            "inertial",
            pos=_vector(inertial["com"]),
            mass=str(inertial["mass"]),
            fullinertia=_vector(inertial["inertia"][k] for k in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")),
        )
        if joint is not None:
            origin = FR3_DESCRIPTION["joints"][joint]
            body.set("pos", origin["xyz"])
            body.set("quat", _quaternion(Rotation.from_euler("xyz", string_to_array(origin["rpy"]))))
            index = ARM_JOINTS.index(joint)
            limit = JOINT_TORQUE_LIMIT[index]
            SubElement(
                body,
                "joint",
                name=prefix + joint,
                axis="0 0 1",
                limited="true",
                range=_vector((JOINT_LOWER[index], JOINT_UPPER[index])),
                damping=str(JOINT_DAMPING),
                armature=str(JOINT_ARMATURE[index]),
                frictionloss=str(JOINT_FRICTIONLOSS),
                actuatorfrclimited="true",
                actuatorfrcrange=_vector((-limit, limit)),
            )
        for i, shape in enumerate(ARM_COLLISION[link]):
            _append_collision(body, f"{prefix}{link}_collision{i}", shape)
        if visual_meshes is not None:
            body.extend(visual_meshes[link])
        else:
            for i, shape in enumerate(ARM_VISUAL[link]):
                _append_visual(body, f"{prefix}{link}_visual{i}", shape)
        parent = body
    return first, parent


def _find(root: Element, tag: str, name: str | None = None) -> Element:
    """The first descendant with this tag and name; robosuite's files always have those we ask for."""
    return next(e for e in root.iter(tag) if name is None or e.get("name") == name)


def _drop_meshes(asset: Element, names: set[str] | None = None) -> None:
    """Remove the named meshes, or (None) all meshes, textures and materials."""
    for element in list(asset):
        if names is None or (element.tag == "mesh" and element.get("name") in names):
            asset.remove(element)


def _check_visuals(visuals: str) -> None:
    if visuals not in get_args(Visuals):
        raise ValueError(f"visuals must be one of {', '.join(get_args(Visuals))}; got {visuals!r}")


@register_robot_class("FixedBaseRobot")
class FR3(Panda):
    """Franka Research 3 arm; robosuite mounts :class:`FR3Hand` on it.

    Args:
        idn: robosuite's number of this robot.
        visuals: see :data:`Visuals`.

    Raises:
        ValueError: ``visuals`` is unknown.
    """

    def __init__(self, idn: int | str = 0, visuals: Visuals = "full") -> None:
        _check_visuals(visuals)
        self.visuals = visuals
        super().__init__(idn=idn)
        # Panda's constructor sets its own.
        self.set_joint_attribute("damping", np.full(len(ARM_JOINTS), JOINT_DAMPING))

    def resolve_asset_dependency(self) -> None:
        """Robosuite's last step on the file's tree, before it names, sorts and prefixes elements: rewrite it here."""
        super().resolve_asset_dependency()
        base = _find(self.worldbody, "body", "base")
        panda = _find(base, "body", "link0")
        meshes = {
            link: [geom for geom in _find(base, "body", link).findall("geom") if geom.get("group") == "1"]
            for link in ARM_LINKS
        }
        first, last = _arm("", meshes if self.visuals == "full" else None)
        first.append(_find(panda, "site", "right_center"))
        last.append(self._hand_mount(_find(panda, "body", "right_hand")))
        base.remove(panda)
        base.append(first)
        _drop_meshes(self.asset, set(ARM_LINKS) if self.visuals == "full" else None)
        for motor, limit in zip(self.actuator, JOINT_TORQUE_LIMIT, strict=True):
            motor.set("ctrlrange", _vector((-limit, limit)))

    @staticmethod
    def _hand_mount(body: Element) -> Element:
        body.set("pos", _vector((0, 0, HAND_OFFSET)))
        body.set("quat", _quaternion(Rotation.from_euler("z", HAND_ROTATION)))
        body.remove(_find(body, "inertial"))  # the mass is the hand's
        tilt = WRIST_CAMERA_TILT
        SubElement(
            body,
            "camera",
            name="wrist",
            mode="fixed",
            pos=_vector(WRIST_CAMERA_POSITION),
            xyaxes=_vector((0, 1, 0, np.cos(tilt), 0, np.sin(tilt))),
            fovy=str(WRIST_CAMERA_FOVY),
        )
        return body

    @property
    def default_base(self) -> str:
        return "NullMount"

    @property
    def default_gripper(self) -> dict[str, str]:
        return {"right": "FR3Hand"}

    @property
    def init_qpos(self) -> np.ndarray:
        return np.array(HOME_JOINT_POSITIONS)

    @property
    def base_xpos_offset(self) -> dict[str, Any]:
        """As Panda's, but at the height of robosuite's tables and bins: the robot stands on the table's level."""
        return {
            "bins": (-0.5, -0.1, 0.8),
            "empty": (-0.6, 0.0, 0.0),
            "table": lambda table_length: (-0.16 - table_length / 2, 0.0, 0.8),
        }


@register_gripper
class FR3Hand(PandaGripper):
    """Franka Hand with its standard fingers, mechanically coupled.

    Args:
        idn: robosuite's name of this gripper.
        visuals: see :data:`Visuals`.

    Raises:
        ValueError: ``visuals`` is unknown.
    """

    def __init__(self, idn: int | str = 0, visuals: Visuals = "full") -> None:
        _check_visuals(visuals)
        self.visuals = visuals
        super().__init__(idn=idn)

    def resolve_asset_dependency(self) -> None:
        """Robosuite's last step on the file's tree, before it names, sorts and prefixes elements: rewrite it here."""
        super().resolve_asset_dependency()
        light = self.visuals == "light"
        hand = _find(self.worldbody, "body", "right_gripper")
        _rebuild_hand(hand, light)
        for side, finger in ((1, "leftfinger"), (-1, "rightfinger")):
            _rebuild_finger(_find(hand, "body", finger), side, light)
        eef = _find(hand, "body", "eef")
        eef.set("pos", _vector((0, 0, TCP_OFFSET)))
        for site in self.worldbody.iter("site"):
            # robosuite's markers: one is a beam 20 m long, whose shadow shows even where it is hidden.
            site.set("group", "4")
        _drop_meshes(self.asset, None if light else {"hand", "finger", "finger_vis2"})
        for actuator in self.actuator:
            actuator.set("kp", str(FINGER_GAIN))
            actuator.set("kv", str(FINGER_GAIN_DAMPING))
            actuator.set("forcerange", _vector((-GRASP_FORCE, GRASP_FORCE)))
        # One motor drives both fingers through a belt.
        SubElement(
            self.equality,
            "joint",
            name="finger_coupling",
            joint1="finger_joint2",
            joint2="finger_joint1",
            polycoef="0 -1 0 0 0",
            **CONTACT,
        )

    @property
    def speed(self) -> float:
        """Change of the action in [-1, 1] a control step, so that the fingers open and close as fast as the real ones.

        At robosuite's (and our) 20 Hz.
        """
        return 2.0 * FINGER_SPEED / MAX_OPENING / 20.0


def _rebuild_hand(hand: Element, light: bool) -> None:
    """``hand`` is turned by -90 degrees about z against Franka's hand frame: boxes and inertia turn back."""
    turn = _quaternion(Rotation.from_euler("z", np.pi / 2))
    hand.set("quat", _quaternion(Rotation.from_euler("z", -np.pi / 2)))
    for geom in hand.findall("geom"):
        if geom.get("group") == "0" or light:
            hand.remove(geom)
        else:
            geom.set("quat", turn)
    inertial = _find(hand, "inertial")
    inertial.attrib.clear()
    center = Rotation.from_euler("z", np.pi / 2).apply(string_to_array(HAND_INERTIAL["pos"]))
    inertial.attrib.update(HAND_INERTIAL, pos=_vector(center), quat=turn)
    frame = SubElement(hand, "body", name="hand", quat=turn)
    _append_collision(frame, "hand_collision", HAND_COLLISION)
    if light:
        for i, shape in enumerate(HAND_VISUAL):
            _append_visual(frame, f"hand_visual{i}", shape)
    SubElement(frame, "site", name="tcp", pos=_vector((0, 0, TCP_OFFSET)), size="0.005", group="4")


def _rebuild_finger(finger: Element, side: int, light: bool) -> None:
    """``side`` 1: the finger at +y of the hand, opening along +y; -1: its mirror image."""
    number = 1 if side > 0 else 2
    finger.set("pos", _vector((0, 0, FINGER_ORIGIN)))
    finger.set("quat", _quaternion(Rotation.from_euler("z", np.pi / 2)))
    _find(finger, "inertial").attrib = dict(FINGER_INERTIAL)
    _find(finger, "joint").attrib.update(
        damping=str(FINGER_DAMPING),
        armature=str(FINGER_ARMATURE),
        frictionloss="0",
        # MuJoCo's default limit gives way by 7 mm under the grasp force.
        solreflimit=CONTACT["solref"],
        solimplimit=CONTACT["solimp"],
    )
    finger.remove(_find(finger, "body", f"finger_joint{number}_tip"))
    for geom in finger.findall("geom"):
        if geom.get("group") == "0" or light:
            finger.remove(geom)
    _append_collision(finger, f"finger{number}_pad_collision", FINGER_PAD.mirrored(side), PAD_CONTACT)
    _append_collision(finger, f"finger{number}_collision", FINGER_STEM.mirrored(side))
    if light:
        for i, shape in enumerate(FINGER_VISUAL):
            _append_visual(finger, f"finger{number}_visual{i}", shape.mirrored(side))


def add_gravity_compensation(root: Element) -> None:
    """Let MuJoCo compensate the robot's weight, counted within the joints' torque limits, in a model's XML ``root``.

    For models driven by our own control. robosuite's controllers compensate gravity themselves and must not have it.

    Raises:
        ValueError: the model holds no FR3.
    """
    arms = [body for body in root.iter("body") if body.get("name", "").endswith("link0")]
    if not arms:
        raise ValueError(
            "add_gravity_compensation: no body named '...link0' in this model; add an FR3 to it first"
        )
    for arm in arms:
        for body in arm.iter("body"):
            body.set("gravcomp", "1")
            for joint in body.findall("joint"):
                if joint.get("type", "hinge") == "hinge":
                    joint.set("actuatorgravcomp", "true")


def write_arm_mjcf(path: str | os.PathLike[str]) -> None:
    """Write the arm without hand as a stand-alone MJCF of primitives, for other simulators.

    Bodies ``fr3_link0`` .. ``7``, joints and torque motors ``fr3_joint1`` .. ``7``, site ``attachment_site`` at the
    flange (axes of link 7), keyframe ``home``: MuJoCo Menagerie's names. The file appears complete or not at all.
    """
    root = Element("mujoco", model="fr3")
    SubElement(root, "compiler", angle="radian")
    SubElement(root, "option", integrator="implicitfast")
    first, last = _arm("fr3_", None)
    SubElement(last, "site", name="attachment_site", pos=_vector((0, 0, HAND_OFFSET)))
    base = SubElement(SubElement(root, "worldbody"), "body", name="base")
    base.append(first)
    actuator = SubElement(root, "actuator")
    for joint, limit in zip(ARM_JOINTS, JOINT_TORQUE_LIMIT, strict=True):
        name = f"fr3_{joint}"
        SubElement(
            actuator, "motor", name=name, joint=name, ctrllimited="true", ctrlrange=_vector((-limit, limit))
        )
    SubElement(SubElement(root, "keyframe"), "key", name="home", qpos=_vector(HOME_JOINT_POSITIONS))
    ElementTree.indent(root)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
