"""Forward kinematics against the simulation's own model."""

from __future__ import annotations

import mujoco
import numpy as np

from oc_residual_gym.geometry import norm, rotation_between
from oc_residual_gym.robots.constants import ARM_JOINTS, HOME_JOINT_POSITIONS, JOINT_LOWER, JOINT_UPPER
from oc_residual_gym.robots.fr3 import add_robot
from oc_residual_gym.robots.kinematics import flange_pose, forward_kinematics


def test_tcp_is_where_the_simulation_has_it() -> None:
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    add_robot(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    addresses = [model.joint(f"robot0_{joint}").qposadr[0] for joint in ARM_JOINTS]
    angles = np.random.default_rng(0).uniform(JOINT_LOWER, JOINT_UPPER, (50, 7))
    expected = np.empty((50, 7))
    for row, joint_positions in zip(expected, angles, strict=True):
        data.qpos[addresses] = joint_positions
        mujoco.mj_kinematics(model, data)
        row[:3] = data.site("gripper0_right_tcp").xpos
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, data.site("gripper0_right_tcp").xmat)
        row[3:] = np.roll(quaternion, -1)
    pose = forward_kinematics(angles)
    assert norm(pose[:, :3] - expected[:, :3]).max() < 1e-6
    assert norm(rotation_between(pose[:, 3:], expected[:, 3:])).max() < 1e-6


def test_home_and_shapes() -> None:
    np.testing.assert_allclose(forward_kinematics(HOME_JOINT_POSITIONS)[:3], [0.42, 0.0, 0.28], atol=1e-6)
    batch = np.broadcast_to(HOME_JOINT_POSITIONS, (2, 3, 7))
    np.testing.assert_array_equal(forward_kinematics(batch)[1, 2], forward_kinematics(HOME_JOINT_POSITIONS))
    # The flange is above the TCP of a tool that points straight down.
    np.testing.assert_allclose(flange_pose(HOME_JOINT_POSITIONS)[:3], [0.42, 0.0, 0.28 + 0.1034], atol=1e-6)
