"""Where the FR3's flange and TCP are, from its joint angles, without a simulation.

The Panda's kinematics are the same (robot descriptions of both, https://github.com/frankarobotics/franka_description),
so logs of that arm can be read with them too.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.constants import ARM_JOINTS, FR3_DESCRIPTION, HAND_OFFSET, HAND_ROTATION, TCP_OFFSET
from oc_residual_gym.states import Array


def _origin(joint: str) -> tuple[Array, Rotation]:
    """Pose of a joint's frame at angle 0, in the frame of the link before it."""
    values = FR3_DESCRIPTION["joints"][joint]
    position, angles = (np.array(values[key].split(), dtype=float) for key in ("xyz", "rpy"))
    return position, Rotation.from_euler("xyz", angles)


_ORIGINS = tuple(_origin(joint) for joint in ARM_JOINTS)

TCP_FROM_FLANGE: Array = np.concatenate([[0.0, 0.0, TCP_OFFSET], Rotation.from_euler("z", HAND_ROTATION).as_quat()])
"""(7,) pose of the Franka Hand's TCP in the flange's frame (link 8 of the robot description)."""
TCP_FROM_FLANGE.flags.writeable = False


def flange_pose(joint_positions: Array) -> Array:
    """Poses (..., 7) of the flange in the base frame, of joint angles (..., 7) in rad."""
    angles = joint_positions.reshape(-1, len(ARM_JOINTS))
    position, rotation = np.zeros((len(angles), 3)), Rotation.identity(len(angles))
    for joint, (origin, turn) in enumerate(_ORIGINS):
        position = position + rotation.as_matrix() @ origin
        rotation = rotation * turn * Rotation.from_rotvec(angles[:, joint, None] * (0.0, 0.0, 1.0))
    position = position + rotation.as_matrix() @ [0.0, 0.0, HAND_OFFSET]
    return np.concatenate([position, rotation.as_quat()], axis=1).reshape(joint_positions.shape)


def carried(poses: Array, offset: Array) -> Array:
    """Poses (..., 7) of something at pose ``offset`` (7,) in the frames whose own poses (..., 7) are given."""
    rows = poses.reshape(-1, 7)
    rotation = Rotation.from_quat(rows[:, 3:])
    position = rows[:, :3] + rotation.as_matrix() @ offset[:3]
    quaternion = (rotation * Rotation.from_quat(offset[3:])).as_quat()
    return np.concatenate([position, quaternion], axis=1).reshape(poses.shape)


def forward_kinematics(joint_positions: Array) -> Array:
    """Poses (..., 7) of the Franka Hand's TCP in the base frame, of joint angles (..., 7) in rad."""
    return carried(flange_pose(joint_positions), TCP_FROM_FLANGE)
