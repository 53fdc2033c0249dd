"""The Franka Hand as a robosuite gripper, ``FR3Hand``."""

from __future__ import annotations

import mujoco
from robosuite.models.grippers import PandaGripper, register_gripper

from oc_residual_gym.bridge.elements import drop_meshes, find, replace_visuals, visual_geoms
from oc_residual_gym.robots.constants import FINGER_SPEED, GRASP_FORCE, MAX_OPENING
from oc_residual_gym.robots.geoms import quaternion
from oc_residual_gym.robots.hand import FROM_HAND_FRAME, add_hand
from oc_residual_gym.robots.mjcf import body_element, coupling_element, text

# For robosuite's gripper control: full force from 8 mm of error on, as on a 16 mm peg; critical damping.
FINGER_STIFFNESS = 5000.0
FINGER_STIFFNESS_DAMPING = 40.0
ROBOSUITE_CONTROL_FREQUENCY = 20.0


@register_gripper
class FR3Hand(PandaGripper):
    """Our hand with the meshes of robosuite's Panda gripper.

    Args:
        idn: robosuite's name of this gripper.
    """

    def resolve_asset_dependency(self) -> None:
        """Rewrite robosuite's tree in its last step before names are prefixed and elements sorted."""
        super().resolve_asset_dependency()
        panda = find(self.worldbody, "right_gripper")
        for mesh in visual_geoms(panda):
            # robosuite's gripper frame is turned against Franka's hand frame, which the meshes are made for.
            mesh.set("quat", text(quaternion(FROM_HAND_FRAME)))
        spec = mujoco.MjSpec()
        hand = body_element(add_hand(spec, spec.worldbody, prefix=""))
        replace_visuals(hand, panda, ("right_gripper", "leftfinger", "rightfinger"))
        self.worldbody.remove(panda)
        self.worldbody.append(hand)
        drop_meshes(self.asset, ("hand", "finger", "finger_vis2"))
        for actuator in self.actuator:
            actuator.set("kp", str(FINGER_STIFFNESS))
            actuator.set("kv", str(FINGER_STIFFNESS_DAMPING))
            actuator.set("forcerange", text((-GRASP_FORCE, GRASP_FORCE)))
        self.equality.extend(coupling_element(coupling) for coupling in spec.equalities)

    @property
    def speed(self) -> float:
        """Change of the action in [-1, 1] per control step that opens and closes the hand at its real speed."""
        return 2.0 * FINGER_SPEED / MAX_OPENING / ROBOSUITE_CONTROL_FREQUENCY
