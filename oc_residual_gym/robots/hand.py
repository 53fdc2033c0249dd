"""The Franka Hand as a robosuite gripper, ``FR3Hand``; its names are listed in :mod:`.fr3`."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from robosuite.models.grippers import PandaGripper, register_gripper
from robosuite.utils.mjcf_utils import string_to_array
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.constants import FINGER_SPEED, GRASP_FORCE, MAX_OPENING, TCP_OFFSET
from oc_residual_gym.robots.mjcf import (
    CONTACT,
    Visuals,
    append_collision,
    append_visual,
    check_visuals,
    drop_assets,
    drop_geoms,
    find,
    quaternion,
    vector,
)
from oc_residual_gym.robots.shapes import (
    FINGER_PAD,
    FINGER_STEM,
    FINGER_VISUAL,
    HAND_COLLISION,
    HAND_VISUAL,
)

# Franka's robot description, end_effectors/franka_hand: in the hand's and the fingers' own frames.
HAND_INERTIAL = {"pos": "-0.01 0 0.03", "mass": "0.73", "diaginertia": "0.001 0.0025 0.0017"}
FINGER_INERTIAL = {"pos": "0 0 0", "mass": "0.015", "diaginertia": "2.375e-6 2.375e-6 7.5e-7"}
FINGER_ORIGIN = 0.0584
"""Fingers' frames from the hand's frame along z, m."""

FINGER_ARMATURE = 0.1
"""kg a finger, drive included, as in MuJoCo Menagerie's Panda hand; Franka publishes none."""
FINGER_DAMPING = 10.0
"""N s/m a finger: 0.5 N at full speed."""

# For robosuite's gripper control only: full force from 8 mm of error on, as on a 16 mm peg; critical damping.
FINGER_STIFFNESS = 5000.0
FINGER_STIFFNESS_DAMPING = 40.0
ROBOSUITE_CONTROL_FREQUENCY = 20.0

PAD_FRICTION = 1.0
"""Sliding friction of the fingertips' rubber: dry rubber on wood or plastic lies between 0.8 and 1.2."""
PAD_CONTACT = {
    "solref": "0.004 1",
    "solimp": "0.99 0.999 0.001",
    "condim": "4",
    "friction": f"{PAD_FRICTION} 0.005 0.0001",
    "priority": "1",
}
"""Under 40 N a 60 g block sinks in by 0.03 mm (with ``CONTACT`` by 0.16 mm, and a held cylinder chatters).
Priority: whatever the pads touch is held with these numbers, not a mixture with its own."""

# robosuite turns the hand's body by -90 degrees about Franka's hand frame, and the fingers back.
_FROM_HAND_FRAME = Rotation.from_euler("z", 90, degrees=True)


@register_gripper
class FR3Hand(PandaGripper):
    """Franka Hand with its standard fingers, mechanically coupled.

    Args:
        idn: robosuite's name of this gripper.
        visuals: see :data:`oc_residual_gym.robots.mjcf.Visuals`.

    Raises:
        ValueError: ``visuals`` is unknown.
    """

    def __init__(self, idn: int | str = 0, visuals: Visuals = "full") -> None:
        check_visuals(visuals)
        self.visuals = visuals
        super().__init__(idn=idn)

    def resolve_asset_dependency(self) -> None:
        """Rewrite robosuite's tree in its last step before names are prefixed and elements sorted."""
        super().resolve_asset_dependency()
        light = self.visuals == "light"
        hand = find(self.worldbody, "body", "right_gripper")
        _rebuild_hand(hand, light)
        _rebuild_finger(find(hand, "body", "leftfinger"), number=1, side=1, light=light)
        _rebuild_finger(find(hand, "body", "rightfinger"), number=2, side=-1, light=light)
        find(hand, "body", "eef").set("pos", vector((0, 0, TCP_OFFSET)))
        for site in hand.iter("site"):
            # robosuite's markers: one is a beam 20 m long, which casts a shadow even where it is hidden.
            site.set("group", "4")
        drop_assets(self.asset, None if light else ("hand", "finger", "finger_vis2"))
        for actuator in self.actuator:
            actuator.set("kp", str(FINGER_STIFFNESS))
            actuator.set("kv", str(FINGER_STIFFNESS_DAMPING))
            actuator.set("forcerange", vector((-GRASP_FORCE, GRASP_FORCE)))
        coupling = {"joint1": "finger_joint2", "joint2": "finger_joint1", "polycoef": "0 -1 0 0 0"}
        SubElement(self.equality, "joint", {"name": "finger_coupling", **coupling, **CONTACT})

    @property
    def speed(self) -> float:
        """Change of the action in [-1, 1] a control step that opens and closes the hand at its real speed."""
        return 2.0 * FINGER_SPEED / MAX_OPENING / ROBOSUITE_CONTROL_FREQUENCY


def _rebuild_hand(hand: Element, light: bool) -> None:
    turn = quaternion(_FROM_HAND_FRAME)
    hand.set("quat", quaternion(_FROM_HAND_FRAME.inv()))
    drop_geoms(hand, collision_only=not light)
    for geom in hand.findall("geom"):
        geom.set("quat", turn)
    inertial = find(hand, "inertial")
    center = _FROM_HAND_FRAME.apply(string_to_array(HAND_INERTIAL["pos"]))
    inertial.attrib = {**HAND_INERTIAL, "pos": vector(center), "quat": turn}
    frame = SubElement(hand, "body", name="hand", quat=turn)
    append_collision(frame, "hand_collision", HAND_COLLISION)
    if light:
        append_visual(frame, "hand_visual", HAND_VISUAL)
    SubElement(frame, "site", name="tcp", pos=vector((0, 0, TCP_OFFSET)), size="0.005")


def _rebuild_finger(finger: Element, number: int, side: int, light: bool) -> None:
    """``side`` 1: the finger at +y of the hand, which opens along +y; -1: its mirror image."""
    finger.set("pos", vector((0, 0, FINGER_ORIGIN)))
    finger.set("quat", quaternion(_FROM_HAND_FRAME))
    find(finger, "inertial").attrib = dict(FINGER_INERTIAL)
    find(finger, "joint").attrib.update(
        damping=str(FINGER_DAMPING),
        armature=str(FINGER_ARMATURE),
        frictionloss="0",
        # MuJoCo's default limit gives way by 7 mm under the grasp force.
        solreflimit=CONTACT["solref"],
        solimplimit=CONTACT["solimp"],
    )
    finger.remove(find(finger, "body", f"finger_joint{number}_tip"))
    drop_geoms(finger, collision_only=not light)
    append_collision(finger, f"finger{number}_pad_collision", FINGER_PAD.mirrored(side), PAD_CONTACT)
    append_collision(finger, f"finger{number}_collision", FINGER_STEM.mirrored(side))
    if light:
        for i, shape in enumerate(FINGER_VISUAL):
            append_visual(finger, f"finger{number}_visual{i}", shape.mirrored(side))
