"""The Franka Research 3 as a robosuite robot: ``robosuite.make(..., robots="FR3")``.

Kinematics, inertias and limits come from Franka's robot description (see :mod:`.constants`), meshes and names
from robosuite's Panda. Importing this module registers the arm and its hand with robosuite.

Names in a model, with robosuite's prefixes for robot 0:

- bodies ``robot0_link0`` .. ``robot0_link7``; ``robot0_right_hand`` is the hand's frame (flange turned by -45
  degrees) and the root of everything on the flange; ``gripper0_right_right_gripper`` carries the hand's mass,
  turned by -90 degrees about z; ``gripper0_right_hand`` is the hand's frame again, with its contact shape;
  ``gripper0_right_leftfinger`` (at +y of the hand) and ``gripper0_right_rightfinger``;
- joints ``robot0_joint1`` .. ``robot0_joint7``, ``gripper0_right_finger_joint1`` (0 to 0.04 m) and
  ``gripper0_right_finger_joint2`` (-0.04 m to 0), both along +y of the hand and 0 when closed; the equality
  ``gripper0_right_finger_coupling`` keeps them opposite;
- motors ``robot0_torq_j1`` .. ``robot0_torq_j7``; position actuators ``gripper0_right_gripper_finger_joint1``
  and ``2``;
- sites ``gripper0_right_tcp`` (axes of the hand: the fingers move along y), ``gripper0_right_grip_site``
  (robosuite's reference, the same point turned by -90 degrees about z);
- contact geoms ``robot0_link<i>_collision<k>``, ``gripper0_right_hand_collision``,
  ``gripper0_right_finger1_pad_collision`` and ``gripper0_right_finger1_collision``, ``finger2`` likewise;
- cameras ``robot0_wrist``, and robosuite's ``robot0_eye_in_hand`` and ``robot0_robotview``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from robosuite.models.robots import Panda
from robosuite.robots import register_robot_class
from robosuite.utils.mjcf_utils import string_to_array
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.constants import (
    ARM_JOINTS,
    ARM_LINKS,
    FR3_DESCRIPTION,
    HAND_OFFSET,
    HAND_ROTATION,
    HOME_JOINT_POSITIONS,
    JOINT_LOWER,
    JOINT_TORQUE_LIMIT,
    JOINT_UPPER,
)
from oc_residual_gym.robots.hand import FR3Hand
from oc_residual_gym.robots.mjcf import (
    Visuals,
    append_collision,
    append_visual,
    check_visuals,
    drop_assets,
    find,
    quaternion,
    vector,
)
from oc_residual_gym.robots.shapes import ARM_COLLISION, ARM_VISUAL
from oc_residual_gym.states import Array

__all__ = ["FR3", "FR3Hand", "add_gravity_compensation", "write_arm_mjcf"]

JOINT_DAMPING = 1.0
"""Nm s/rad. On an FR3 0.21 was identified (source below); more of it settles the null space."""
JOINT_ARMATURE = np.array([0.195, 0.195, 0.195, 0.195, 0.074, 0.074, 0.074])
"""kg m^2: what the FR3's joint torque control leaves of the rotors' inertia, as identified in torque control
for MuJoCo Menagerie's ``franka_fr3`` (its changelog, 2025-04-25). The bare rotors would add 0.61 (joints 1
and 2), 0.46 (3 and 4) and 0.21 (5 to 7): Franka's figures, see Drake's ``franka_description``."""
JOINT_FRICTIONLOSS = 0.0
"""Nm. Torque control compensates friction; the robot description has 0.2, the domain ``twin`` 0.1 to 0.6."""

# Beside the hand, tilted inwards: sees the fingertips, what they hold, and the table below from any height.
WRIST_CAMERA_POSITION = (0.07, 0.0, 0.03)
WRIST_CAMERA_TILT = np.radians(25.0)
WRIST_CAMERA_FOVY = 58.0


@register_robot_class("FixedBaseRobot")
class FR3(Panda):
    """Franka Research 3 arm; robosuite mounts :class:`FR3Hand` on it.

    Args:
        idn: robosuite's number of this robot.
        visuals: see :data:`oc_residual_gym.robots.mjcf.Visuals`.

    Raises:
        ValueError: ``visuals`` is unknown.
    """

    def __init__(self, idn: int | str = 0, visuals: Visuals = "full") -> None:
        check_visuals(visuals)
        self.visuals = visuals
        super().__init__(idn=idn)
        # Panda's constructor sets its own.
        self.set_joint_attribute("damping", np.full(len(ARM_JOINTS), JOINT_DAMPING))

    def resolve_asset_dependency(self) -> None:
        """Rewrite robosuite's tree in its last step before names are prefixed and elements sorted."""
        super().resolve_asset_dependency()
        full = self.visuals == "full"
        base = find(self.worldbody, "body", "base")
        panda = find(base, "body", "link0")
        meshes = {
            link: [g for g in find(base, "body", link).findall("geom") if g.get("group") == "1"] for link in ARM_LINKS
        }
        first, last = _arm(prefix="", meshes=meshes if full else None)
        first.append(find(panda, "site", "right_center"))
        last.append(_hand_mount(find(panda, "body", "right_hand")))
        base.remove(panda)
        base.append(first)
        drop_assets(self.asset, ARM_LINKS if full else None)
        for motor, limit in zip(self.actuator, JOINT_TORQUE_LIMIT, strict=True):
            motor.set("ctrlrange", vector((-limit, limit)))

    @property
    def default_base(self) -> str:
        return "NullMount"

    @property
    def default_gripper(self) -> dict[str, str]:
        return {"right": "FR3Hand"}

    @property
    def init_qpos(self) -> Array:
        return HOME_JOINT_POSITIONS.copy()

    @property
    def base_xpos_offset(self) -> dict[str, Any]:
        """As Panda's, but level with the tops of robosuite's tables and bins, as there is no pedestal."""
        return {
            "bins": (-0.5, -0.1, 0.8),
            "empty": (-0.6, 0.0, 0.0),
            "table": lambda table_length: (-0.16 - table_length / 2, 0.0, 0.8),
        }


def _arm(prefix: str, meshes: Mapping[str, list[Element]] | None) -> tuple[Element, Element]:
    """Bodies of the arm, from the first to the last link; visuals are these meshes, or light (None)."""
    first = body = Element("body")
    for i, link in enumerate(ARM_LINKS):
        if i > 0:
            body = SubElement(body, "body")
            _append_joint(body, prefix, i - 1)
        body.set("name", prefix + link)
        inertial = FR3_DESCRIPTION["links"][link]
        SubElement(
            body,
            "inertial",
            pos=vector(inertial["com"]),
            mass=str(inertial["mass"]),
            fullinertia=vector(inertial["inertia"][k] for k in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")),
        )
        for k, shape in enumerate(ARM_COLLISION[link]):
            append_collision(body, f"{prefix}{link}_collision{k}", shape)
        if meshes is not None:
            body.extend(meshes[link])
        else:
            for k, shape in enumerate(ARM_VISUAL[link]):
                append_visual(body, f"{prefix}{link}_visual{k}", shape)
    return first, body


def _append_joint(body: Element, prefix: str, index: int) -> None:
    origin = FR3_DESCRIPTION["joints"][ARM_JOINTS[index]]
    limit = JOINT_TORQUE_LIMIT[index]
    body.set("pos", origin["xyz"])
    body.set("quat", quaternion(Rotation.from_euler("xyz", string_to_array(origin["rpy"]))))
    SubElement(
        body,
        "joint",
        name=prefix + ARM_JOINTS[index],
        axis="0 0 1",
        limited="true",
        range=vector((JOINT_LOWER[index], JOINT_UPPER[index])),
        damping=str(JOINT_DAMPING),
        armature=str(JOINT_ARMATURE[index]),
        frictionloss=str(JOINT_FRICTIONLOSS),
        actuatorfrclimited="true",
        actuatorfrcrange=vector((-limit, limit)),
    )


def _hand_mount(body: Element) -> Element:
    body.set("pos", vector((0, 0, HAND_OFFSET)))
    body.set("quat", quaternion(Rotation.from_euler("z", HAND_ROTATION)))
    body.remove(find(body, "inertial"))  # robosuite's placeholder: the mass is the hand's
    camera = {"name": "wrist", "mode": "fixed", "fovy": str(WRIST_CAMERA_FOVY)}
    axes = (0, 1, 0, np.cos(WRIST_CAMERA_TILT), 0, np.sin(WRIST_CAMERA_TILT))
    SubElement(body, "camera", camera, pos=vector(WRIST_CAMERA_POSITION), xyaxes=vector(axes))
    return body


def add_gravity_compensation(root: Element) -> None:
    """Let MuJoCo carry the robot's weight in the model ``root``, counted within the joints' torque limits.

    For models under our own control only: robosuite's controllers compensate gravity themselves.

    Raises:
        ValueError: the model holds no FR3.
    """
    arms = [body for body in root.iter("body") if body.get("name", "").endswith("_link0")]
    if not arms:
        raise ValueError("the model has no body '..._link0': add an FR3 before its gravity compensation")
    for arm in arms:
        for body in arm.iter("body"):
            body.set("gravcomp", "1")
            for joint in body.findall("joint"):
                if joint.get("type", "hinge") == "hinge":
                    joint.set("actuatorgravcomp", "true")


def write_arm_mjcf(path: str | os.PathLike[str]) -> None:
    """Write the arm without hand as a stand-alone MJCF of primitives, for other simulators.

    Bodies ``fr3_link0`` .. ``fr3_link7``, joints and torque motors ``fr3_joint1`` .. ``fr3_joint7``, site
    ``attachment_site`` at the flange with the axes of link 7, keyframe ``home``: MuJoCo Menagerie's names.
    The file appears complete or not at all.
    """
    root = Element("mujoco", model="fr3")
    SubElement(root, "compiler", angle="radian")
    SubElement(root, "option", integrator="implicitfast")
    first, last = _arm(prefix="fr3_", meshes=None)
    SubElement(last, "site", name="attachment_site", pos=vector((0, 0, HAND_OFFSET)))
    base = SubElement(SubElement(root, "worldbody"), "body", name="base")
    base.append(first)
    actuator = SubElement(root, "actuator")
    for joint, limit in zip(ARM_JOINTS, JOINT_TORQUE_LIMIT, strict=True):
        name = f"fr3_{joint}"
        limits = {"ctrllimited": "true", "ctrlrange": vector((-limit, limit))}
        SubElement(actuator, "motor", limits, name=name, joint=name)
    SubElement(SubElement(root, "keyframe"), "key", name="home", qpos=vector(HOME_JOINT_POSITIONS))
    ElementTree.indent(root)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
