"""The Franka Hand with its standard fingers, mechanically coupled; its names are listed in :mod:`.fr3`."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.constants import MAX_OPENING, TCP_OFFSET
from oc_residual_gym.robots.geoms import CONTACT, LIMIT, MARKER_GROUP, SUPPLEMENT, add_collision, add_visual, quaternion
from oc_residual_gym.robots.shapes import FINGER_PAD, FINGER_STEM, FINGER_VISUAL, HAND_COLLISION, HAND_VISUAL, Color

# Franka's robot description, end_effectors/franka_hand: in the hand's and the fingers' own frames.
HAND_MASS, HAND_COM, HAND_INERTIA = 0.73, (-0.01, 0.0, 0.03), (0.001, 0.0025, 0.0017)
"""kg, m, kg m^2."""
FINGER_MASS, FINGER_COM, FINGER_INERTIA = 0.015, (0.0, 0.0, 0.0), (2.375e-6, 2.375e-6, 7.5e-7)
"""kg, m, kg m^2."""
FINGER_ORIGIN = 0.0584
"""Fingers' frames from the hand's frame along z, m."""

FINGER_ARMATURE = 0.1
"""kg per finger, drive included, as in MuJoCo Menagerie's Panda hand; Franka publishes none."""
FINGER_DAMPING = 10.0
"""N s/m per finger: 0.5 N at full speed."""

PAD_FRICTION = 1.0
"""Sliding friction of the fingertips' rubber: dry rubber on wood or plastic lies between 0.8 and 1.2."""
PAD_CONTACT: dict[str, Any] = {
    "solref": (0.004, 1.0),
    "solimp": (0.99, 0.999, 0.001, 0.5, 2.0),
    "condim": 4,
    "friction": (PAD_FRICTION, *SUPPLEMENT),
    "priority": 1,
}
"""Under 40 N a 60 g block sinks in by 0.03 mm (with ``CONTACT`` by 0.16 mm, and a held cylinder chatters).
Priority: whatever the pads touch is held with these numbers, not a mixture with its own."""

# robosuite's gripper frame, which the names and all recorded results have: Franka's hand frame turned by -90 degrees
# about z, with the fingers turned back.
FROM_HAND_FRAME = Rotation.from_euler("z", 90, degrees=True)

# The hand's marker sites, with robosuite's names, for the scenes are shared with its controllers; never seen.
_RED, _GREEN, _BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_SPHERE, _CYLINDER = mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CYLINDER
FORCE_SITE = {"name": "ft_frame", "type": _SPHERE, "size": (0.01, 0.01, 0.01), "rgba": (*_RED, 1.0)}
_AXIS_SIZE = (0.005, 0.1, 0.005)
TCP_SITES: tuple[dict[str, Any], ...] = (
    {"name": "grip_site", "type": _SPHERE, "size": (0.01, 0.01, 0.01), "rgba": (*_RED, 0.5)},
    {
        "name": "ee_x",
        "type": _CYLINDER,
        "pos": (0.1, 0.0, 0.0),
        "quat": (0.707105, 0.0, 0.707108, 0.0),
        "size": _AXIS_SIZE,
        "rgba": (*_RED, 0.0),
    },
    {
        "name": "ee_y",
        "type": _CYLINDER,
        "pos": (0.0, 0.1, 0.0),
        "quat": (0.707105, 0.707108, 0.0, 0.0),
        "size": _AXIS_SIZE,
        "rgba": (*_GREEN, 0.0),
    },
    {"name": "ee_z", "type": _CYLINDER, "pos": (0.0, 0.0, 0.1), "size": _AXIS_SIZE, "rgba": (*_BLUE, 0.0)},
    {"name": "grip_site_cylinder", "type": _CYLINDER, "size": (0.005, 10.0, 0.005), "rgba": (*_GREEN, 0.3)},
)

CONTACT_COLOR: Color = (0.0, 0.0, 0.5, 1.0)


def add_hand(spec: mujoco.MjSpec, mount: mujoco.MjsBody, prefix: str) -> mujoco.MjsBody:
    """Add the hand to the body ``mount``, which is the hand's frame, and the fingers' coupling to ``spec``.

    Returns:
        The body ``<prefix>right_gripper``, which carries the hand's mass.
    """
    hand = mount.add_body(
        name=f"{prefix}right_gripper",
        quat=quaternion(FROM_HAND_FRAME.inv()),
        explicitinertial=True,
        mass=HAND_MASS,
        ipos=FROM_HAND_FRAME.apply(HAND_COM),
        iquat=quaternion(FROM_HAND_FRAME),
        inertia=HAND_INERTIA,
    )
    _add_marker(hand, FORCE_SITE, prefix)
    tcp = hand.add_body(name=f"{prefix}eef", pos=(0.0, 0.0, TCP_OFFSET))
    for site in TCP_SITES:
        _add_marker(tcp, site, prefix)
    _add_finger(hand, prefix, "left", number=1, side=1)
    _add_finger(hand, prefix, "right", number=2, side=-1)
    frame = hand.add_body(name=f"{prefix}hand", quat=quaternion(FROM_HAND_FRAME))
    add_collision(frame, f"{prefix}hand_collision", HAND_COLLISION, CONTACT_COLOR)
    add_visual(frame, f"{prefix}hand_visual", HAND_VISUAL)
    frame.add_site(name=f"{prefix}tcp", pos=(0.0, 0.0, TCP_OFFSET), size=(0.005, 0.005, 0.005), group=MARKER_GROUP)
    _couple_fingers(spec, prefix)
    return hand


def _add_marker(body: mujoco.MjsBody, site: dict[str, Any], prefix: str) -> None:
    body.add_site(**{**site, "name": prefix + site["name"]}, group=MARKER_GROUP)


def _add_finger(hand: mujoco.MjsBody, prefix: str, name: str, number: int, side: int) -> None:
    """``side`` 1: the finger at +y of the hand, which opens along +y; -1: its mirror image."""
    finger = hand.add_body(
        name=f"{prefix}{name}finger",
        pos=(0.0, 0.0, FINGER_ORIGIN),
        quat=quaternion(FROM_HAND_FRAME),
        explicitinertial=True,
        mass=FINGER_MASS,
        ipos=FINGER_COM,
        inertia=FINGER_INERTIA,
    )
    finger.add_joint(
        name=f"{prefix}finger_joint{number}",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=(0.0, 1.0, 0.0),
        range=sorted((0.0, side * MAX_OPENING / 2)),
        damping=(FINGER_DAMPING, 0.0, 0.0),
        armature=FINGER_ARMATURE,
        **LIMIT,  # MuJoCo's default gives way by 7 mm under the grasp force
    )
    names = f"{prefix}finger{number}"
    add_collision(finger, f"{names}_pad_collision", FINGER_PAD.mirrored(side), CONTACT_COLOR, PAD_CONTACT)
    add_collision(finger, f"{names}_collision", FINGER_STEM.mirrored(side), CONTACT_COLOR)
    for i, shape in enumerate(FINGER_VISUAL):
        add_visual(finger, f"{names}_visual{i}", shape.mirrored(side))


def _couple_fingers(spec: mujoco.MjSpec, prefix: str) -> None:
    """The second finger's joint position is minus the first one's."""
    coupling = spec.add_equality(
        name=f"{prefix}finger_coupling",
        type=mujoco.mjtEq.mjEQ_JOINT,
        name1=f"{prefix}finger_joint2",
        name2=f"{prefix}finger_joint1",
        **CONTACT,
    )
    coupling.data[:5] = np.array([0.0, -1.0, 0.0, 0.0, 0.0])
