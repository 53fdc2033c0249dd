"""The Franka Research 3 as a robosuite robot: ``robosuite.make(..., robots="FR3")``."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from robosuite.models.robots import Panda
from robosuite.robots import register_robot_class

from oc_residual_gym.bridge.elements import drop_meshes, find, replace_visuals
from oc_residual_gym.robots.constants import ARM_JOINTS, ARM_LINKS, HOME_JOINT_POSITIONS, JOINT_TORQUE_LIMIT
from oc_residual_gym.robots.fr3 import JOINT_DAMPING, add_mounted_arm
from oc_residual_gym.robots.mjcf import body_element, text
from oc_residual_gym.states import Array


@register_robot_class("FixedBaseRobot")
class FR3(Panda):
    """Our arm with the meshes of robosuite's Panda; robosuite mounts :class:`.hand.FR3Hand` on it.

    Args:
        idn: robosuite's number of this robot.
    """

    def __init__(self, idn: int | str = 0) -> None:
        super().__init__(idn=idn)
        # Panda's constructor sets its own.
        self.set_joint_attribute("damping", np.full(len(ARM_JOINTS), JOINT_DAMPING))

    def resolve_asset_dependency(self) -> None:
        """Rewrite robosuite's tree in its last step before names are prefixed and elements sorted."""
        super().resolve_asset_dependency()
        base = find(self.worldbody, "base")
        panda = find(base, "link0")
        spec = mujoco.MjSpec()
        add_mounted_arm(spec.worldbody, prefix="")
        arm = body_element(spec.body("link0"))
        replace_visuals(arm, panda, ARM_LINKS)
        base.remove(panda)
        base.append(arm)
        drop_meshes(self.asset, ARM_LINKS)
        for motor, limit in zip(self.actuator, JOINT_TORQUE_LIMIT, strict=True):
            motor.set("ctrlrange", text((-limit, limit)))

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
