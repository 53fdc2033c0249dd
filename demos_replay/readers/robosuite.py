"""Reader of raw files of robosuite's collector, from version 1.0 (models beside the file) to the current one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.log import Log, LogError
from demos_replay.readers.arms import LAGS, find_lag
from demos_replay.readers.content import demo_groups, numbers, settings, subgroup, text
from demos_replay.readers.robosuite_scene import Scene, read_scene
from oc_residual_gym.geometry import pose_multiply, pose_relative, rotation_between
from oc_residual_gym.states import Array
from oc_residual_gym.tasks import TASKS

NAME = "robosuite"
LOOKED_FOR = "a group data with demonstrations that hold states and have an attribute model_file"

_MAX_MODEL_BYTES = 10_000_000
_RATES = (1.0, 1000.0)
"""Plausible range of control rates, Hz."""
_PLAUSIBLE_ERROR = 0.1
"""Maximum metres between an absolute target and the measured pose; beyond it the frame is not the assumed one."""


def matches(file: h5py.File) -> bool:
    data = file.get("data")
    return isinstance(data, h5py.Group) and ("env_info" in data.attrs or any(map(_is_demo, data.values())))


def demos(file: h5py.File) -> list[str]:
    data = subgroup(file, "data")
    return demo_groups(data)


def read(file: h5py.File, name: str) -> Log:
    data = subgroup(file, "data")
    demo = subgroup(data, name)
    version = text(data, "repository_version") or "of unknown version"
    env_info = settings(data, "env_info")
    return read_states(
        demo,
        format_name=NAME,
        model=find_model(file, demo),
        env_name=text(data, "env") or str(env_info.get("env_name", "")),
        controller=arm_controller(env_info),
        facts=(f"Recorded with robosuite {version}, robot {_listed(env_info.get('robots', 'not named'))}.",),
    )


def _is_demo(item: Any) -> bool:
    return isinstance(item, h5py.Group) and "states" in item and "model_file" in item.attrs


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def find_model(file: h5py.File, demo: h5py.Group) -> str:
    """The MJCF of a demonstration: embedded, or in a file beside the log (robosuite 1.0).

    Raises:
        LogError: there is none, or it is in a file that is missing or outside the log's folder.
    """
    model = text(demo, "model_file")
    if model is None:
        raise LogError(f"{demo.name} has no attribute model_file; without its model the states cannot be understood")
    if model.lstrip().startswith("<"):
        return model
    path = Path(file.filename)
    folder = path.parent.resolve()
    places = [folder / "models" / model, folder / f"{path.stem}.{model}", folder / model]
    for place in places:
        if not place.resolve().is_relative_to(folder):
            raise LogError(f"its model_file {model!r} leads out of {folder}; models are read from beside the log only")
        if place.is_file():
            if place.stat().st_size > _MAX_MODEL_BYTES:
                raise LogError(f"its model {place} is larger than any recorded scene")
            return place.read_text(encoding="utf-8")
    raise LogError(f"its model is in a file that is missing; put it at {' or '.join(map(str, places))}")


@dataclass(frozen=True)
class Controller:
    """Meaning of the actions in a file, as far as the file says."""

    kind: str
    absolute: bool
    frame: str
    """Frame of absolute actions: "world" or "base"."""

    @property
    def is_delta(self) -> bool:
        """Whether the first three numbers of an action are a relative motion."""
        return self.kind in ("OSC_POSE", "OSC_POSITION", "IK_POSE") and not self.absolute


def arm_controller(env_info: dict[str, Any]) -> Controller | None:
    """The arm's controller from ``make``'s arguments, as robosuite 1.0 to 1.5 write them; ``None`` if unknown."""
    config = env_info.get("controller_configs")
    if isinstance(config, list) and config:
        config = config[0]
    while isinstance(config, dict) and isinstance(parts := config.get("body_parts", config.get("arms")), dict):
        config = parts
    if isinstance(config, dict) and isinstance(config.get("right"), dict):
        config = config["right"]
    if not isinstance(config, dict) or not isinstance(config.get("type"), str):
        return None
    if config.get("impedance_mode", "fixed") != "fixed":
        return Controller(f"{config['type']} with variable impedance", False, "")
    absolute = config.get("control_delta") is False or config.get("input_type") == "absolute"
    # Before version 1.5, absolute actions were always in the world frame.
    return Controller(config["type"], absolute, str(config.get("input_ref_frame", "world")))


def task_of(env_name: str) -> str | None:
    """Name of the task that is closest to an environment of robosuite or MimicGen ("Stack_D0"), if any."""
    env_name = re.sub(r"_D\d$", "", env_name)
    return next(
        (name for name, task in TASKS.items() if task.robosuite and fnmatchcase(env_name, task.robosuite)), None
    )


def read_states(
    demo: h5py.Group,
    *,
    format_name: str,
    model: str,
    env_name: str,
    controller: Controller | None,
    facts: tuple[str, ...],
    instruction: str = "",
) -> Log:
    """Read a demonstration of simulation states and actions, with the model that they belong to.

    Raises:
        LogError: it cannot be used.
    """
    states = numbers(demo, "states", (None,))
    actions = numbers(demo, "actions", (None,), rows=len(states))
    if len(states) < 2:
        raise LogError(f"it has {len(states)} rows; a demonstration needs at least 2")
    if actions.shape[1] < 2:
        raise LogError(f"its actions have {actions.shape[1]} columns; no arm with a gripper has fewer than 2")
    scene = read_scene(model, states)
    time = states[:, 0] - states[0, 0]
    rate, timing = _rate(time)
    target, lag, commands = _commands(actions, scene, rate, controller)
    polarity = "The last column of the actions is the gripper's: above 0 it closes."
    return Log(
        file=demo.file.filename,
        name=demo.name.rsplit("/", 1)[-1],
        format=format_name,
        rate=rate,
        time=time,
        tcp_pose=scene.tcp_pose,
        gripper_closed=actions[:, -1] > 0.0,
        target=target,
        gripper_width=scene.gripper_width,
        joint_positions=scene.joint_positions,
        objects=scene.objects,
        table_height=scene.table_height,
        lag=lag,
        task=task_of(env_name),
        instruction=instruction,
        facts=(
            *facts,
            f"The environment is {env_name or 'not named'}.",
            "All poses come from the recorded simulation states; state t is the one that action t was applied to.",
            timing,
            *scene.facts,
            polarity,
            commands,
        ),
        assumptions=scene.assumptions,
    )


def _rate(time: Array) -> tuple[float, str]:
    """Rows per second, and a sentence about them."""
    steps = np.diff(time)
    step = float(np.median(steps))
    if not 1.0 / _RATES[1] <= step <= 1.0 / _RATES[0]:
        raise LogError(f"its rows are {step:g} s apart: not a plausible control rate")
    longer = steps > 1.5 * step
    sentence = f"Rows are {1000 * step:.1f} ms apart"
    if longer.any():
        sentence += (
            f"; {longer.sum()} of {len(steps)} steps are longer, up to {1000 * steps.max():.0f} ms: the collector "
            "lost rows there, as it did before version 1.1"
        )
    return round(1.0 / step, 6), sentence + "."


def _commands(
    actions: Array, scene: Scene, rate: float, controller: Controller | None
) -> tuple[Array | None, float, str]:
    """Absolute targets (T, 7) if there are any, the lag in seconds, and a sentence about the commands."""
    if controller is None:
        return (
            None,
            0.0,
            "The file does not say what the actions mean, so the measured path is replayed; the lag is unknown.",
        )
    if controller.kind == "OSC_POSE" and controller.absolute and actions.shape[1] == 7:
        target = _absolute_targets(actions, scene, controller.frame)
        errors = np.linalg.norm(target[:, :3] - scene.tcp_pose[:, :3], axis=1)
        turns = np.linalg.norm(rotation_between(scene.tcp_pose[:, 3:], target[:, 3:]), axis=1)
        if np.median(errors) < _PLAUSIBLE_ERROR and np.median(turns) < np.radians(30.0):
            delay = find_lag(target[:, :3], scene.tcp_pose[:, :3])
            return (
                target,
                (delay[0] if delay else 0) / rate,
                "The actions are absolute poses of the grip site, brought to the TCP.",
            )
        return (
            None,
            0.0,
            "The actions claim to be absolute poses but are far from the measured ones: not used; the lag is unknown.",
        )
    if controller.is_delta and actions.shape[1] >= 4:
        sentence = f"The actions are {controller.kind} steps, not absolute targets, so the measured path is replayed."
        rows = step_delay(actions[:, :3], scene.tcp_pose[:, :3])
        if rows is None:
            return None, 0.0, sentence + " No lag could be estimated."
        return None, rows / rate, sentence + f" The arm follows them after {1000 * rows / rate:.0f} ms."
    return (
        None,
        0.0,
        f"The actions are {controller.kind} commands, so the measured path is replayed; the lag is unknown.",
    )


def _absolute_targets(actions: Array, scene: Scene, frame: str) -> Array:
    quaternions = Rotation.from_rotvec(actions[:, 3:6]).as_quat()
    grip_site = np.concatenate([actions[:, :3], quaternions], axis=1)
    if frame == "world":
        grip_site = pose_relative(scene.base_pose, grip_site)
    return pose_multiply(grip_site, scene.tcp_in_grip_site)


def step_delay(steps: Array, measured: Array) -> int | None:
    """Delay in rows from commanded steps (T, 3) to the motion of measured positions (T, 3); None if they do not
    agree."""
    velocities = np.diff(measured, axis=0)
    best_rows, best_agreement = None, 0.5
    for rows in range(min(LAGS, len(velocities) - 1) + 1):
        command, velocity = steps[: len(velocities) - rows], velocities[rows:]
        length = np.sqrt((command**2).sum() * (velocity**2).sum())
        agreement = (command * velocity).sum() / length if length > 0.0 else 0.0
        if agreement > best_agreement:
            best_rows, best_agreement = rows, agreement
    return best_rows
