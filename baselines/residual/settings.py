"""Settings of residual training: one TOML file per algorithm, with overrides for tasks and base policies."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import BaselineError
from oc_residual_gym.errors import one_of
from oc_residual_gym.policies.versions import NEWEST
from oc_residual_gym.tasks import TASKS

FOLDER = Path(__file__).parent / "settings"


@dataclass(frozen=True)
class Settings:
    """Settings of one training."""

    algorithm: str
    """Name of the algorithm, one of ``ALGORITHMS``."""
    steps: int
    """Number of environment steps, summed over all worlds."""
    worlds: int
    conditions: tuple[tuple[str, str], ...]
    """Domain and pose error model; each condition gets an equal share of the worlds."""
    action: str
    """What an action is: "correction" of the base policy's target; or "target", where the executed target goes next,
    see :mod:`baselines.residual.targets`."""
    bound: tuple[float, ...]
    """(7,) largest residual action of the policy: x, y, z, the three rotations and the gripper. With "target", the
    whole range is used, and the penalty refers to this bound."""
    penalty: float
    """Reward subtracted per step for a residual action at the bound in every dimension."""
    start: dict[str, float]
    """How the exploration begins: ``log_std`` or ``noise``, for actions in [-1, 1]; and ``critic_updates``, the number
    of first updates in which only the critics learn. With a teacher they come after the imitation."""
    teacher: dict[str, Any]
    """How to learn from a teacher: see :class:`~baselines.residual.algorithms.teaching.Teaching`."""
    model: dict[str, Any]
    """Arguments of the Stable-Baselines3 class; ``learning_rate`` holds the rates of the first and the last update."""


def load_settings(algorithm: str, task: str, base: str, teacher: str = "none") -> Settings:
    """Load the settings of ``algorithm`` for ``task`` on ``base``, with or without a teacher.

    A file's tables hold for everything. The tables under ``taught`` override them where there is a teacher, then those
    under ``task.TASK``, then those under ``task.TASK.BASE`` and ``task.TASK.taught``.

    Raises:
        BaselineError: the file is invalid.
    """
    content = tomllib.loads((FOLDER / f"{algorithm}.toml").read_text(encoding="utf-8"))
    by_task = content.pop("task", {})
    for name in by_task:
        one_of(f"task in {algorithm}.toml", name, TASKS, BaselineError)
    versions = {version: name for name, version in NEWEST.items()}
    for_task = by_task.get(task, {})
    for_base = {name: for_task.pop(name, {}) for name in NEWEST}.get(versions.get(base, base), {})
    taught, taught_task = content.pop("taught", {}), for_task.pop("taught", {})
    if teacher == "none":
        taught = taught_task = {}
    for overrides in (taught, for_task, for_base, taught_task):
        _check(content, overrides, f"{algorithm}.toml, {task}")
        content = _merged(content, overrides)
    training = content["training"]
    if training["worlds"] % len(training["conditions"]):
        raise BaselineError(
            f"{algorithm}.toml: {training['worlds']} worlds cannot be shared equally by {training['conditions']}"
        )
    return Settings(
        algorithm,
        int(training["steps"]),
        int(training["worlds"]),
        tuple((domain, errors) for domain, errors in training["conditions"]),
        one_of(f"training.action in {algorithm}.toml", training["action"], ("correction", "target"), BaselineError),
        tuple(training["bound"]),
        float(training["penalty"]),
        content["start"],
        content.get("teacher", {}),
        content["model"],
    )


def _merged(settings: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Merge ``overrides`` into ``settings``, table by table."""
    return {
        key: _merged(value, overrides.get(key, {})) if isinstance(value, dict) else overrides.get(key, value)
        for key, value in settings.items()
    }


def _check(settings: dict[str, Any], overrides: dict[str, Any], where: str) -> None:
    """Raise ``BaselineError`` if ``overrides`` has a key that ``settings`` lacks."""
    for key, value in overrides.items():
        one_of(f"setting in {where}", key, settings, BaselineError)
        if isinstance(value, dict) != isinstance(settings[key], dict):
            raise BaselineError(f"{where}: {key!r} is a table in one place and a value in the other")
        if isinstance(value, dict):
            _check(settings[key], value, f"{where}, {key}")
