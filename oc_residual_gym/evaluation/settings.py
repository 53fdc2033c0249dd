"""What an evaluation is asked for, and all that its results depend on."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from oc_residual_gym.envs.episodes import SPLITS
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.files import Record
from oc_residual_gym.perception.errors import MODELS
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.residuals import load_residual
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.domains import DOMAINS

Row = tuple[str, int]
"""Task and seed."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated.

    Raises:
        SettingsError: if something does not exist; the message lists what does.
    """

    tasks: tuple[str, ...]
    base: str = "bc"
    residual: str = "zero"
    domain: str = "nominal"
    errors: str = "paper"
    split: str = "val"
    episodes: int = 50
    """Episodes a task: seeds 0 to ``episodes`` - 1 of the split."""

    def __post_init__(self) -> None:
        for task in self.tasks:
            one_of("task", task, TASKS)
        one_of("domain", self.domain, DOMAINS)
        one_of("pose error model", self.errors, MODELS)
        one_of("split", self.split, SPLITS)
        limit = SPLITS[self.split]
        if self.episodes < 1 or (limit is not None and self.episodes > limit):
            upper = "at least 1" if limit is None else f"1 to {limit}, the seeds that split {self.split!r} has"
            raise SettingsError(f"episodes is {self.episodes}; it must be {upper}")
        try:
            for task in self.tasks:
                load_base_policy(self.base, TASKS[task])
                load_residual(self.residual, task, self.base)
        except ValueError as error:
            raise SettingsError(str(error)) from error

    @property
    def rows(self) -> list[Row]:
        return [(task, seed) for task in self.tasks for seed in range(self.episodes)]

    @property
    def hashes(self) -> Record:
        """SHA-256 of what the results depend on: base and residual policy by task (``None`` where there is no
        file), simulation."""
        return {
            "base": {task: load_base_policy(self.base, TASKS[task]).hash for task in self.tasks},
            "residual": {task: load_residual(self.residual, task, self.base).hash for task in self.tasks},
            "simulation": provenance.simulation_hash(),
        }

    @property
    def identity(self) -> Record:
        """All that the results depend on: two evaluations with equal identities give equal results."""
        return asdict(self) | {"hashes": self.hashes, "versions": provenance.versions()}


def resolve_tasks(name: str) -> tuple[str, ...]:
    """Names of all tasks for "all", else the one named."""
    if name == "all":
        return tuple(TASKS)
    one_of("task", name, TASKS)
    return (name,)
