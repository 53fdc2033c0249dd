"""Write small files in the layouts of real robots' software, with an exactly known motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.geometry import pose_multiply
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS, MAX_OPENING
from oc_residual_gym.robots.kinematics import flange_pose, forward_kinematics

Array = np.ndarray

ROBOTIQ_JOINT7 = -np.pi / 4
"""Added to joint 7 so that the flange itself, and with it a gripper along its axes, is square with the base."""


@dataclass(frozen=True)
class Motion:
    """Measured and commanded motion of an arm, in T rows."""

    time: Array
    joints: Array
    """(T, 7) measured."""
    commanded: Array
    """(T, 7) joints, ``lag`` rows ahead."""
    opening: Array
    """(T,) measured opening as a fraction of the gripper's range; it stops at 0.5, on an object."""
    closes: Array
    """(T,) bool, commanded."""


def motion(rows: int = 60, rate: float = 15.0, lag: int = 3, joint7: float = 0.0) -> Motion:
    """Smooth, with different frequencies in every joint, above the table in front of the robot."""
    time = np.arange(rows + lag) / rate
    phases = np.linspace(0.5, 1.7, 7) * time[:, None] * 2.0 + np.arange(7)
    joints = HOME_JOINT_POSITIONS + 0.15 * (np.sin(phases) - np.sin(np.arange(7)))
    joints[:, 6] += joint7
    closes = np.zeros(rows, dtype=bool)
    closes[rows // 3 : 5 * rows // 6] = True
    opening = np.empty(rows)
    width = 1.0
    for row in range(rows):
        width = np.clip(width + (-0.1 if closes[row] else 0.1), 0.5, 1.0)
        opening[row] = width
    return Motion(np.arange(rows) / rate, joints[:rows], joints[lag : rows + lag], opening, closes)


def euler(poses: Array) -> Array:
    """(T, 6) positions and extrinsic xyz Euler angles of poses (T, 7)."""
    return np.concatenate([poses[:, :3], Rotation.from_quat(poses[:, 3:]).as_euler("xyz")], axis=1)


def expected_tcp(joints: Array, tcp: Array) -> Array:
    """Poses (T, 7) of a gripper's TCP (7,) on the flange."""
    flange = flange_pose(joints)
    return pose_multiply(flange, np.tile(tcp, (len(flange), 1)))


# In all of these, ``changed`` replaces datasets by path; None leaves a dataset out.


def write_droid(path: Path, m: Motion | None = None, attributes: dict[str, Any] | None = None, **changed: Any) -> None:
    """A ``trajectory.h5`` of DROID, in velocity mode."""
    m = m or motion(joint7=ROBOTIQ_JOINT7)
    rows = len(m.time)
    state = "observation/robot_state/"
    stamps = "observation/timestamp/robot_state/"
    datasets: dict[str, Any] = {
        state + "joint_positions": m.joints,
        state + "joint_velocities": np.gradient(m.joints, m.time, axis=0),
        state + "cartesian_position": euler(flange_pose(m.joints)),
        state + "gripper_position": 1.0 - m.opening,
        stamps + "read_start": 1_700_000_000_000 + np.round(1000 * m.time).astype(np.int64),
        stamps + "read_end": 1_700_000_000_001 + np.round(1000 * m.time).astype(np.int64),
        "observation/controller_info/movement_enabled": np.ones(rows, dtype=bool),
        "action/cartesian_position": euler(flange_pose(m.commanded)),
        "action/cartesian_velocity": np.zeros((rows, 6)),
        "action/joint_position": m.commanded,
        "action/joint_velocity": np.zeros((rows, 7)),
        "action/gripper_position": m.closes.astype(float),
        "action/gripper_velocity": np.where(m.closes, 1.0, -1.0),
    }
    own = {"success": True, "failure": False, "current_task": "Lift the block", "robot_serial_number": "fr3"}
    _write(path, datasets | changed, own | (attributes or {}))


def write_act_end_effector(
    path: Path, m: Motion | None = None, layout: str = "euler", attributes: dict[str, Any] | None = None, **changed: Any
) -> None:
    """An ``episode_<n>.hdf5`` of end-effector poses; ``layout``: "euler", or a quaternion "xyzw" or "wxyz"."""
    m = m or motion(100, 50.0, lag=4)

    def columns(joints: Array, last: Array) -> Array:
        pose = forward_kinematics(joints)
        if layout == "euler":
            pose = euler(pose)
        elif layout == "wxyz":
            pose = np.concatenate([pose[:, :3], pose[:, 6:], pose[:, 3:6]], axis=1)
        return np.concatenate([pose, last[:, None]], axis=1)

    datasets: dict[str, Any] = {
        "observations/qpos": columns(m.joints, m.opening * MAX_OPENING),
        "observations/qvel": np.zeros((len(m.time), 7)),
        "action": columns(m.commanded, 1.0 - m.closes),
    }
    _write(path, datasets | changed, {"sim": False} if attributes is None else attributes)


def write_act_joints(
    path: Path,
    m: Motion | None = None,
    layout: str = "puppet",
    attributes: dict[str, Any] | None = None,
    **changed: Any,
) -> None:
    """A file of joint positions: ``layout`` "puppet" with master and puppet, or "qpos" as ACT's own."""
    m = m or motion(60, 30.0, lag=2)
    measured = np.concatenate([m.joints, m.opening[:, None]], axis=1)
    commanded = np.concatenate([m.commanded, 1.0 - m.closes[:, None]], axis=1)
    datasets: dict[str, Any] = {"observations/qpos": measured, "action": commanded}
    if layout == "puppet":
        datasets = {
            "puppet/joint_position": measured,
            "puppet/end_effector": euler(forward_kinematics(m.joints)),
            "master/joint_position": commanded,
        }
    _write(path, datasets | changed, {"sim": False, "compress": True} if attributes is None else attributes)


def _write(path: Path, datasets: dict[str, Any], attributes: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        for name, values in datasets.items():
            if values is not None:
                file.create_dataset(name, data=values)
