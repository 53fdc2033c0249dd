"""Minari datasets, for offline reinforcement learning: ``MINARI_DATASETS_PATH=<out>``, ``minari.load_dataset(<id>)``.

An episode has observations of T + 1 rows by name, float32: what the robot measures (eef_pos, eef_quat, eef_rot_6d,
eef_vel_lin, eef_vel_ang, eef_wrench, joint_pos, joint_vel, gripper_opening, gripper_closed, previous_target), the true
poses of the objects object/<name> (7,), and images image/<camera>, which Minari stores as JPEG (lossy).
Actions (T, 8) are absolute: the executed TCP target, position, quaternion xyzw, opening; ``columns`` has units and
conventions. Rewards are the task's dense ones; the last step of a success terminates, that of a failure truncates.
Episode metadata has name, task, instruction, success and report.

These are not residual actions: ``gym.make("OCResidual-<Task>-v0")`` takes corrections to a base policy, so the dataset
names no environment to recover.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from demos_replay.demo import Demo
from demos_replay.writers import WriterError, optional_module, refuse_existing
from demos_replay.writers.columns import check_demo, object_columns, robot_columns, targets
from oc_residual_gym.envs.actions import WORKSPACE_HIGH, WORKSPACE_LOW

ACTION_SPACE = spaces.Box(
    np.concatenate([WORKSPACE_LOW, -np.ones(4), [0.0]]).astype(np.float32),
    np.concatenate([WORKSPACE_HIGH, np.ones(4), [1.0]]).astype(np.float32),
)
ROOT_VARIABLE = "MINARI_DATASETS_PATH"
"""Environment variable that tells Minari where its datasets are."""

Tree = dict[str, Any]
"""Name to an array, or to another such dict."""


def write_minari(demos: Iterable[Demo], dataset_id: str, out: Path) -> int:
    """Write ``demos``, one in memory at a time, as the Minari dataset ``dataset_id`` among those in the folder ``out``.

    Args:
        dataset_id: Minari's id, for example "lift/twin-v0".

    Returns:
        Number of demonstrations written.

    Raises:
        WriterError: Minari is not installed, the id is malformed or exists in ``out``, there are no demonstrations, or
            one has no steps, entries that are not finite, or other objects or cameras than the first.
    """
    minari = optional_module("minari")
    _check_id(dataset_id)
    refuse_existing(out / dataset_id)
    remaining = iter(demos)
    first = next(remaining, None)
    if first is None:
        raise WriterError("there are no demonstrations to write")
    space = _space(_observations(check_demo(first)))
    metadata: list[dict[str, Any]] = []

    def episodes() -> Iterator[Any]:
        for demo in chain([first], remaining):
            yield _episode(check_demo(demo), space, minari.data_collector.EpisodeBuffer)
            metadata.append(_metadata(demo))

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".") as folder, _datasets_in(Path(folder)):
        with warnings.catch_warnings():
            # Minari warns about all missing metadata.
            warnings.simplefilter("ignore", UserWarning)
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                episodes(),
                action_space=ACTION_SPACE,
                observation_space=space,
                algorithm_name="teleoperation, replayed in simulation",
                description=f"Demonstrations of {first.task} on a Franka Research 3; actions are absolute TCP targets.",
            )
        dataset.storage.update_episode_metadata(metadata)
        _move(Path(folder), out, dataset_id)
    return len(metadata)


def _check_id(dataset_id: str) -> None:
    try:
        optional_module("minari.dataset.minari_dataset").parse_dataset_id(dataset_id)
    except (TypeError, ValueError) as error:
        raise WriterError(f"{dataset_id!r} is not an id of a Minari dataset; give one like lift/twin-v0") from error


@contextmanager
def _datasets_in(folder: Path) -> Iterator[None]:
    """Within the block, Minari's datasets are in ``folder``."""
    before = os.environ.get(ROOT_VARIABLE)
    os.environ[ROOT_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[ROOT_VARIABLE]
        else:
            os.environ[ROOT_VARIABLE] = before


def _move(folder: Path, out: Path, dataset_id: str) -> None:
    """Move a finished dataset, and the descriptions of the namespaces it is in, from ``folder`` to ``out``."""
    (out / dataset_id).parent.mkdir(parents=True, exist_ok=True)
    for parent in Path(dataset_id).parents[:-1]:
        for file in (folder / parent).glob("*.json"):
            if not (out / parent / file.name).exists():
                shutil.copy(file, out / parent)
    os.replace(folder / dataset_id, out / dataset_id)


def _observations(demo: Demo) -> Tree:
    """Observations by name, T + 1 rows each."""
    tree: Tree = {name: values.astype(np.float32) for name, values in robot_columns(demo).items()}
    for kind, parts in (("object", object_columns(demo)), ("image", demo.images)):
        if parts:
            tree[kind] = {name: v if kind == "image" else v.astype(np.float32) for name, v in parts.items()}
    return tree


def _space(tree: Tree) -> spaces.Dict:
    """The space of one row of ``tree``."""

    def box(values: np.ndarray) -> spaces.Box:
        low, high = (0, 255) if values.dtype == np.uint8 else (-np.inf, np.inf)
        return spaces.Box(low, high, values.shape[1:], values.dtype.type)

    return spaces.Dict({name: _space(v) if isinstance(v, dict) else box(v) for name, v in tree.items()})


def _episode(demo: Demo, space: spaces.Dict, buffer: Any) -> Any:
    observations = _observations(demo)
    if _space(observations) != space:
        raise WriterError(
            f"{demo.name} has other objects or images than the first demonstration; write them to datasets of their own"
        )
    last = np.arange(len(demo.target)) == len(demo.target) - 1
    return buffer(
        observations=observations,
        actions=targets(demo).astype(np.float32),
        rewards=demo.reward,
        terminations=last & demo.success,
        truncations=last & (not demo.success),
    )


def _metadata(demo: Demo) -> dict[str, Any]:
    return {
        "name": demo.name,
        "task": demo.task,
        "instruction": demo.instruction,
        "success": demo.success,
        "report": json.dumps(dict(demo.report)),
    }
