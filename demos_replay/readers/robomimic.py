"""Reader of robomimic's files, MimicGen's included: uses simulation states if there are any, else observations."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from demos_replay.log import Log, LogError
from demos_replay.readers.content import demo_groups, numbers, settings, subgroup
from demos_replay.readers.observations import observed, read_observations
from demos_replay.readers.robosuite import Controller, arm_controller, find_model, read_states
from oc_residual_gym.geometry import quat_normalize

NAME = "robomimic"
LOOKED_FOR = "a group data with an attribute env_args"

_ROBOSUITE = 1
"""Environment type of robosuite in robomimic's env_args."""
_DEFAULT_RATE = 20.0
"""Control rate of robosuite's environments and of all data published by robomimic, Hz."""


def matches(file: h5py.File) -> bool:
    data = file.get("data")
    return isinstance(data, h5py.Group) and "env_args" in data.attrs


def demos(file: h5py.File) -> list[str]:
    return demo_groups(subgroup(file, "data"))


def read(file: h5py.File, name: str) -> Log:
    data = subgroup(file, "data")
    demo = subgroup(data, name)
    env_args = settings(data, "env_args")
    if env_args.get("type", _ROBOSUITE) != _ROBOSUITE:
        raise LogError(
            f"its environment is of kind {env_args['type']!r}; only robosuite's (kind {_ROBOSUITE}) are read"
        )
    kwargs = env_args.get("env_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    env_name, controller = str(env_args.get("env_name", "")), arm_controller(kwargs)
    instruction = settings(demo, "ep_meta").get("lang", "")
    instruction = instruction if isinstance(instruction, str) else ""
    facts = (f"A robomimic file, recorded with robosuite {env_args.get('env_version', 'of unknown version')}.",)
    if "states" in demo and "model_file" in demo.attrs:
        return read_states(
            demo,
            format_name=NAME,
            model=find_model(file, demo),
            env_name=env_name,
            controller=controller,
            instruction=instruction,
            facts=facts,
        )
    return _read_observations(demo, env_name, controller, kwargs, instruction, facts)


def _read_observations(
    demo: h5py.Group,
    env_name: str,
    controller: Controller | None,
    kwargs: dict[str, Any],
    instruction: str,
    facts: tuple[str, ...],
) -> Log:
    obs = observed(demo)
    if "robot1_eef_pos" in obs:
        raise LogError("it has two arms; only robots with one arm can be replayed")
    actions = numbers(demo, "actions", (None,))
    rows = len(actions)
    quaternions = numbers(obs, "robot0_eef_quat", (4,), rows)
    if (np.abs(np.linalg.norm(quaternions, axis=1) - 1.0) > 0.01).any():
        raise LogError("obs/robot0_eef_quat has quaternions that are not rotations")
    told = kwargs.get("control_freq")
    rate = float(told) if isinstance(told, int | float) and 1.0 <= told <= 1000.0 else _DEFAULT_RATE
    joints = numbers(obs, "robot0_joint_pos", (None,), rows) if "robot0_joint_pos" in obs else None
    return read_observations(
        demo,
        format_name=NAME,
        rate=rate,
        actions=actions,
        grip_site=np.concatenate([numbers(obs, "robot0_eef_pos", (3,), rows), quat_normalize(quaternions)], axis=1),
        joint_positions=joints if joints is not None and joints.shape[1] == 7 else None,
        fingers=numbers(obs, "robot0_gripper_qpos", (None,), rows) if "robot0_gripper_qpos" in obs else None,
        env_name=env_name,
        controller=controller,
        instruction=instruction,
        facts=facts,
        assumptions=() if rate == told else (f"Rows are taken to be {1000 / rate:.0f} ms apart.",),
    )
