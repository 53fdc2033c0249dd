"""Settings of an evaluation, and the identity that its results depend on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oc_residual_gym.envs.episodes import SPLITS
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.files import Record
from oc_residual_gym.identity import content_hash, name_among, name_of
from oc_residual_gym.perception.errors import MODELS, PoseErrorModel, error_model_of
from oc_residual_gym.policies import default_base, exists_for, load_base_policy
from oc_residual_gym.policies.base import BasePolicy
from oc_residual_gym.registration import task_name
from oc_residual_gym.residuals import ResidualPolicy, load_residual
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.index import INDEX
from oc_residual_gym.worlds.domains import DOMAINS, Domain, domain_of

Row = tuple[str, int]
"""Task and seed."""


@dataclass(frozen=True)
class EvaluationSettings:
    """What to evaluate. Policies, domain and pose errors can be given by name or as objects.

    Raises:
        SettingsError: a name does not exist; the message lists those that do.
    """

    tasks: tuple[str, ...]
    """Task names. "module:Class" strings, classes and instances are accepted too, and are registered."""
    base: Any = None
    """Base policy, see :func:`oc_residual_gym.policies.load_base_policy`; by default the tasks' own."""
    residual: Any = "zero"
    """Residual policy, see :func:`oc_residual_gym.residuals.load_residual`."""
    domain: str | Domain = "nominal"
    errors: str | PoseErrorModel = "paper"
    split: str = "val"
    episodes: int = 50
    """Episodes per task: seeds 0 to ``episodes`` - 1 of the split."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(task_name(task) for task in self.tasks))
        if not self.tasks:
            raise SettingsError("give at least one task to evaluate")
        if self.base is None:
            defaults = {task: default_base(task) for task in self.tasks}
            if len(set(defaults.values())) > 1:
                listed = ", ".join(f"{base} of {task}" for task, base in defaults.items())
                raise SettingsError(f"these tasks have different default base policies ({listed}): give one")
            object.__setattr__(self, "base", defaults[self.tasks[0]])
        domain_of(self.domain)
        error_model_of(self.errors)
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
        """All (task, seed) rows, in the order in which they run."""
        return [(task, seed) for task in self.tasks for seed in range(self.episodes)]

    @property
    def names(self) -> dict[str, str]:
        """Names of policies, domain, pose errors and split, as results record them.

        Raises:
            SettingsError: an object's content cannot be hashed.
        """
        return {
            "base": name_of(self.base),
            "residual": name_of(self.residual),
            "domain": name_among("domain", self.domain, DOMAINS),
            "errors": name_among("errors", self.errors, MODELS),
            "split": self.split,
        }

    @property
    def hashes(self) -> Record:
        """SHA-256 hashes that the results depend on: "base" and "residual" by task, and "simulation".

        A policy's hash is that of its file or object; ``None`` if its code is part of the simulation.

        Raises:
            SettingsError: an object's content cannot be hashed.
        """

        def hash_of(given: Any, loaded: BasePolicy | ResidualPolicy) -> str | None:
            return loaded.hash if isinstance(given, (str, Path)) else content_hash(given)

        return {
            "base": {task: hash_of(self.base, load_base_policy(self.base, TASKS[task])) for task in self.tasks},
            "residual": {
                task: hash_of(self.residual, load_residual(self.residual, task, self.base)) for task in self.tasks
            },
            "simulation": provenance.simulation_hash(),
        }

    @property
    def identity(self) -> Record:
        """Everything that the results depend on: evaluations with equal identities give equal results."""
        outside = self.outside
        return {
            "tasks": self.tasks,
            **self.names,
            "episodes": self.episodes,
            "hashes": self.hashes,
            "versions": provenance.versions(),
            **({"outside": outside} if outside else {}),
        }

    @property
    def outside(self) -> Record:
        """Tasks that do not come with this package, by name: "source", from which a worker creates the task, and
        hashes of its "file" and of its "content", which is its state and the code of its classes."""
        outside = {task: INDEX[task] for task in self.tasks if not INDEX[task].shipped}
        return {
            task: {
                "source": entry.source,
                "file": provenance.source_hash(type(TASKS[task])),
                "content": content_hash(TASKS[task]),
            }
            for task, entry in outside.items()
        }


def resolve_tasks(name: str, base: str | None = None) -> tuple[str, ...]:
    """Names of the tasks that ``name`` stands for; "all" stands for every task that the base policy ``base`` supports.

    Tasks that "all" leaves out are listed on stderr.

    Raises:
        SettingsError: there is no such task.
    """
    if name != "all":
        return (task_name(name),)
    found = tuple(task for task in TASKS if base is None or exists_for(base, task))
    if left_out := [task for task in TASKS if task not in found]:
        print(f"left out, as base policy {base!r} was not trained for them: {', '.join(left_out)}", file=sys.stderr)
    return found
