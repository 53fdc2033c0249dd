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
class Teaching:
    """How to learn from a teacher."""

    steps: int
    """Environment steps of imitation, after which reinforcement begins."""
    drive: tuple[float, float]
    """Share of episodes in which the teacher acts: at first, and from ``drive_steps`` on; linear in between."""
    drive_steps: int
    """Environment steps until the last share."""
    learning_rate: float
    """First learning rate of the imitation; it falls to zero at its end."""
    updates: int
    """Updates per step of all worlds during imitation."""
    pull: tuple[float, float]
    """Weight of the imitation in the reinforcement: at its beginning and at its end, linear in between."""

    def drive_share(self, steps: int) -> float:
        """Share of episodes in which the teacher acts, after this number of environment steps."""
        return _between(*self.drive, steps / self.drive_steps)

    def rate(self, steps: int) -> float:
        """Learning rate of the imitation after this number of environment steps."""
        return self.learning_rate * _between(1.0, 0.0, steps / self.steps)

    def progress(self, steps: int, total: int) -> float:
        """Share of the reinforcement that is done after ``steps`` of ``total`` environment steps."""
        return min(max((steps - self.steps) / max(total - self.steps, 1), 0.0), 1.0)

    def pull_at(self, steps: int, total: int) -> float:
        """Weight of the imitation in the reinforcement, after ``steps`` of ``total`` environment steps."""
        return _between(*self.pull, self.progress(steps, total))


def _between(first: float, last: float, share: float) -> float:
    return first + (last - first) * min(max(share, 0.0), 1.0)


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
    teaching: Teaching | None
    """How to learn from a teacher; ``None`` without one."""
    model: dict[str, Any]
    """Arguments of the Stable-Baselines3 class; ``learning_rate`` holds the rates of the first and the last update."""


def load_settings(algorithm: str, task: str, base: str, teacher: str = "none", steps: int | None = None) -> Settings:
    """Load the settings of ``algorithm`` for ``task`` on ``base``, with or without a teacher.

    The file's top-level tables are the defaults. Tables under ``task.TASK`` override them, then those under
    ``task.TASK.BASE``. With a teacher, tables under ``taught`` and then ``task.TASK.taught`` override all of these.

    Args:
        algorithm, task, base: their names; ``base`` with or without a version.
        teacher: "none", or the name of a teacher.
        steps: environment steps in place of those in the file; the teacher's share stays.

    Raises:
        BaselineError: the file is invalid, or does not say how to learn from a teacher.
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
    for overrides in (for_task, for_base, taught, taught_task):
        _check(content, overrides, f"{algorithm}.toml, {task}")
        content = _merged(content, overrides)
    training = content["training"]
    if training["worlds"] % len(training["conditions"]):
        raise BaselineError(
            f"{algorithm}.toml: {training['worlds']} worlds cannot be shared equally by {training['conditions']}"
        )
    if teacher != "none" and "teacher" not in content:
        raise BaselineError(f"{algorithm} cannot learn from a teacher: {algorithm}.toml has no table [teacher]")
    steps = int(training["steps"]) if steps is None else steps
    return Settings(
        algorithm,
        steps,
        int(training["worlds"]),
        tuple((domain, errors) for domain, errors in training["conditions"]),
        one_of(f"training.action in {algorithm}.toml", training["action"], ("correction", "target"), BaselineError),
        tuple(training["bound"]),
        float(training["penalty"]),
        content["start"],
        None if teacher == "none" else _teaching(content["teacher"], steps),
        content["model"],
    )


def _teaching(table: dict[str, Any], steps: int) -> Teaching:
    """The teaching in a training of this number of steps, of which a file gives shares."""
    shares = {"steps": round(table["imitation"] * steps), "drive_steps": round(table["drive_until"] * steps)}
    return Teaching(**shares, **{key: value for key, value in table.items() if key not in ("imitation", "drive_until")})


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
