"""Poses of robot, gripper and objects in each row, from a robosuite model and its recorded states.

All poses are converted from robosuite's world frame to the frame of the robot's base.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.log import LogError, LogObject
from demos_replay.readers.mjcf import kinematic_model
from demos_replay.readers.robosuite_objects import find_objects, table_top
from oc_residual_gym.geometry import XYZW_FROM_WXYZ, pose_multiply, pose_relative
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.states import Array

GRIP_SITE_SHORT = 0.0069
"""Metres from the grip site to Franka's TCP.

In robosuite's Panda the grip site is 0.1065 + 0.097 m from link 7; Franka's TCP is 0.107 + 0.1034 m from it."""


@dataclass(frozen=True)
class Scene:
    """A recorded scene of T rows, in the base frame."""

    tcp_pose: Array
    """(T, 7) TCP poses."""
    tcp_in_grip_site: Array
    """Pose (7,) of the TCP in the frame of robosuite's grip site."""
    base_pose: Array
    """Pose (7,) of the base in robosuite's world."""
    joint_positions: Array | None
    """(T, 7) rad; ``None`` unless it is a Franka arm with a Franka Hand."""
    gripper_width: Array | None
    """(T,) metres between the fingers; ``None`` in the same case."""
    objects: Mapping[str, LogObject]
    table_height: float
    facts: tuple[str, ...]
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class _Robot:
    """MuJoCo ids of a robot's parts in a model."""

    bodies: frozenset[int]
    base: int
    """Body to which the first joint attaches the arm."""
    arm_joints: tuple[int, ...]
    finger_joints: tuple[int, ...]
    finger_bodies: frozenset[int]
    grip_site: int


def read_scene(xml: str, states: Array) -> Scene:
    """Poses from a model and its states (T, 1 + nq + nv): time, positions, velocities.

    Raises:
        LogError: the model is unusable, does not fit the states, or is not one arm on a fixed base with a gripper.
    """
    kinematic = kinematic_model(xml)
    model = kinematic.model
    width = 1 + model.nq + model.nv
    if states.shape[1] != width:
        raise LogError(
            f"its states have {states.shape[1]} columns; its model needs {width} (time, positions, velocities)"
        )
    if len(states) == 0:
        raise LogError("it has no rows")
    robot = _find_robot(model)
    qpos = states[:, 1 : 1 + model.nq]
    found = find_objects(model, qpos[0], kinematic.mesh_bodies, robot.bodies)
    bodies, sites = _play(model, qpos, [item.body for item in found], robot.grip_site)

    base = _pose_of_body(model, qpos[0], robot.base)
    grip_site = _finite(pose_relative(base, sites))
    tcp, joints, finger_width, facts, assumptions = _tool(model, qpos, robot, base, grip_site)
    if np.linalg.norm(tcp[:, :3], axis=1).max() > REACH:
        raise LogError(f"its arm would reach more than {REACH:g} m: states and model do not belong together")
    tcp_in_grip_site = pose_relative(grip_site[0], tcp[0])

    objects = {
        item.name: LogObject(_finite(pose_relative(base, pose_multiply(poses, item.centre))), item.half_size)
        for item, poses in zip(found, np.moveaxis(bodies, 1, 0), strict=True)
    }
    parked = [name for name, item in objects.items() if np.linalg.norm(item.poses[0, :2]) > REACH]
    if parked:
        facts += (f"Left out, as they lie more than {REACH:g} m from the robot: {', '.join(parked)}.",)
    objects = {name: item for name, item in objects.items() if name not in parked}
    height, where = table_top(model, qpos[0], found)
    if where is None:
        lowest = [p.poses[0, 2] - (0.0 if p.half_size is None else p.half_size[2]) for p in objects.values()]
        height = base[2] + min(lowest, default=0.0)
        where = "assumed: the lowest object's start" if lowest else "assumed: level with the base"
        assumptions += (f"The table's height is not in the model ({where}).",)
    facts += (f"The table's top is {1000 * (height - base[2]):+.1f} mm from the robot's base ({where}).",)
    return Scene(
        tcp_pose=tcp,
        tcp_in_grip_site=tcp_in_grip_site,
        base_pose=base,
        joint_positions=joints,
        gripper_width=finger_width,
        objects=objects,
        table_height=float(height - base[2]),
        facts=facts,
        assumptions=assumptions,
    )


REACH = 2.0
"""Maximum metres from the base: no arm reaches that far, and robosuite parks unused objects farther away."""


def _find_robot(model: mujoco.MjModel) -> _Robot:
    names = [model.site(i).name for i in range(model.nsite)]
    sites = [i for i, name in enumerate(names) if re.fullmatch(r"(gripper\d+_)?((right|left)_)?grip_site", name)]
    if len(sites) != 1:
        raise LogError(f"its model has {len(sites)} grippers; only robots with one arm and one gripper can be replayed")
    chain = _chain(model, int(model.site_bodyid[sites[0]]))
    arm = [joint for body in chain for joint in _joints(model, body)]
    if len(arm) not in (6, 7) or any(model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE for joint in arm):
        raise LogError("its robot is not an arm of six or seven joints on a fixed base")
    first, last = (int(model.jnt_bodyid[joint]) for joint in (arm[0], arm[-1]))
    bodies = _below(model, chain[0])
    fingers = [joint for body in sorted(_below(model, last) - {last}) for joint in _joints(model, body)]
    if not fingers:
        raise LogError("its robot has a tool without fingers, nothing that could hold an object")
    return _Robot(
        bodies=frozenset(bodies),
        base=int(model.body_parentid[first]),
        arm_joints=tuple(arm),
        finger_joints=tuple(fingers),
        finger_bodies=frozenset(set.union(*(_below(model, int(model.jnt_bodyid[joint])) for joint in fingers))),
        grip_site=sites[0],
    )


def _tool(
    model: mujoco.MjModel, qpos: Array, robot: _Robot, base: Array, grip_site: Array
) -> tuple[Array, Array | None, Array | None, tuple[str, ...], tuple[str, ...]]:
    """TCP poses (T, 7), joint positions and gripper width if it is Franka's, facts, assumptions."""
    opening = _opening_direction(model, qpos, robot)
    joints = np.ascontiguousarray(qpos[:, model.jnt_qposadr[list(robot.arm_joints)]])
    if joints.shape[1] == 7:
        tcp = forward_kinematics(joints)
        short = pose_relative(tcp, grip_site)
        turned = Rotation.from_quat(short[:, 3:])
        off_axis = np.degrees(np.arccos(np.clip(turned.apply([0.0, 0.0, 1.0])[:, 2], -1.0, 1.0))).max()
        off_opening = np.degrees(np.arccos(min(1.0, abs(turned[0].apply(opening)[1]))))
        distance = np.linalg.norm(short[:, :3], axis=1)
        if distance.max() < 0.02 and np.ptp(distance) < 0.002 and off_axis < 3.0 and off_opening < 5.0:
            facts = (
                "The arm has Franka's kinematics: the TCP is computed from the recorded joint positions.",
                f"The file's grip site lies {1000 * distance.mean():.1f} mm from the TCP, turned by "
                f"{np.degrees(turned.magnitude().mean()):.1f} degrees about the tool's axis.",
            )
            fingers = qpos[:, model.jnt_qposadr[list(robot.finger_joints)]]
            return tcp, joints, np.abs(fingers).sum(axis=1), facts, ()
    axes = np.stack([np.cross(opening, [0.0, 0.0, 1.0]), opening, [0.0, 0.0, 1.0]], axis=1)
    turn = Rotation.from_matrix(axes)
    # The fingers are interchangeable: choose the orientation with the hand's x axis forward, as on a Franka arm.
    if (Rotation.from_quat(grip_site[0, 3:]) * turn).apply([1.0, 0.0, 0.0])[0] < 0.0:
        turn = turn * Rotation.from_euler("z", np.pi)
    tcp = pose_multiply(grip_site, np.concatenate([[0.0, 0.0, GRIP_SITE_SHORT], turn.as_quat()]))
    assumption = (
        f"The arm or its gripper is not Franka's: the TCP is taken {1000 * GRIP_SITE_SHORT:.1f} mm beyond the file's "
        "grip site, its y axis along the line on which the model's fingers lie. Joint positions are left out."
    )
    return tcp, None, None, (), (assumption,)


def _opening_direction(model: mujoco.MjModel, qpos: Array, robot: _Robot) -> Array:
    """Unit vector (3,) in the grip site's frame, across its z axis, along which the fingers lie."""
    data = mujoco.MjData(model)
    bodies = sorted(robot.finger_bodies)
    geoms = [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] in robot.finger_bodies]
    best, direction = -1.0, np.array([0.0, 1.0, 0.0])
    for row in np.linspace(0, len(qpos) - 1, 20).astype(int):
        data.qpos[:] = qpos[row]
        mujoco.mj_kinematics(model, data)
        points = np.concatenate([data.geom_xpos[geoms], data.xpos[bodies]]) - data.site_xpos[robot.grip_site]
        spread = np.cov((points @ data.site_xmat[robot.grip_site].reshape(3, 3))[:, :2], rowvar=False)
        values, vectors = np.linalg.eigh(np.atleast_2d(spread))
        if values[-1] > best:
            best, direction = values[-1], np.append(vectors[:, -1], 0.0)
    return direction


def _play(model: mujoco.MjModel, qpos: Array, bodies: list[int], site: int) -> tuple[Array, Array]:
    """World poses (T, len(bodies), 7) of bodies, and (T, 7) of one site."""
    data = mujoco.MjData(model)
    body_poses, site_poses = np.empty((len(qpos), len(bodies), 7)), np.empty((len(qpos), 7))
    quaternion = np.empty(4)
    for t, row in enumerate(qpos):
        data.qpos[:] = row
        mujoco.mj_kinematics(model, data)
        body_poses[t, :, :3] = data.xpos[bodies]
        body_poses[t, :, 3:] = data.xquat[bodies][:, XYZW_FROM_WXYZ]
        mujoco.mju_mat2Quat(quaternion, data.site_xmat[site])
        site_poses[t, :3], site_poses[t, 3:] = data.site_xpos[site], quaternion[XYZW_FROM_WXYZ]
    return body_poses, site_poses


def _pose_of_body(model: mujoco.MjModel, qpos: Array, body: int) -> Array:
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    return np.concatenate([data.xpos[body], data.xquat[body][XYZW_FROM_WXYZ]])


def _finite(poses: Array) -> Array:
    if not np.isfinite(poses).all():
        raise LogError("its states put bodies infinitely far away")
    return poses


def _chain(model: mujoco.MjModel, body: int) -> list[int]:
    """Bodies from the one fixed to the world down to ``body``."""
    chain = []
    while body != 0:
        chain.append(body)
        body = int(model.body_parentid[body])
    return chain[::-1]


def _below(model: mujoco.MjModel, root: int) -> set[int]:
    """``root`` and all its descendants; MuJoCo numbers parents before their children."""
    bodies = {root}
    for body in range(root + 1, model.nbody):
        if int(model.body_parentid[body]) in bodies:
            bodies.add(body)
    return bodies


def _joints(model: mujoco.MjModel, body: int) -> Iterable[int]:
    return range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body])
