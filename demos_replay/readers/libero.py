"""Reader of LIBERO's demonstrations.

Row j of the states was measured before action j, row j of the observations after it. Observations are used only if
there are no states, and are then paired with the next action.
"""

from __future__ import annotations

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.log import Log
from demos_replay.readers.content import demo_groups, numbers, settings, subgroup, text
from demos_replay.readers.observations import observed, read_observations
from demos_replay.readers.robosuite import arm_controller, find_model, read_states

NAME = "libero"
LOOKED_FOR = "a group data with an attribute bddl_file_name or problem_info"

_RATE = 20.0
"""Recording rate of all LIBERO data, Hz."""


def matches(file: h5py.File) -> bool:
    data = file.get("data")
    return isinstance(data, h5py.Group) and ("bddl_file_name" in data.attrs or "problem_info" in data.attrs)


def demos(file: h5py.File) -> list[str]:
    return demo_groups(subgroup(file, "data"))


def read(file: h5py.File, name: str) -> Log:
    data = subgroup(file, "data")
    demo = subgroup(data, name)
    instruction = settings(data, "problem_info").get("language_instruction", "")
    if isinstance(instruction, list):
        instruction = " ".join(map(str, instruction))
    env_name = text(data, "env_name") or text(data, "env") or ""
    kwargs = settings(data, "env_args").get("env_kwargs") or settings(data, "env_info")
    controller = arm_controller(kwargs if isinstance(kwargs, dict) else {})
    facts = ("A LIBERO file: its first five steps were removed when it was made.",)
    if "states" in demo and "model_file" in demo.attrs:
        return read_states(
            demo,
            format_name=NAME,
            model=find_model(file, demo),
            env_name=env_name,
            controller=controller,
            instruction=str(instruction),
            facts=facts,
        )
    obs = observed(demo)
    actions = numbers(demo, "actions", (None,))
    rows = len(actions)
    positions, turns = numbers(obs, "ee_pos", (3,), rows), numbers(obs, "ee_ori", (3,), rows)
    hand = np.concatenate([positions, Rotation.from_rotvec(turns).as_quat()], axis=1)
    joints = numbers(obs, "joint_states", (7,), rows) if "joint_states" in obs else None
    fingers = numbers(obs, "gripper_states", (2,), rows) if "gripper_states" in obs else None
    return read_observations(
        demo,
        format_name=NAME,
        rate=_RATE,
        actions=actions[1:],
        grip_site=hand[:-1],
        joint_positions=None if joints is None else joints[:-1],
        fingers=None if fingers is None else fingers[:-1],
        env_name=env_name,
        controller=controller,
        instruction=str(instruction),
        facts=(*facts, "Observations follow their actions: row t is observation t with action t + 1."),
        assumptions=(f"Rows are taken to be {1000 / _RATE:.0f} ms apart, as in all of LIBERO.",),
    )
