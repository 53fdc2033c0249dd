"""Recording: an operator works in the simulated cell, and its log goes into a file of this package's own schema."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from demos_replay.log import LogError
from demos_replay.operator import OperatorPolicy
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import FileError
from oc_residual_gym.hdf5 import opened
from oc_residual_gym.log_schema import SCHEMA, Recording, add
from oc_residual_gym.policies.base import BasePolicy
from oc_residual_gym.states import CONTROL_FREQUENCY, Array
from oc_residual_gym.tasks import TASKS

WORLDS = 25
"""Demonstrations of the scripted operator that are recorded in parallel."""


def record_scripted(task: str, out: Path, *, demos: int, domain: str) -> dict[str, Any]:
    """Record the scripted operator until ``out`` holds ``demos`` successful demonstrations.

    Raises:
        ValueError: an option is unknown.
        LogError: ``out`` exists and is not a log of this task, operator and domain.
        OSError: ``out`` cannot be written.
    """
    description = f"Synthetic: a scripted operator at work in the simulated world {domain!r}, not a person"
    operator = OperatorPolicy(TASKS[task])
    return _record(task, out, operator, demos, domain, min(WORLDS, demos), "scripted", description, lambda core: None)


def record_person(task: str, out: Path, operator: BasePolicy, *, demos: int, domain: str) -> dict[str, Any]:
    """Record a person who drives ``operator`` (see :mod:`demos_replay.devices`) until ``out`` holds ``demos``
    successes.

    A window shows the cell, and control runs in real time.

    Raises:
        ValueError: an option is unknown.
        LogError: ``out`` exists and is not a log of this task, operator and domain.
        OSError: ``out`` cannot be written.
        RenderError: there is no display.
    """
    from oc_residual_gym.worlds.render import HumanViewer

    viewer = HumanViewer(TASKS[task])
    due = time.monotonic()

    def show(core: ResidualWorlds) -> None:
        nonlocal due
        viewer.show(core.mujoco, 0)
        due = max(due + 1.0 / CONTROL_FREQUENCY, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))

    description = f"A person at work in the simulated world {domain!r}"
    try:
        return _record(task, out, operator, demos, domain, 1, operator.name, description, show)
    finally:
        viewer.close()


def _record(
    task: str,
    out: Path,
    operator: BasePolicy,
    demos: int,
    domain: str,
    worlds: int,
    label: str,
    description: str,
    after_step: Callable[[ResidualWorlds], None],
) -> dict[str, Any]:
    """Record until ``out`` holds ``demos`` successes. Start states are the seeds of split "train" from 0 on; after a
    failure the next seed is tried. The file is valid after every round, and another call resumes it."""
    kept, tried = _progress(out, task, label, domain)
    first = kept

    def save(recordings: dict[str, Recording]) -> None:
        add(out, recordings, synthetic=label == "scripted", description=description, seeds_tried=tried)

    if kept < demos:
        save({})  # If the file cannot be written, fail now, before a demonstration is lost.
    core = ResidualWorlds(
        task,
        worlds,
        base_policy=operator,
        domain=domain,
        errors="clean",
        split="train",
        max_episode_steps=2 * TASKS[task].max_episode_steps,
    )
    try:
        with tqdm(total=demos, initial=kept, unit="demo", desc=task, disable=None) as bar:
            while kept < demos:
                seeds = list(range(tried, tried + worlds))
                results = list(zip(seeds, _run(core, seeds, after_step), strict=True))
                fresh = {seed: rows for seed, rows in results if rows is not None}
                fresh = dict(list(fresh.items())[: demos - kept])
                tried = seeds[-1] + 1 if kept + len(fresh) < demos else max(fresh) + 1
                recordings = {
                    f"demo_{kept + i:04}": _recording(task, rows, seed, label, domain)
                    for i, (seed, rows) in enumerate(fresh.items())
                }
                save(recordings)
                kept += len(fresh)
                bar.update(len(fresh))
    finally:
        core.close()
    return {"file": str(out), "demos": kept, "new": kept - first, "seeds_tried": tried}


def _progress(out: Path, task: str, label: str, domain: str) -> tuple[int, int]:
    """Number of demonstrations in ``out``, and of the seeds that were tried for them."""
    if not out.exists():
        return 0, 0
    problem = f"{out} exists, and is not a log of {task} by operator {label!r} in {domain!r}: give another --out"
    try:
        with opened(out) as file:
            demos = file.get("demos", {})
            made = {(g.attrs["task"], g.attrs["operator"], g.attrs["domain"]) for g in demos.values()}
            if file.attrs["schema"] != SCHEMA or made - {(task, label, domain)}:
                raise LogError(problem)
            return len(demos), int(file.attrs["seeds_tried"])
    except (FileError, KeyError, AttributeError) as error:
        raise LogError(problem) from error


def _run(
    core: ResidualWorlds, seeds: list[int], after_step: Callable[[ResidualWorlds], None]
) -> list[dict[str, Array] | None]:
    """Rows of one episode per world; ``None`` for an episode that failed."""
    everyone = np.arange(core.num_worlds)
    core.reset(everyone, seeds)
    rows: list[list[dict[str, Array]]] = [[] for _ in seeds]
    zeros = np.zeros((core.num_worlds, 7))
    active = everyone
    while len(active):
        measured = _measure(core)
        core.step(zeros, active)
        after_step(core)
        measured["target"] = core.executed_target.copy()
        for world in active:
            rows[world].append({name: values[world] for name, values in measured.items()})
        active = active[~(core.terminated | core.truncated)[active]]
    return [
        {name: np.stack([row[name] for row in rows[world]]) for name in rows[world][0]} if core.success[world] else None
        for world in everyone
    ]


def _measure(core: ResidualWorlds) -> dict[str, Array]:
    """Current measurements of all worlds, as they are recorded."""
    robot, true = core.simulation.robot, core.simulation.true
    measured = {
        "time": core.steps / CONTROL_FREQUENCY,
        "tcp_pose": robot.tcp_pose,
        "joint_positions": robot.joint_positions,
        "gripper_width": robot.gripper_width,
        "wrench": robot.wrench,
        "table_height": true.table_height,
    }
    poses = zip(core.task.objects, core.task.object_poses(true), strict=True)
    measured |= {f"objects/{item.name}": pose for item, pose in poses}
    return {name: values.copy() for name, values in measured.items()}


def _recording(task: str, rows: dict[str, Array], seed: int, label: str, domain: str) -> Recording:
    attributes = {
        "task": task,
        "instruction": TASKS[task].instruction,
        "rate": CONTROL_FREQUENCY,
        "success": True,
        "operator": label,
        "domain": domain,
        "split": "train",
        "seed": seed,
        "table_height": float(rows["table_height"][0]),
        "pose_source": "simulation",
    }
    return Recording({name: values for name, values in rows.items() if name != "table_height"}, attributes)
