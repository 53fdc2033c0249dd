"""Read logs that have observations but no simulation states: they give the arm's motion, but no objects."""

from __future__ import annotations

import h5py
import numpy as np

from demos_replay.log import Log, LogError
from demos_replay.readers.robosuite import Controller, step_delay, task_of
from demos_replay.readers.robosuite_scene import GRIP_SITE_SHORT
from oc_residual_gym.geometry import pose_multiply
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.states import Array

ROBOSUITE_BASE = np.array([-0.56, 0.0, 0.912])
"""Position (3,) of the arm's base at robosuite's tables, in robosuite's world frame, metres."""
ROBOSUITE_TABLE = 0.8
"""Height of robosuite's table tops in its world frame, metres."""
_TO_TCP = np.array([0.0, 0.0, GRIP_SITE_SHORT, 0.0, 0.0, 0.0, 1.0])
_TO_GRIP_SITE = np.array([0.0, 0.0, -GRIP_SITE_SHORT, 0.0, 0.0, 0.0, 1.0])


def observed(demo: h5py.Group) -> h5py.Group:
    """The group of observations. Raises ``LogError`` if there is none."""
    obs = demo.get("obs")
    if not isinstance(obs, h5py.Group):
        raise LogError(
            f"{demo.name} has neither states with their model nor a group obs: nothing says where the arm was"
        )
    return obs


def read_observations(
    demo: h5py.Group,
    *,
    format_name: str,
    rate: float,
    actions: Array,
    grip_site: Array,
    joint_positions: Array | None,
    fingers: Array | None,
    env_name: str,
    controller: Controller | None,
    instruction: str = "",
    facts: tuple[str, ...] = (),
    assumptions: tuple[str, ...] = (),
) -> Log:
    """Read a demonstration of T rows from the observations before each action.

    Args:
        grip_site: poses (T, 7) in robosuite's world frame: position of the grip site, orientation of the hand.
        joint_positions: (T, 7) rad, if they were observed.
        fingers: finger positions (T, 2) in metres, if they were observed.

    Raises:
        LogError: it cannot be used.
    """
    if len(actions) < 2:
        raise LogError(f"it has {len(actions)} rows; a demonstration needs at least 2")
    tcp, base, is_franka = _tool(grip_site, joint_positions)
    table = ROBOSUITE_TABLE if base[2] > 0.5 else 0.0
    if is_franka:
        facts += ("The TCP is computed from the observed joint positions, which fit Franka's kinematics.",)
    else:
        assumptions += (
            f"No joint positions of a Franka arm fit: the base is taken at {tuple(base)} m of robosuite's world, "
            f"the TCP {1000 * GRIP_SITE_SHORT:.1f} mm beyond the observed end effector, and the fingers to open along "
            "its y axis.",
        )
    rows = step_delay(actions[:, :3], tcp[:, :3]) if controller is not None and controller.is_delta else None
    return Log(
        file=demo.file.filename,
        name=demo.name.rsplit("/", 1)[-1],
        format=format_name,
        rate=rate,
        time=np.arange(len(actions)) / rate,
        tcp_pose=tcp,
        gripper_closed=actions[:, -1] > 0.0,
        gripper_width=np.abs(fingers).sum(axis=1) if is_franka and fingers is not None else None,
        joint_positions=joint_positions if is_franka else None,
        table_height=float(table - base[2]),
        lag=(rows or 0) / rate,
        task=task_of(env_name),
        instruction=instruction,
        facts=(
            *facts,
            f"The environment is {env_name or 'not named'}.",
            "The last column of the actions is the gripper's: above 0 it closes.",
            "There are no simulation states: the objects' poses are unknown.",
            "The actions are not absolute targets, so the measured path is replayed.",
            "No lag could be estimated."
            if rows is None
            else f"The arm follows the actions after {1000 * rows / rate:.0f} ms.",
        ),
        assumptions=(*assumptions, f"The table's top is taken at {table} m of robosuite's world."),
    )


def _tool(grip_site: Array, joint_positions: Array | None) -> tuple[Array, Array, bool]:
    """TCP poses (T, 7) in the base frame, the base's position (3,) in the world frame, and whether it is a Franka
    arm."""
    if joint_positions is not None:
        tcp = forward_kinematics(joint_positions)
        offsets = grip_site[:, :3] - pose_multiply(tcp, _TO_GRIP_SITE)[:, :3]
        if np.ptp(offsets, axis=0).max() < 0.005:
            return tcp, offsets.mean(axis=0), True
    tcp = pose_multiply(grip_site, _TO_TCP)
    tcp[:, :3] -= ROBOSUITE_BASE
    return tcp, ROBOSUITE_BASE, False
