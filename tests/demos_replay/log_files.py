"""Write small files of every format with simulation states, with an exactly known motion."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from log_files_real import write_act_end_effector, write_act_joints, write_droid
from scipy.spatial.transform import Rotation

from oc_residual_gym import log_schema as schema
from oc_residual_gym.geometry import pose_multiply, quat_normalize
from oc_residual_gym.robots.constants import ARM_JOINTS, FR3_DESCRIPTION, HOME_JOINT_POSITIONS
from oc_residual_gym.robots.kinematics import forward_kinematics

Array = np.ndarray

BASE = np.array([-0.56, 0.02, 0.912])
TABLE = 0.8
"""Height of the table's top in the model's world."""
HALF_SIZES = {"cube": np.array([0.02, 0.022, 0.024]), "can": np.array([0.025, 0.025, 0.04])}
CLOSES, OPENS = 15, 30
"""Rows in which the commands change."""


@dataclass(frozen=True)
class Motion:
    """T rows at 20 Hz."""

    time: Array
    joints: Array
    width: Array
    closed: Array
    objects: dict[str, Array]
    """Poses (T, 7) in the base frame."""

    @property
    def tcp(self) -> Array:
        return forward_kinematics(self.joints)


def motion(rows: int = 40) -> Motion:
    """Down, close, up with the cube, open; the can stands elsewhere."""
    time = np.arange(rows) / 20.0
    phases = np.linspace(0.4, 0.9, 7) * time[:, None]
    joints = HOME_JOINT_POSITIONS + 0.2 * np.sin(phases)
    closed = (np.arange(rows) >= CLOSES) & (np.arange(rows) < OPENS)
    tcp = forward_kinematics(joints)
    cube = tcp.copy()
    cube[:CLOSES], cube[OPENS:] = cube[CLOSES], cube[min(OPENS, rows - 1)]
    can = np.tile([0.5, 0.2, TABLE - BASE[2] + HALF_SIZES["can"][2], 0.0, 0.0, 0.6, 0.8], (rows, 1))
    return Motion(time, joints, np.where(closed, 0.04, 0.08), closed, {"cube": cube, "can": can})


def numbers(values: Array) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def model(grippers: int = 1) -> str:
    """A robosuite model: arm, table and two objects, with meshes that do not exist."""
    opened, closed = [], []
    for joint in ARM_JOINTS:
        description = FR3_DESCRIPTION["joints"][joint]
        quat = Rotation.from_euler("xyz", np.array(description["rpy"].split(), dtype=float)).as_quat()[[3, 0, 1, 2]]
        opened.append(
            f'<body name="robot0_link{joint[-1]}" pos="{description["xyz"]}" quat="{numbers(quat)}">'
            f'<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><joint name="robot0_{joint}" axis="0 0 1"/>'
            '<geom type="mesh" mesh="robot0_link_vis" contype="0" conaffinity="0"/>'
        )
        closed.append("</body>")
    hands = "".join(
        f"""
        <body name="gripper{i}_right_gripper" pos="0 0 0.1065" quat="0.653281 0 0 -0.270598">
          <body name="gripper{i}_eef" pos="0 0 0.097" quat="0.707107 0 0 -0.707107">
            <site name="gripper{i}_grip_site" size="0.01"/><site name="gripper{i}_grip_site_cylinder" size="0.01"/>
          </body>
          <body name="gripper{i}_leftfinger" pos="0 0 0.0524">
            <joint name="gripper{i}_finger_joint1" axis="0 1 0" type="slide"/>
            <geom type="box" size="0.008 0.004 0.008" pos="0 0.0085 0.04"/>
          </body>
          <body name="gripper{i}_rightfinger" pos="0 0 0.0524">
            <joint name="gripper{i}_finger_joint2" axis="0 1 0" type="slide"/>
            <geom type="box" size="0.008 0.004 0.008" pos="0 -0.0085 0.04"/>
          </body>
        </body>"""
        for i in range(grippers)
    )
    # Quaternions: the hand at -45 degrees about the last link's axis, and the grip site at -90 about that.
    return f"""<mujoco model="base">
      <compiler angle="radian" meshdir="meshes/"/>
      <size nconmax="5000" njmax="5000"/>
      <asset>
        <mesh name="robot0_link_vis" file="/home/somebody/robosuite/models/assets/robots/panda/meshes/link.stl"/>
        <mesh name="can_mesh" file="/home/somebody/robosuite/models/assets/objects/meshes/can.stl"/>
        <texture name="wood" type="2d" file="/home/somebody/wood.png"/><material name="wood_mat" texture="wood"/>
      </asset>
      <worldbody>
        <geom name="floor" type="plane" size="3 3 .125"/>
        <body name="table" pos="0 0 {TABLE - 0.025}">
          <geom type="box" size="0.4 0.4 0.025"/><site name="table_top" pos="0 0 0.025" size="0.001"/>
        </body>
        <body name="robot0_base" pos="{numbers(BASE)}">
          <body name="robot0_link0">{"".join(opened)}{hands}{"".join(closed)}</body>
        </body>
        <body name="cube_main"><joint name="cube_joint0" type="free"/>
          <geom type="box" size="{numbers(HALF_SIZES["cube"])}" material="wood_mat"/>
          <geom type="box" size="1 1 1" contype="0" conaffinity="0"/>
        </body>
        <body name="can_main"><joint name="can_joint0" type="free"/>
          <geom type="cylinder" size="{numbers(HALF_SIZES["can"][1:])}"/>
        </body>
        <body name="VisualCan_main"><geom type="mesh" mesh="can_mesh" contype="0" conaffinity="0"/></body>
      </worldbody>
      <actuator><motor joint="robot0_joint1"/></actuator>
    </mujoco>"""


def in_world(poses: Array) -> Array:
    return np.concatenate([poses[:, :3] + BASE, poses[:, 3:]], axis=1)


def states(m: Motion, grippers: int = 1) -> Array:
    """Simulation states (T, 1 + nq + nv): time, positions, velocities."""
    fingers = np.tile(np.stack([m.width / 2, -m.width / 2], axis=1), grippers)
    objects = [in_world(poses)[:, [0, 1, 2, 6, 3, 4, 5]] for poses in m.objects.values()]
    velocities = np.zeros((len(m.time), 7 + fingers.shape[1] + 6 * len(objects)))
    return np.concatenate([m.time[:, None] + 0.05, m.joints, fingers, *objects, velocities], axis=1)


def steps(m: Motion) -> Array:
    """(T, 7) actions of OSC_POSE that the arm follows two rows later."""
    ahead = np.diff(m.tcp[:, :3], axis=0, append=m.tcp[-1:, :3])
    ahead = np.concatenate([ahead[2:], np.zeros((2, 3))])
    return np.concatenate([ahead / 0.05, np.zeros((len(m.time), 3)), np.where(m.closed, 1.0, -1.0)[:, None]], axis=1)


OSC = {"type": "OSC_POSE", "control_delta": True}


def write_teleop(path: Path, m: Motion | None = None, demos: int = 2, **attributes: Any) -> None:
    m = m or motion()
    opening = np.where(m.closed, 0.0, 1.0)[:, None]
    rows = {
        "time": m.time,
        "target": np.concatenate([m.tcp, opening], axis=1),
        "tcp_pose": m.tcp,
        "joint_positions": m.joints,
        "gripper_width": m.width,
        **{f"objects/{name}": poses for name, poses in m.objects.items()},
    }
    told = {"task": "Lift", "instruction": "lift it", "rate": 20.0, "table_height": 0.001} | attributes
    told = {name: value for name, value in told.items() if value is not None}
    recordings = {f"demo_{i}": schema.Recording(rows, told) for i in range(demos)}
    schema.add(path, recordings, synthetic=True, description="a test")


def write_robosuite(
    path: Path, m: Motion | None = None, env: str = "Lift", config: Any = None, demos: int = 2, **demo: Any
) -> None:
    """Today's raw file; ``demo`` replaces states, actions or model_file."""
    m = m or motion()
    content = {"states": states(m), "actions": steps(m), "model_file": model()} | demo
    controller = {"type": "BASIC", "body_parts": {"right": config or OSC}}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        info = {"env_name": env, "robots": ["Panda"], "controller_configs": controller}
        data.attrs.update(repository_version="1.5.2", env=env, env_info=json.dumps(info))
        for i in range(1, demos + 1):
            group = data.create_group(f"demo_{i}")
            group.attrs["model_file"] = content["model_file"]
            group["states"], group["actions"] = content["states"], content["actions"]


def write_robosuite_1_0(path: Path, m: Motion | None = None, place: str = "models/model_1.xml") -> None:
    """A raw file of version 1.0, its model at ``place`` beside it."""
    m = m or motion()
    file_of_model = path.parent / place
    file_of_model.parent.mkdir(parents=True, exist_ok=True)
    file_of_model.write_text(model())
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        info = {"env_name": "Lift", "robots": "Panda", "controller_configs": OSC}
        data.attrs.update(repository_version="1.0.0", env="Lift", env_info=json.dumps(info))
        group = data.create_group("demo_1")
        group.attrs["model_file"] = "model_1.xml"
        group["states"], group["actions"] = states(m), steps(m)
        group["joint_torques"] = np.zeros((len(m.time), 7))


def observations(m: Motion) -> dict[str, Array]:
    """Observations of robomimic; its end effector is robosuite's grip site, oriented as the hand."""
    eef = in_world(pose_multiply(m.tcp, np.array([0.0, 0.0, -0.0069, 0.0, 0.0, 0.0, 1.0])))
    return {
        "robot0_eef_pos": eef[:, :3],
        "robot0_eef_quat": quat_normalize(eef[:, 3:]),
        "robot0_joint_pos": m.joints,
        "robot0_gripper_qpos": np.stack([m.width / 2, -m.width / 2], axis=1),
    }


def write_robomimic(path: Path, m: Motion | None = None, with_states: bool = True, kind: int = 1) -> None:
    m = m or motion()
    kwargs = {"robots": ["Panda"], "control_freq": 20, "controller_configs": OSC}
    env_args = {"env_name": "PickPlaceCan", "type": kind, "env_version": "1.4.1", "env_kwargs": kwargs}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update(total=2 * len(m.time), env_args=json.dumps(env_args))
        for i in range(2):
            group = data.create_group(f"demo_{i}")
            group.attrs["num_samples"] = len(m.time)
            group["actions"] = steps(m)
            for name, values in observations(m).items():
                group[f"obs/{name}"] = values
            if with_states:
                group.attrs["model_file"] = model()
                group["states"] = states(m)
        file["mask/train"] = np.array([b"demo_0", b"demo_1"])


def write_robomimic_observations(path: Path) -> None:
    write_robomimic(path, with_states=False)


def write_libero(path: Path, m: Motion | None = None, with_states: bool = True) -> None:
    """Write a LIBERO file: row j of the observations follows action j, row j of the states precedes it."""
    m = m or motion()
    obs = observations(m)
    eef = np.concatenate([obs["robot0_eef_pos"], Rotation.from_quat(obs["robot0_eef_quat"]).as_rotvec()], axis=1)
    after = {
        "ee_pos": eef[:, :3],
        "ee_ori": eef[:, 3:],
        "joint_states": m.joints,
        "gripper_states": obs["robot0_gripper_qpos"],
    }
    problem = {"problem_name": "libero_tabletop", "language_instruction": "pick up the can"}
    kwargs = {"robots": ["Panda"], "controller_configs": OSC}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update(
            env_name="Libero_Tabletop_Manipulation",
            problem_info=json.dumps(problem),
            bddl_file_name="pick_up_the_can.bddl",
            env_args=json.dumps({"type": 1, "env_name": "Libero_Tabletop_Manipulation", "env_kwargs": kwargs}),
            num_demos=1,
        )
        group = data.create_group("demo_0")
        group["actions"] = steps(m)[:-1]
        for name, values in after.items():
            group[f"obs/{name}"] = values[1:]
        if with_states:
            group.attrs["model_file"] = model()
            group["states"] = states(m)[:-1]


def write_libero_observations(path: Path) -> None:
    write_libero(path, with_states=False)


WRITERS: dict[str, Callable[[Path], None]] = {
    "teleop": write_teleop,
    "robosuite": write_robosuite,
    "robosuite_1_0": write_robosuite_1_0,
    "robomimic": write_robomimic,
    "robomimic_observations": write_robomimic_observations,
    "libero": write_libero,
    "libero_observations": write_libero_observations,
    "droid": write_droid,
    "act_end_effector": write_act_end_effector,
    "act_joints": write_act_joints,
}
"""Layout to a writer of such a file; the format is the part of the name before the first underscore."""
