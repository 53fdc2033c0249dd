"""Datasets in robomimic's HDF5 layout: what a replay produces, and what every other format is made from.

    /data             attributes: total (steps), env_args (JSON), schema, version, versions (JSON), and the caller's
    /data/demo_<i>    attributes: num_samples (T), name, task, instruction, success, failure, report (JSON), objects
                      and cameras (JSON lists of names)
      actions (T, 8)  executed target of step t: TCP position, quaternion xyzw, opening; all within [-1, 1]
      action_dict/    the same as abs_pos, abs_rot_6d, abs_quat, gripper, and joint_pos (joints reached by the step)
      states (T, nq)  joint positions (qpos) of the simulation before step t; the last ones in last_state (1, nq)
      rewards (T,)    after step t;  dones (T,) 1 in the last step of a success, else 0
      obs/, next_obs/ before and after step t, so next_obs[t] is obs[t + 1]
    /mask/            train and valid (every tenth) of the successes; successful and failed, if there are failures

Observations, float32: robot0_eef_pos, _eef_quat, _eef_rot_6d, _eef_vel_lin, _eef_vel_ang, _eef_wrench, _joint_pos,
_joint_vel, _gripper_qpos (both fingers, m, robosuite's signs), _gripper_opening, _gripper_closed, _previous_target;
<object>_pos and <object>_quat, all of them again as "object"; <camera>_image. ``columns`` has units and conventions.
In a file of several tasks, env_args names the environment of the first one.

robomimic trains on it as it is: ``observation.modalities.obs.low_dim`` takes, for example, robot0_eef_pos,
robot0_eef_rot_6d, robot0_gripper_opening and object, ``.rgb`` takes the images. Version 0.3 predicts ``actions``; newer
ones choose: ``train.action_keys`` of action_dict/abs_pos, action_dict/abs_rot_6d, action_dict/gripper. ACT's own
repository learns joints: obs/robot0_joint_pos with robot0_gripper_opening, action_dict/joint_pos with gripper.
GR00T, openpi and SmolVLA take the LeRobot dataset made from this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from demos_replay.demo import Demo
from demos_replay.log import LogError
from demos_replay.readers.content import natural_order, number, numbers, settings, subgroup, text
from demos_replay.writers import WriterError, written_whole
from demos_replay.writers.columns import Columns, check_demo, object_columns, robot_columns, target_columns, targets
from oc_residual_gym.errors import FileError
from oc_residual_gym.evaluation.provenance import versions
from oc_residual_gym.hdf5 import DAMAGE, opened, read, written
from oc_residual_gym.registration import env_id
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.states import Array

SCHEMA, VERSION = "oc-residual-demos", 1
GYM_TYPE = 2
"""robomimic's ``EnvType`` of Gymnasium environments."""
VALID_EVERY = 10
"""Every n-th successful demonstration is for validation."""
IMAGE = "_image"


def write_demos(path: Path, demos: Iterable[Demo], attrs: Mapping[str, Any]) -> int:
    """Write ``demos`` to a file at ``path``, one in memory at a time; an existing file is replaced.

    Args:
        attrs: origin of the demonstrations, for the attributes of /data: numbers and text as they are, else JSON.

    Returns:
        Number of demonstrations written.

    Raises:
        WriterError: there are none, two have the same name, or one has no steps or entries that are not finite.
    """
    with written_whole(path) as temporary, written(temporary) as file:
        data = file.create_group("data")
        for i, demo in enumerate(demos):
            _write(data.create_group(f"demo_{i}"), check_demo(demo))
        return _finish(file, attrs)


def assemble(path: Path, parts: Iterable[Path], attrs: Mapping[str, Any]) -> int:
    """Copy the demonstrations of files that :func:`write_demos` wrote into one new file at ``path``, in that order.

    Returns:
        Number of demonstrations copied.

    Raises:
        LogError: a part is not such a file.
        WriterError: there are no demonstrations, or two have the same name.
    """
    with written_whole(path) as temporary, written(temporary) as file:
        data = file.create_group("data")
        for part in parts:
            with _opened(part) as source:
                for name in natural_order(source):
                    source.copy(name, data, name=f"demo_{len(data)}")
        return _finish(file, attrs)


def demo_names(path: Path) -> list[str]:
    """Names of the demonstrations in a file that :func:`write_demos` or :func:`assemble` wrote.

    Raises:
        LogError: it is not such a file.
    """
    with _opened(path) as data:
        return [text(data[demo], "name") or demo for demo in natural_order(data)]


def read_demos(path: Path, images: bool = True) -> Iterator[Demo]:
    """Read the demonstrations of such a file, one at a time; target, reward and qpos are exact, the rest is float32.

    Args:
        images: whether to read images, if there are any.

    Raises:
        LogError: it is not such a file, or a demonstration in it is damaged.
    """
    with _opened(path) as data:
        for demo in natural_order(data):
            try:
                result = _read(subgroup(data, demo), images)
            except (LogError, *DAMAGE) as error:
                raise LogError(f"{path}, {demo}: {error}") from error
            yield result


def _write(group: h5py.Group, demo: Demo) -> None:
    group.attrs.update(
        num_samples=len(demo.target),
        name=demo.name,
        task=demo.task,
        instruction=demo.instruction,
        success=demo.success,
        failure=demo.failure or "",
        report=json.dumps(dict(demo.report)),
        objects=json.dumps(list(demo.objects)),
        cameras=json.dumps(list(demo.images)),
    )
    done = np.zeros(len(demo.target), dtype=np.int64)
    done[-1] = demo.success
    exact = {"actions": targets(demo), "rewards": demo.reward, "dones": done, "states": demo.qpos[:-1]}
    for name, values in (exact | {"last_state": demo.qpos[-1:]}).items():
        _create(group, name, values)
    for name, values in target_columns(demo).items():
        prefix = "" if name in ("joint_pos", "gripper") else "abs_"
        _create(group, f"action_dict/{prefix}{name}", values.astype(np.float32))
    for name, values in _observations(demo).items():
        _create(group, f"obs/{name}", values[:-1].astype(np.float32))
        _create(group, f"next_obs/{name}", values[1:].astype(np.float32))
    for camera, pictures in demo.images.items():
        _create_pictures(group, camera + IMAGE, pictures)


def _observations(demo: Demo) -> Columns:
    """Observations (T + 1, n) by their names in the file."""
    robot = robot_columns(demo)
    robot["gripper_qpos"] = demo.gripper_width[:, None] * np.array([0.5, -0.5])
    columns = {f"robot0_{name}": values for name, values in robot.items()}
    objects = object_columns(demo)
    for name, poses in objects.items():
        columns |= {f"{name}_pos": poses[:, :3], f"{name}_quat": poses[:, 3:]}
    if objects:
        columns["object"] = np.concatenate(list(objects.values()), axis=1)
    return columns


def _create(group: h5py.Group, name: str, values: np.ndarray) -> None:
    group.create_dataset(name, data=values, chunks=values.shape, compression="gzip", shuffle=True)


def _create_pictures(group: h5py.Group, name: str, pictures: np.ndarray) -> None:
    """Write images, one per chunk, so that the compressed bytes serve both ``obs`` and, one row earlier,
    ``next_obs``."""
    layout: dict[str, Any] = {"chunks": (1, *pictures.shape[1:]), "compression": "gzip"}
    before = group.create_dataset(f"obs/{name}", data=pictures[:-1], **layout)
    after = group.create_dataset(f"next_obs/{name}", shape=before.shape, dtype=before.dtype, **layout)
    for row in range(len(before) - 1):
        after.id.write_direct_chunk((row, 0, 0, 0), before.id.read_direct_chunk((row + 1, 0, 0, 0))[1])
    after[-1] = pictures[-1]


def _finish(file: h5py.File, attrs: Mapping[str, Any]) -> int:
    """Write the attributes and masks of the whole file; return the number of demonstrations."""
    data = file["data"]
    demos = [data[name] for name in natural_order(data)]
    if not demos:
        raise WriterError("there are no demonstrations to write")
    names = [demo.attrs["name"] for demo in demos]
    if len(set(names)) < len(names):
        raise WriterError(f"two demonstrations have the name {next(n for n in names if names.count(n) > 1)}")
    environment = {"env_name": env_id(demos[0].attrs["task"]), "type": GYM_TYPE, "env_kwargs": {}}
    data.attrs.update(
        total=sum(int(demo.attrs["num_samples"]) for demo in demos),
        env_args=json.dumps(environment),
        schema=SCHEMA,
        version=VERSION,
        versions=json.dumps(versions()),
        **{
            name: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
            for name, value in attrs.items()
        },
    )
    _write_masks(file, demos)
    return len(demos)


def _write_masks(file: h5py.File, demos: Sequence[h5py.Group]) -> None:
    keys = {
        success: [d.name.rpartition("/")[2] for d in demos if d.attrs["success"] == success]
        for success in (True, False)
    }
    good = keys[True]
    valid = good[VALID_EVERY - 1 :: VALID_EVERY] or good[1:][-1:]
    masks = {"train": [key for key in good if key not in valid], "valid": valid}
    if keys[False]:
        masks |= {"successful": good, "failed": keys[False]}
    for name, members in masks.items():
        if members:
            file[f"mask/{name}"] = np.array(members, dtype="S")


@contextmanager
def _opened(path: Path) -> Iterator[h5py.Group]:
    """/data of the file at ``path``, opened for reading only.

    Raises:
        LogError: there is no such file, or :func:`write_demos` did not write it.
    """
    try:
        with opened(path) as file:
            yield _data(file, path)
    except FileError as error:
        raise LogError(str(error)) from error


def _data(file: h5py.File, path: Path) -> h5py.Group:
    try:
        data = file.get("data")
        known = isinstance(data, h5py.Group) and text(data, "schema") == SCHEMA
        version = number(data, "version") if known else None
    except DAMAGE as error:
        raise LogError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if not known:
        raise LogError(f"{path} was not written by demos-replay: /data has no attribute schema = {SCHEMA!r}")
    if version != VERSION:
        raise LogError(f"{path} has version {version} of {SCHEMA}, this package reads {VERSION}; install its release")
    return data


def _read(group: h5py.Group, images: bool) -> Demo:
    actions = numbers(group, "actions", (8,))
    steps = len(actions)

    def column(name: str, width: int) -> Array:
        before = numbers(group, f"obs/{name}", (width,), steps)
        return np.concatenate([before, numbers(group, f"next_obs/{name}", (width,), steps)[-1:]])

    def poses(prefix: str) -> Array:
        return np.concatenate([column(f"{prefix}_pos", 3), column(f"{prefix}_quat", 4)], axis=1)

    robot = "robot0_"
    velocity = [column(f"{robot}eef_vel_{kind}", 3) for kind in ("lin", "ang")]
    qpos = numbers(group, "states", (None,), steps)
    return Demo(
        name=text(group, "name") or "",
        task=text(group, "task") or "",
        instruction=text(group, "instruction") or "",
        success=bool(group.attrs["success"]),
        failure=text(group, "failure") or None,
        target=actions,
        reward=numbers(group, "rewards", (), steps),
        tcp_pose=poses(f"{robot}eef"),
        tcp_velocity=np.concatenate(velocity, axis=1),
        joint_positions=column(f"{robot}joint_pos", 7),
        joint_velocities=column(f"{robot}joint_vel", 7),
        gripper_width=column(f"{robot}gripper_opening", 1)[:, 0] * MAX_OPENING,
        gripper_closed=column(f"{robot}gripper_closed", 1)[:, 0] > 0.5,
        wrench=column(f"{robot}eef_wrench", 6),
        objects={name: poses(name) for name in json.loads(group.attrs["objects"])},
        qpos=np.concatenate([qpos, numbers(group, "last_state", (qpos.shape[1],), 1)]),
        images={name: _pictures(group, name + IMAGE) for name in json.loads(group.attrs["cameras"]) if images},
        report=settings(group, "report"),
    )


def _pictures(group: h5py.Group, name: str) -> np.ndarray:
    return np.concatenate([read(group["obs"][name]), group["next_obs"][name][-1:]])
