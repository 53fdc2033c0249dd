"""Reader of this package's own log schema; see :mod:`oc_residual_gym.log_schema`."""

from __future__ import annotations

import h5py
import numpy as np

from demos_replay.log import Log, LogError, LogObject
from demos_replay.readers.arms import check_reach, find_lag
from demos_replay.readers.content import demo_groups, natural_order, number, numbers, poses, subgroup, text
from oc_residual_gym.log_schema import SCHEMA, VERSION
from oc_residual_gym.states import Array, BoolArray
from oc_residual_gym.tasks import TASKS

NAME = "teleop"
LOOKED_FOR = f'an attribute schema of the file that is "{SCHEMA}"'

CLOSES_BELOW, OPENS_ABOVE = 0.45, 0.55
"""Thresholds on the target's opening; between them the command stays as it was."""


def matches(file: h5py.File) -> bool:
    return text(file, "schema") == SCHEMA


def demos(file: h5py.File) -> list[str]:
    return demo_groups(subgroup(file, "demos"))


def read(file: h5py.File, name: str) -> Log:
    version = number(file, "version")
    if version != VERSION:
        raise LogError(f"the file has version {version} of {SCHEMA}; this program reads version {VERSION}")
    demo = subgroup(subgroup(file, "demos"), name)
    time = numbers(demo, "time", ())
    rows = len(time)
    if rows == 0:
        raise LogError("it has no rows")
    rate = number(demo, "rate")
    if rate is None or not 1.0 <= rate <= 1000.0:
        raise LogError("its attribute rate is missing, or not between 1 and 1000 Hz")
    target = numbers(demo, "target", (8,), rows)
    tcp_pose = poses(demo, "tcp_pose", rows)
    check_reach(tcp_pose[:, :3], "tcp_pose")
    check_reach(target[:, :3], "target")
    delay = find_lag(target[:, :3], tcp_pose[:, :3])
    lag = (delay[0] if delay else 0) / rate
    task, height, source = text(demo, "task"), number(demo, "table_height"), text(demo, "pose_source")
    objects, unseen = _objects(demo, rows)

    facts = [
        f"Version {VERSION} of {SCHEMA}: base frame, metres, seconds, quaternions xyzw.",
        f"The gripper's command is the target's opening: below {CLOSES_BELOW} it closes, above {OPENS_ABOVE} it opens.",
        f"The objects' poses come from {source or 'a source that is not named'}.",
    ]
    if unseen:
        facts.append(f"Never seen, and left out: {', '.join(unseen)}.")
    assumptions = [] if height is not None else ["The table's top is at the height of the robot's base."]
    if task not in TASKS:
        assumptions.append(f"The task is {'not named' if task is None else f'unknown ({task})'}: it must be given.")
    return Log(
        file=file.filename,
        name=name,
        format=NAME,
        rate=rate,
        time=time - time[0],
        tcp_pose=tcp_pose,
        gripper_closed=latch(target[:, 7]),
        target=_target_poses(target),
        gripper_width=numbers(demo, "gripper_width", (), rows),
        joint_positions=numbers(demo, "joint_positions", (7,), rows),
        objects=objects,
        table_height=height or 0.0,
        lag=lag,
        task=task if task in TASKS else None,
        instruction=text(demo, "instruction") or "",
        synthetic=bool(number(file, "synthetic")),
        facts=tuple(facts),
        assumptions=tuple(assumptions),
    )


def latch(opening: Array) -> BoolArray:
    """(T,) True where the opening command (T,) in [0, 1] asks for closed fingers, with hysteresis."""
    closed = np.zeros(len(opening), dtype=bool)
    state = False
    for t, value in enumerate(opening):
        state = value < (OPENS_ABOVE if state else CLOSES_BELOW)
        closed[t] = state
    return closed


def _target_poses(target: Array) -> Array:
    lengths = np.linalg.norm(target[:, 3:7], axis=1)
    if (np.abs(lengths - 1.0) > 0.01).any():
        raise LogError(f"target has quaternions that are not rotations, first in row {np.abs(lengths - 1).argmax()}")
    return np.concatenate([target[:, :3], target[:, 3:7] / lengths[:, None]], axis=1)


def _objects(demo: h5py.Group, rows: int) -> tuple[dict[str, LogObject], list[str]]:
    """Objects by name, and the names of those never seen. In a row without a valid pose, the last valid one is kept."""
    objects, unseen = {}, []
    group = subgroup(demo, "objects") if "objects" in demo else {}
    validity = subgroup(demo, "objects_valid") if "objects_valid" in demo else {}
    for name in natural_order(group):
        valid = np.ones(rows, dtype=bool)
        if name in validity:
            valid = numbers(validity, name, (), rows) > 0.5
        seen = valid.nonzero()[0]
        if len(seen) == 0:
            unseen.append(name)
            continue
        values = poses(group, name, rows, gaps=not valid.all())
        # Before the first valid pose, use that pose.
        last = np.maximum.accumulate(np.where(valid, np.arange(rows), seen[0]))
        objects[name] = LogObject(values[last])
    return objects, unseen
