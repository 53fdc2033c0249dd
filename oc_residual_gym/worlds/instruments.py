"""What SimWorld adds to a scene: drives that follow a target, and sensors for everything that is read back.

The drives are a Cartesian impedance as site actuators towards a mocap body that carries the target, and one tendon
actuator for the hand. The arm's joint motors take the posture torque.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

from oc_residual_gym.robots.constants import GRASP_FORCE
from oc_residual_gym.robots.fr3 import GRIPPER, ROBOT
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.worlds.impedance import ROTATIONAL_STIFFNESS, TRANSLATIONAL_STIFFNESS, damping_of

LINKS = tuple(f"{ROBOT}link{i}" for i in range(1, 8))
HAND = f"{ROBOT}right_hand"
HAND_MASS = f"{GRIPPER}right_gripper"
"""The body that carries the hand's inertia."""
TCP_SITE = f"{GRIPPER}tcp"
TARGET = "target"
HAND_STIFFNESS, HAND_DAMPING = 4000.0, 40.0
"""N/m and N s/m on the fingers' distance: saturates at the grasp force once the command is 10 mm ahead of a blocked
finger."""

_OBJECT = mujoco.mjtObj
# Bits of a contact sensor's data (mjtConDataField), and its reductions, as the first two of its parameters.
_FOUND, _FORCE, _TORQUE, _POSITION = 1 << 0, 1 << 1, 1 << 2, 1 << 4
_NEAREST, _NET_FORCE = 1, 3


def add_target(spec: mujoco.MjSpec) -> None:
    """Add the mocap body of the target; before all other bodies, so that its pose is the first in ``mocap_pos``."""
    target = spec.worldbody.add_body(name=TARGET, mocap=True)
    target.add_site(name=TARGET, size=(0.001, 0.005, 0.005), rgba=(0.0, 0.0, 0.0, 0.0))


def add_impedance(spec: mujoco.MjSpec) -> None:
    """Add a spring and a damper from the TCP to the target, per axis."""
    for axis in range(6):
        stiffness = TRANSLATIONAL_STIFFNESS if axis < 3 else ROTATIONAL_STIFFNESS
        drive = spec.add_actuator(
            name=f"impedance{axis}",
            trntype=mujoco.mjtTrn.mjTRN_SITE,
            target=TCP_SITE,
            refsite=TARGET,
            gear=np.eye(6)[axis],
            biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        )
        drive.gainprm[0] = 0.0
        drive.biasprm[:3] = [0.0, -stiffness, -damping_of(stiffness)]


def add_hand_drive(spec: mujoco.MjSpec) -> None:
    """Add one drive on the fingers' distance, as the Franka Hand has one motor."""
    tendon = spec.add_tendon(name="gripper_width")
    tendon.wrap_joint(f"{GRIPPER}finger_joint1", 1.0)
    tendon.wrap_joint(f"{GRIPPER}finger_joint2", -1.0)
    drive = spec.add_actuator(
        name="gripper",
        trntype=mujoco.mjtTrn.mjTRN_TENDON,
        target="gripper_width",
        forcerange=(-GRASP_FORCE, GRASP_FORCE),
    )
    drive.set_to_position(kp=HAND_STIFFNESS, kv=HAND_DAMPING)


def add_sensors(spec: mujoco.MjSpec, task: Task, bodies: Sequence[str], names: Mapping[str, str]) -> None:
    """Add sensors named ``<group>:<member>``; groups are contiguous in ``sensordata``."""

    def add(name: str, kind: str, objtype: Any, objname: str, **options: Any) -> None:
        sensor = getattr(mujoco.mjtSensor, f"mjSENS_{kind.upper()}")
        spec.add_sensor(name=name, type=sensor, objtype=objtype, objname=objname, **options)

    def frame(group: str, kinds: tuple[str, ...], objtype: Any, objname: str, member: str) -> None:
        for kind in kinds:
            add(f"{group}:{member}:{kind}", kind, objtype, objname)

    pose, velocity = ("framepos", "framequat"), ("framelinvel", "frameangvel")
    frame("tcp_pose", pose, _OBJECT.mjOBJ_SITE, TCP_SITE, "tcp")
    frame("tcp_velocity", velocity, _OBJECT.mjOBJ_SITE, TCP_SITE, "tcp")
    for kind, group in (("jointpos", "joint_positions"), ("jointvel", "joint_velocities")):
        for i in range(1, 8):
            add(f"{group}:{i}", kind, _OBJECT.mjOBJ_JOINT, f"{ROBOT}joint{i}")
    add("gripper_width:", "tendonpos", _OBJECT.mjOBJ_TENDON, "gripper_width")
    # Joint axes and anchors make the Jacobian: in the FR3 every joint turns about its link's own z axis.
    for group, kind in (("joint_axes", "framezaxis"), ("joint_anchors", "framepos")):
        for i, link in enumerate(LINKS):
            add(f"{group}:{i}", kind, _OBJECT.mjOBJ_XBODY, link)
    for group, kinds in (("poses", pose), ("velocities", velocity)):
        for body in bodies:
            frame(group, kinds, _OBJECT.mjOBJ_XBODY, names[body], body)
    for item in task.specs:
        for drawer in item.drawers:
            frame(
                "slides",
                ("jointpos", "jointvel"),
                _OBJECT.mjOBJ_JOINT,
                f"{item.name}_{drawer.name}_slide",
                drawer.name,
            )
    for contact, (first, second) in task.contacts.items():
        objtype, objname = _party(first, names)
        reftype, refname = _party(second, names)
        parameters = [_FOUND, _NEAREST, 1]
        add(f"contacts:{contact}", "contact", objtype, objname, reftype=reftype, refname=refname, intprm=parameters)
    # Net contact wrench on all links, hand and fingers, about the point "position", in base axes. They never touch each
    # other, so none of it is internal.
    parameters = [_FORCE | _TORQUE | _POSITION, _NET_FORCE, 1]
    add("wrench:", "contact", _OBJECT.mjOBJ_XBODY, LINKS[0], intprm=parameters)


def _party(name: str | None, names: Mapping[str, str]) -> tuple[Any, str]:
    """Type and name of one side of a contact; the hand stands for all that is attached to it, ``None`` for anything."""
    if name is None:
        return _OBJECT.mjOBJ_UNKNOWN, ""
    return (_OBJECT.mjOBJ_XBODY, HAND) if name == "hand" else (_OBJECT.mjOBJ_BODY, names[name])
