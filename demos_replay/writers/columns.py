"""What all writers take from a demonstration: one name, shape and convention for each quantity.

Base frame, metres, radians, seconds; quaternions xyzw. Where conventions differ between trainings:

- Rotations in six numbers ("rot_6d") are the first two ROWS of the rotation matrix, one after the other: what GR00T
  (``EndEffectorPose``) and robomimic (PyTorch3D's ``matrix_to_rotation_6d``) decode. The first two columns, as in the
  observations of our environments, would be decoded as the inverse rotation.
- Quaternions do not jump between their two signs, and have the same one in all demonstrations: in the first row the
  tool's x is not negative (straight down is (1, 0, 0, 0)), objects' w is not. Targets have the tool's sign.
- A gripper opening is 0 for closed, 1 for open (80 mm): DROID has it reversed, robosuite -1 for open, 1 for closed.
- Actions are absolute: what the robot was told in step t. Their counterpart in joint space is the joint positions it
  had after the step. Differences and relative poses follow from state t and action t.
"""

from __future__ import annotations

import numpy as np

from demos_replay.demo import Demo
from demos_replay.writers import WriterError
from oc_residual_gym.geometry import matrix_from_quat
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.states import Array

Columns = dict[str, Array]
"""Name to (rows, n) float64."""


def check_demo(demo: Demo) -> Demo:
    """``demo``, if it can be written.

    Raises:
        WriterError: it has no step, or entries that are not finite.
    """
    if len(demo.target) == 0:
        raise WriterError(f"the demonstration {demo.name} has no steps")
    columns = robot_columns(demo) | object_columns(demo) | target_columns(demo)
    for name, values in {**columns, "reward": demo.reward, "qpos": demo.qpos}.items():
        if not np.isfinite(values).all():
            raise WriterError(f"the demonstration {demo.name} has entries in {name} that are not finite")
    return demo


def robot_columns(demo: Demo) -> Columns:
    """What an FR3 cell measures before each step and after the last, (T + 1, n)."""
    pose = _tool_pose(demo)
    opening = demo.gripper_width[:, None] / MAX_OPENING
    start = np.concatenate([pose[0], [not demo.gripper_closed[0]]])
    return {
        "eef_pos": pose[:, :3],
        "eef_quat": pose[:, 3:],
        "eef_rot_6d": rot_6d(pose[:, 3:]),
        "eef_vel_lin": demo.tcp_velocity[:, :3],
        "eef_vel_ang": demo.tcp_velocity[:, 3:],
        "eef_wrench": demo.wrench,
        "joint_pos": demo.joint_positions,
        "joint_vel": demo.joint_velocities,
        "gripper_opening": opening,
        "gripper_closed": demo.gripper_closed[:, None].astype(np.float64),
        "previous_target": np.concatenate([start[None], targets(demo)]),
    }


def object_columns(demo: Demo) -> Columns:
    """True poses of the objects (T + 1, 7), each by its name."""
    return {name: _with_quaternions(poses, _steady(poses[:, 3:], 3)) for name, poses in demo.objects.items()}


def target_columns(demo: Demo) -> Columns:
    """What was executed in each step, in every convention, (T, n)."""
    executed = targets(demo)
    return {
        "pos": executed[:, :3],
        "rot_6d": rot_6d(executed[:, 3:7]),
        "quat": executed[:, 3:7],
        "joint_pos": demo.joint_positions[1:],
        "gripper": executed[:, 7:],
    }


def targets(demo: Demo) -> Array:
    """(T, 8) executed targets: position, quaternion, opening."""
    tool = _tool_pose(demo)[:-1, 3:]
    quaternions = demo.target[:, 3:7]
    sign = np.where(np.einsum("ti,ti->t", quaternions, tool) < 0.0, -1.0, 1.0)
    return np.concatenate([_with_quaternions(demo.target[:, :7], quaternions * sign[:, None]), demo.target[:, 7:]], 1)


def rot_6d(quaternions: Array) -> Array:
    """First two rows (..., 6) of the rotation matrices of unit quaternions (..., 4)."""
    return matrix_from_quat(np.ascontiguousarray(quaternions))[..., :2, :].reshape(*quaternions.shape[:-1], 6)


def _tool_pose(demo: Demo) -> Array:
    return _with_quaternions(demo.tcp_pose, _steady(demo.tcp_pose[:, 3:], 0))


def _with_quaternions(poses: Array, quaternions: Array) -> Array:
    # Rounding can leave an entry just above 1, which robomimic's check of actions does not forgive.
    return np.concatenate([poses[:, :3], np.clip(quaternions, -1.0, 1.0)], axis=1)


def _steady(quaternions: Array, entry: int) -> Array:
    """The same rotations (T, 4), ``entry`` of the first row not negative, each row with the sign nearer to the last."""
    flips = np.where(np.einsum("ti,ti->t", quaternions[1:], quaternions[:-1]) < 0.0, -1.0, 1.0)
    first = -1.0 if quaternions[0, entry] < 0.0 else 1.0
    return quaternions * (first * np.cumprod(np.concatenate([[1.0], flips])))[:, None]
