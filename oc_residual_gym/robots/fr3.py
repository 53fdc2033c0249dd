"""The Franka Research 3 as a MuJoCo model, composed with ``mujoco.MjSpec``.

Kinematics, inertias and limits come from Franka's robot description (see :mod:`.constants`), names from
robosuite's Panda, so that :mod:`oc_residual_gym.bridge` shares them. Names in a model:

- bodies ``robot0_link0`` .. ``robot0_link7``; ``robot0_right_hand`` is the hand's frame (flange turned by -45
  degrees) and the root of everything on the flange; ``gripper0_right_right_gripper`` carries the hand's mass,
  turned by -90 degrees about z; ``gripper0_right_hand`` is the hand's frame again, with its contact shape;
  ``gripper0_right_leftfinger`` (at +y of the hand) and ``gripper0_right_rightfinger``;
- joints ``robot0_joint1`` .. ``robot0_joint7``, ``gripper0_right_finger_joint1`` (0 to 0.04 m) and
  ``gripper0_right_finger_joint2`` (-0.04 m to 0), both along +y of the hand and 0 when closed; the equality
  ``gripper0_right_finger_coupling`` keeps them opposite;
- motors ``robot0_torq_j1`` .. ``robot0_torq_j7``;
- sites ``gripper0_right_tcp`` (axes of the hand: the fingers move along y), ``gripper0_right_grip_site``
  (robosuite's reference, the same point turned by -90 degrees about z);
- contact geoms ``robot0_link<i>_collision<k>``, ``gripper0_right_hand_collision``,
  ``gripper0_right_finger1_pad_collision`` and ``gripper0_right_finger1_collision``, ``finger2`` likewise;
- cameras ``robot0_wrist``, and robosuite's ``robot0_eye_in_hand`` and ``robot0_robotview``.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.constants import (
    ARM_JOINTS,
    ARM_LINKS,
    FR3_DESCRIPTION,
    HAND_OFFSET,
    HAND_ROTATION,
    JOINT_LOWER,
    JOINT_TORQUE_LIMIT,
    JOINT_UPPER,
)
from oc_residual_gym.robots.geoms import add_collision, add_visual, quaternion
from oc_residual_gym.robots.hand import add_hand
from oc_residual_gym.robots.shapes import ARM_COLLISION, ARM_VISUAL, Color

ROBOT, GRIPPER = "robot0_", "gripper0_right_"
"""Prefixes of the names of arm and hand, robosuite's for its robot 0."""

JOINT_DAMPING = 1.0
"""Nm s/rad. On an FR3 0.21 was identified (source below); more of it settles the null space."""
JOINT_ARMATURE = np.array([0.195, 0.195, 0.195, 0.195, 0.074, 0.074, 0.074])
"""kg m^2: what the FR3's joint torque control leaves of the rotors' inertia, as identified in torque control
for MuJoCo Menagerie's ``franka_fr3`` (its changelog, 2025-04-25). The bare rotors would add 0.61 (joints 1
and 2), 0.46 (3 and 4) and 0.21 (5 to 7): Franka's figures, see Drake's ``franka_description``."""
JOINT_FRICTIONLOSS = 0.0
"""Nm. Torque control compensates friction; the robot description has 0.2, the domain ``twin`` 0.1 to 0.6."""

# Beside the hand, tilted inwards: sees the fingertips, what they hold, and the table below from any height.
_TILT = np.radians(25.0)
WRIST_CAMERA: dict[str, Any] = {
    "pos": (0.07, 0.0, 0.03),
    "xyaxes": (0.0, 1.0, 0.0, np.cos(_TILT), 0.0, np.sin(_TILT)),
    "fovy": 58.0,
}
"""In the hand's frame, m; the field of view in degrees."""

# robosuite's cameras and markers of its Panda: a scene has them, so that its controllers and wrappers find them.
EYE_IN_HAND_CAMERA: dict[str, Any] = {"pos": (0.05, 0.0, 0.0), "quat": (0.0, 0.707108, 0.707108, 0.0), "fovy": 75.0}
ROBOT_VIEW_CAMERA: dict[str, Any] = {"pos": (1.0, 0.0, 0.4), "quat": (0.653, 0.271, 0.271, 0.653)}
CENTER_SITE: dict[str, Any] = {"size": (0.01, 0.005, 0.005), "rgba": (1.0, 0.3, 0.3, 1.0), "group": 2}
MOUNT_BODY = "fixed_mount0_base"

CONTACT_COLOR: Color = (0.0, 0.5, 0.0, 1.0)


def add_robot(spec: mujoco.MjSpec) -> None:
    """Add arm and hand, fixed to the world's origin, and the arm's motors."""
    base = spec.worldbody.add_body(name=f"{ROBOT}base", explicitinertial=True, ipos=(0.0, 0.0, 0.0))
    base.add_camera(name=f"{ROBOT}robotview", **ROBOT_VIEW_CAMERA)
    add_hand(spec, add_mounted_arm(base, ROBOT), GRIPPER)
    base.add_body(name=MOUNT_BODY)
    add_motors(spec, ROBOT, "torq_j{}")


def add_mounted_arm(base: mujoco.MjsBody, prefix: str) -> mujoco.MjsBody:
    """Add the arm to the body ``base``, which is the base frame; return the body of the hand's frame."""
    last = add_arm(base, prefix)
    base.first_body().add_site(name=f"{prefix}right_center", **CENTER_SITE)
    mount = last.add_body(
        name=f"{prefix}right_hand",
        pos=(0.0, 0.0, HAND_OFFSET),
        quat=quaternion(Rotation.from_euler("z", HAND_ROTATION)),
    )
    mount.add_camera(name=f"{prefix}eye_in_hand", **EYE_IN_HAND_CAMERA)
    mount.add_camera(name=f"{prefix}wrist", **WRIST_CAMERA)
    return mount


def add_bare_arm(spec: mujoco.MjSpec, prefix: str) -> mujoco.MjsBody:
    """Add the arm without hand on a body ``base``, with the site ``attachment_site`` at the flange; return the last
    link."""
    last = add_arm(spec.worldbody.add_body(name="base"), prefix)
    last.add_site(name="attachment_site", pos=(0.0, 0.0, HAND_OFFSET))
    return last


def add_arm(base: mujoco.MjsBody, prefix: str) -> mujoco.MjsBody:
    """Add the arm's links with their joints to the body ``base``, which is the base frame; return the last link."""
    body = base
    for i, link in enumerate(ARM_LINKS):
        body = body.add_body(name=prefix + link, **_inertial(link), **(_origin(ARM_JOINTS[i - 1]) if i else {}))
        if i:
            _add_joint(body, prefix, i - 1)
        for k, shape in enumerate(ARM_COLLISION[link]):
            add_collision(body, f"{prefix}{link}_collision{k}", shape, CONTACT_COLOR)
        for k, shape in enumerate(ARM_VISUAL[link]):
            add_visual(body, f"{prefix}{link}_visual{k}", shape)
    return body


def _inertial(link: str) -> dict[str, Any]:
    data = FR3_DESCRIPTION["links"][link]
    full = [data["inertia"][k] for k in ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")]
    return {"explicitinertial": True, "mass": data["mass"], "ipos": data["com"], "fullinertia": full}


def _origin(joint: str) -> dict[str, Any]:
    xyz, rpy = (np.array(FR3_DESCRIPTION["joints"][joint][key].split(), float) for key in ("xyz", "rpy"))
    return {"pos": xyz, "quat": quaternion(Rotation.from_euler("xyz", rpy))}


def _add_joint(body: mujoco.MjsBody, prefix: str, index: int) -> None:
    body.add_joint(
        name=prefix + ARM_JOINTS[index],
        axis=(0.0, 0.0, 1.0),
        range=(JOINT_LOWER[index], JOINT_UPPER[index]),
        damping=(JOINT_DAMPING, 0.0, 0.0),
        armature=JOINT_ARMATURE[index],
        frictionloss=JOINT_FRICTIONLOSS,
        actfrcrange=(-JOINT_TORQUE_LIMIT[index], JOINT_TORQUE_LIMIT[index]),
    )


def add_motors(spec: mujoco.MjSpec, prefix: str, name: str) -> None:
    """Add a torque motor per joint of the arm, in Nm; ``name`` has a place for the joint's number."""
    for i, (joint, limit) in enumerate(zip(ARM_JOINTS, JOINT_TORQUE_LIMIT, strict=True)):
        motor = spec.add_actuator(
            name=prefix + name.format(i + 1),
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            target=prefix + joint,
            ctrlrange=(-limit, limit),
        )
        motor.set_to_motor()


def add_gravity_compensation(spec: mujoco.MjSpec) -> None:
    """Let MuJoCo carry the robot's weight, counted within the joints' torque limits.

    For models under our own control only: robosuite's controllers compensate gravity themselves.

    Raises:
        ValueError: the model holds no FR3.
    """
    links = [body for body in spec.bodies if body.name.endswith("_link0")]
    if not links:
        raise ValueError("the model has no body '..._link0': add an FR3 before its gravity compensation")
    for link in links:
        for body in (link, *link.find_all("body")):
            body.gravcomp = 1.0
            for joint in body.joints:
                joint.actgravcomp = joint.type == mujoco.mjtJoint.mjJNT_HINGE


def empty_arm_model() -> mujoco.MjSpec:
    """A model for the bare arm: MuJoCo's own options but for its integrator."""
    spec = mujoco.MjSpec()
    spec.modelname = "fr3"
    spec.compiler.degree = False
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    return spec
