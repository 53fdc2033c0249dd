"""Open a cell and create the environment on its robot: the same environment as in simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.perception.calibration import load_calibration
from oc_residual_gym.perception.sources import open_source
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.base import BasePolicy
from oc_residual_gym.real.cell import Cell
from oc_residual_gym.real.tracking import TrackedObjects
from oc_residual_gym.real.world import FR3World
from oc_residual_gym.registration import env_id
from oc_residual_gym.tasks import TASKS


@contextmanager
def open_tracker(cell: Cell, task: str) -> Iterator[TrackedObjects]:
    """Context with the tracked objects of ``task`` in ``cell``.

    Raises:
        SettingsError: the source's address or the calibration's file is invalid.
    """
    objects = TASKS[task].objects
    path = Path(cell.poses.calibration)
    calibration = None
    if cell.poses.calibration:
        calibration = load_calibration(path if path.is_absolute() else Path(cell.path).parent / path)
    source = open_source(cell.poses.source, [o.name for o in objects])
    tracker = TrackedObjects(objects, source, cell.poses, calibration, specs=TASKS[task].specs)
    try:
        yield tracker
    finally:
        tracker.close()


@contextmanager
def open_cell(
    cell: Cell,
    task: str,
    verdict: Callable[[], bool | None] | None = None,
    dry_run: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[FR3World]:
    """Context with the world of ``cell``, connected but not moved yet; arguments as for :class:`FR3World`.

    Raises:
        SettingsError: as for :func:`open_tracker`.
        RobotStopped: there is no connection, or the robot's settings differ from ours.
    """
    with (
        open_tracker(cell, task) as tracker,
        FR3World(cell, task, tracker, verdict, dry_run, should_stop=should_stop) as world,
    ):
        yield world


def make_env(world: FR3World, base: str | BasePolicy, split: str, max_episode_steps: int | None = None) -> gym.Env:
    """Create the environment of the world's task. Raises ``SettingsError`` if the base policy cannot act in it."""
    policy = load_base_policy(base, world.task)
    if "images" in policy.needs and not world.cameras:
        raise SettingsError(
            f"base policy {policy.name!r} needs images, and a cell's file has no cameras yet: give FR3World cameras in "
            "Python, as docs/real_robot.md says"
        )
    steps = max_episode_steps or world.task.max_episode_steps
    try:
        return gym.make(env_id(world.task.name), world=world, base_policy=policy, split=split, max_episode_steps=steps)
    except ValueError as error:
        raise SettingsError(str(error)) from error
