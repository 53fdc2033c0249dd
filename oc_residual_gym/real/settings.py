"""Settings of a comparison on a robot, and the identity that must not change between its first and last trial."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

from oc_residual_gym.envs.episodes import SPLITS
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.evaluation.provenance import simulation_hash, versions
from oc_residual_gym.files import Record
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.base import BasePolicy
from oc_residual_gym.real.cell import Cell
from oc_residual_gym.residuals import ResidualPolicy, load_residual
from oc_residual_gym.tasks import TASKS

MAY_CHANGE: dict[str, tuple[str, ...]] = {"robot": ("host",), "poses": ("source", "calibration")}
"""Entries of a cell that may change within a comparison; each trial stores its calibration's id."""


@dataclass(frozen=True)
class TrialSettings:
    """What to compare, and on which cell.

    Raises:
        SettingsError: a name does not exist; the message lists those that do.
    """

    task: str
    cell: Cell
    base: str = "bc"
    residual: str = "trained"
    split: str = "test"
    starts: int = 20
    """Number of start poses: seeds 0 to ``starts`` - 1 of the split. Each gives one trial of the base policy alone and
    one with the residual."""
    rehearsal: bool = False
    """Whether the robot is simulated."""

    def __post_init__(self) -> None:
        one_of("task", self.task, TASKS)
        one_of("split", self.split, SPLITS)
        most = SPLITS[self.split]
        if self.starts < 1 or (most is not None and self.starts > most):
            raise SettingsError(f"starts is {self.starts}; it must be 1 to {most or 'any number'}")
        if self.residual == "oracle":
            raise SettingsError("the oracle reads true state, which a robot does not have: the planner runs on a robot")
        try:
            _ = self.base_policy, self.residual_policy
        except ValueError as error:
            raise SettingsError(str(error)) from error

    @cached_property
    def base_policy(self) -> BasePolicy:
        """The policy that ``base`` names, loaded once."""
        return load_base_policy(self.base, TASKS[self.task])

    @cached_property
    def residual_policy(self) -> ResidualPolicy:
        """The policy that ``residual`` names, loaded once."""
        return load_residual(self.residual, self.task, self.base)

    @cached_property
    def hashes(self) -> Record:
        """SHA-256 of the policies' files (``None`` without a file) and of the simulation's code."""
        return {
            "base": self.base_policy.hash,
            "residual": self.residual_policy.hash,
            "simulation": simulation_hash(),
        }

    @property
    def identity(self) -> Record:
        """Everything that must not change between the first and the last trial."""
        identity = asdict(self) | {"hashes": self.hashes, "versions": versions()}
        for name in ("path", "operator"):
            del identity["cell"][name]
        for part, names in MAY_CHANGE.items():
            for name in names:
                del identity["cell"][part][name]
        return identity
