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
    errors: tuple[str, ...]
    """Pose error models; each one gets an equal share of the worlds."""
    bound: tuple[float, ...]
    """(7,) largest residual action of the policy: x, y, z, the three rotations and the gripper."""
    penalty: float
    """Reward subtracted per step for an action at the bound in every dimension."""
    start: dict[str, float]
    """Start at the base policy: ``log_std`` or ``noise`` of the exploration, as a share of the bound; and
    ``critic_updates``, the number of first updates that do not change the actor."""
    model: dict[str, Any]
    """Arguments of the Stable-Baselines3 class; ``learning_rate`` holds the rates of the first and the last update."""


def load_settings(algorithm: str, task: str, base: str) -> Settings:
    """Load the settings of ``algorithm`` for ``task`` on ``base``. Raises ``BaselineError`` if the file is invalid."""
    content = tomllib.loads((FOLDER / f"{algorithm}.toml").read_text(encoding="utf-8"))
    by_task = content.pop("task", {})
    for name in by_task:
        one_of(f"task in {algorithm}.toml", name, TASKS, BaselineError)
    for_task = by_task.get(task, {})
    versions = {version: name for name, version in NEWEST.items()}
    for_base = {name: for_task.pop(name) for name in NEWEST if name in for_task}.get(versions.get(base, base), {})
    for overrides in (for_task, for_base):
        _check(content, overrides, f"{algorithm}.toml, {task}")
        content = _merged(content, overrides)
    training = content["training"]
    if training["worlds"] % len(training["errors"]):
        raise BaselineError(
            f"{algorithm}.toml: {training['worlds']} worlds cannot be shared equally by {training['errors']}"
        )
    return Settings(
        algorithm,
        int(training["steps"]),
        int(training["worlds"]),
        tuple(training["errors"]),
        tuple(training["bound"]),
        float(training["penalty"]),
        content["start"],
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
