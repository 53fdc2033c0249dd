"""The quantities that all writers take from a demonstration, each with one name, shape and convention.

Base frame, metres, radians, seconds; quaternions xyzw. Where training codes use different conventions:

- Rotations in six numbers ("rot_6d") are the first two ROWS of the rotation matrix, one after the other: what GR00T
  (``EndEffectorPose``) and robomimic (PyTorch3D's ``matrix_to_rotation_6d``) decode. The first two columns, as in the
  observations of this package's environments, would be decoded as the inverse rotation.
- Quaternions do not jump between their two signs, and all demonstrations use the same one: in the first row, neither x
  of the tool (straight down is (1, 0, 0, 0)) nor w of an object is negative. Targets have the tool's sign.
- A gripper opening is 0 for closed, 1 for open (80 mm): DROID has it reversed, robosuite -1 for open, 1 for closed.
- Actions are absolute: the target executed in step t. Their counterpart in joint space is the joint positions after the
  step. Differences and relative poses follow from state t and action t.
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
    """Return ``demo`` if it can be written.

    Raises:
        WriterError: it has no steps, or entries that are not finite.
    """
    if len(demo.target) == 0:
        raise WriterError(f"the demonstration {demo.name} has no steps")
    columns = robot_columns(demo) | object_columns(demo) | target_columns(demo)
    for name, values in {**columns, "reward": demo.reward, "qpos": demo.qpos}.items():
        if not np.isfinite(values).all():
            raise WriterError(f"the demonstration {demo.name} has entries in {name} that are not finite")
    return demo


def robot_columns(demo: Demo) -> Columns:
    """Measurements of an FR3 cell before each step and after the last one, (T + 1, n)."""
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
    """Object name to true poses (T + 1, 7)."""
    return {name: _with_quaternions(poses, _steady(poses[:, 3:], 3)) for name, poses in demo.objects.items()}


def target_columns(demo: Demo) -> Columns:
    """Target executed in each step, in every convention, (T, n)."""
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
    # Rounding can leave an entry just above 1, which robomimic's check of actions rejects.
    return np.concatenate([poses[:, :3], np.clip(quaternions, -1.0, 1.0)], axis=1)


def _steady(quaternions: Array, entry: int) -> Array:
    """Quaternions (T, 4) of the same rotations without sign jumps, with a non-negative ``entry`` in the first row."""
    flips = np.where(np.einsum("ti,ti->t", quaternions[1:], quaternions[:-1]) < 0.0, -1.0, 1.0)
    first = -1.0 if quaternions[0, entry] < 0.0 else 1.0
    return quaternions * (first * np.cumprod(np.concatenate([[1.0], flips])))[:, None]
