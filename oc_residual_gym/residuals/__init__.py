"""Residual policies by name: zero (the base policy alone), the planner, the oracle, and trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from oc_residual_gym.errors import one_of
from oc_residual_gym.policies import DEFAULT_BASE, default_base
from oc_residual_gym.policies.versions import NEWEST_RESIDUALS, residual_file, residual_folder
from oc_residual_gym.residuals.onnx import OnnxResidual
from oc_residual_gym.residuals.scripted import ScriptedResidual
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks import TASKS

if TYPE_CHECKING:
    from oc_residual_gym.envs.core import ResidualWorlds

UNTRAINED = ("zero", "planner", "oracle")
"""Names of the residual policies that learn nothing. They have no files."""
TRAINED = (*NEWEST_RESIDUALS, *NEWEST_RESIDUALS.values())
"""Names of the shipped residual policies. Each has one file per task and base policy."""
RESIDUALS = (
    *UNTRAINED,
    *TRAINED,
    "FILE.onnx",
    "FOLDER with a TASK.onnx for each task",
    "a ResidualPolicy",
)


class ResidualPolicy(Protocol):
    """Chooses residual actions for N worlds."""

    name: str
    hash: str | None

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """Start a new episode in ``worlds``."""

    def act(self, core: ResidualWorlds) -> Array:
        """Actions (N, 7) for the next step."""


class ZeroResidual:
    """Always zero: the base policy acts alone."""

    name = "zero"
    hash: str | None = None

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """Do nothing: it has no state."""

    def act(self, core: ResidualWorlds) -> Array:
        return np.zeros((core.num_worlds, 7))


class FileResidual:
    """A trained residual policy from an ONNX file."""

    def __init__(self, policy: OnnxResidual):
        self._policy = policy
        self.name = policy.name
        self.hash: str | None = policy.hash
        self._num_worlds = 0

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """Forget earlier episodes. Raises ``ValueError`` if the file was made for another observation."""
        self._policy.check([f.name for f in core.observation_layout], core.observation.shape[1])
        self._policy.reset(worlds if core.num_worlds == self._num_worlds else None)
        self._num_worlds = core.num_worlds

    def act(self, core: ResidualWorlds) -> Array:
        return self._policy(core.observation).astype(np.float64)


def load_residual(residual: str | Path | ResidualPolicy, task: str, base: Any) -> ResidualPolicy:
    """Load the residual policy ``residual`` for ``task`` on the base policy ``base``.

    Args:
        residual: "zero", "planner", "oracle", "trained" (the newest shipped version), a name with a version such as
            "trained-v0", an .onnx file, a folder with one ``<Task>.onnx`` per task, or an object with the methods
            ``reset`` and ``act`` of :class:`ResidualPolicy`, which is returned unchanged.
        task: name of the task.
        base: base policy that a shipped residual must have been trained on; ``None`` for the task's default.

    Raises:
        ValueError: there is no such policy; the message lists the choices.
    """
    if not isinstance(residual, (str, Path)):
        if callable(getattr(residual, "reset", None)) and callable(getattr(residual, "act", None)):
            return residual
        raise ValueError(f"residual {residual!r} has no methods reset and act: see ResidualPolicy")
    name = str(residual)
    if name == "zero":
        return ZeroResidual()
    if name in UNTRAINED:
        return ScriptedResidual(name)
    if name in TRAINED:
        return FileResidual(_shipped(name, task, base))
    if name.endswith(".onnx"):
        return FileResidual(OnnxResidual(name))
    folder = Path(name)
    if not name or not folder.is_dir():
        raise ValueError(f"unknown residual {name!r}: choose one of {', '.join(RESIDUALS)}")
    if not (folder / f"{task}.onnx").is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*.onnx")))
        raise ValueError(f"residual folder {name} has no {task}.onnx; the policies in it: {there or 'none'}")
    return FileResidual(OnnxResidual(folder / f"{task}.onnx"))


def tasks_with_residual(name: str, base: str | None) -> tuple[str, ...]:
    """Tasks that have a residual ``name`` on ``base``. For a single file all tasks: it is only checked when it acts."""
    folder = residual_folder(name, base or DEFAULT_BASE) if name in TRAINED else Path(name)
    if name in TRAINED or folder.is_dir():
        return tuple(task for task in TASKS if (folder / f"{task}.onnx").is_file())
    return tuple(TASKS)


def residual_policy(task: str, base: str | None = None) -> OnnxResidual:
    """Load the newest trained residual policy that ships with the package. Call it with a flat observation.

    Args:
        task: name of a task, such as "PegInsert".
        base: the base policy it corrects (the environment's ``base_policy``); by default the task's own.

    Raises:
        ValueError: there is none for this task and base policy; the message lists the available ones.
    """
    return _shipped("trained", one_of("task", task, TASKS), base)


def _shipped(name: str, task: str, base: str | None) -> OnnxResidual:
    base = default_base(task) if base is None else base
    return OnnxResidual(residual_file(name, task, base), f"{NEWEST_RESIDUALS.get(name, name)} for {task} on {base}")
