"""Base policies by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from gymnasium import logger

from oc_residual_gym.policies.base import BasePolicy, CallablePolicy, HoldPolicy
from oc_residual_gym.policies.expert import ExpertPolicy, OffsetExpertPolicy
from oc_residual_gym.policies.gr00t import gr00t_policy
from oc_residual_gym.policies.onnx_policy import OnnxBasePolicy
from oc_residual_gym.policies.openpi import openpi_policy
from oc_residual_gym.policies.versions import NEWEST, base_file
from oc_residual_gym.tasks import SHIPPED_TASKS
from oc_residual_gym.tasks.base import Task

DEFAULT_BASE = "bc"
"""The base policy of the tasks that come with this package, where none is given."""
BASE_POLICIES = (
    "bc",
    "vla",
    *NEWEST.values(),
    "hold",
    "expert",
    "expert-offset",
    "FILE.onnx",
    "openpi://HOST:PORT",
    "gr00t://HOST:PORT",
    "a callable",
    "a BasePolicy",
)


def default_base(task: str) -> str:
    """The base policy of the task named ``task`` where none is given: "hold" as long as none was trained for it, which
    a warning says once."""
    if task in SHIPPED_TASKS:
        return DEFAULT_BASE
    _say_that_it_holds(task)
    return "hold"


def exists_for(base: str, task: str) -> bool:
    """Is there a base policy ``base`` for the task named ``task``? Trained ones that come with this package are for its
    tasks only; any other one may be for any task, until it acts."""
    return task in SHIPPED_TASKS or base not in (*NEWEST, *NEWEST.values())


@cache
def _say_that_it_holds(task: str) -> None:
    logger.warn(
        f'There is no base policy for {task} yet, so "hold" stands in: the residual alone moves the robot. '
        "Give base_policy to choose another one."
    )


def load_base_policy(policy: Any, task: Task) -> BasePolicy:
    """The base policy named ``policy`` for ``task``: a shipped one ("bc", "vla", or with a version), "hold", "expert",
    "expert-offset", an ``.onnx`` file, a server (``openpi://host:port``, ``gr00t://host:port``), a callable, a
    policy, or ``None`` for the task's default.

    Raises:
        ValueError: there is no such policy.
    """
    if policy is None:
        policy = default_base(task.name)
    if isinstance(policy, str) and policy in (*NEWEST, *NEWEST.values()):
        return OnnxBasePolicy(base_file(policy, task.name), NEWEST.get(policy, policy))
    if policy == "hold":
        return HoldPolicy()
    if policy == "expert":
        return ExpertPolicy(task)
    if policy == "expert-offset":
        return OffsetExpertPolicy(task)
    if isinstance(policy, str) and policy.startswith("openpi://"):
        return openpi_policy(policy, task.instruction)
    if isinstance(policy, str) and policy.startswith("gr00t://"):
        return gr00t_policy(policy, task.instruction)
    if isinstance(policy, (str, Path)) and str(policy).endswith(".onnx"):
        return OnnxBasePolicy(policy)
    if hasattr(policy, "predict") and hasattr(policy, "horizon"):
        return policy
    if callable(policy):
        return CallablePolicy(policy)
    raise ValueError(f"unknown base policy {policy!r}: choose one of {', '.join(BASE_POLICIES)}")
