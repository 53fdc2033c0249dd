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
"""Default base policy of the tasks that ship with this package."""
OWN_BASES = (*NEWEST, *NEWEST.values(), "hold", "expert", "expert-offset")
"""Names of the base policies of this package."""
BASE_POLICIES = (
    *OWN_BASES,
    "FILE.onnx",
    "openpi://HOST:PORT",
    "gr00t://HOST:PORT",
    "a callable",
    "a BasePolicy",
)


def default_base(task: str) -> str:
    """Name of the default base policy of the task named ``task``. For a task of your own it is "hold", with a warning
    the first time."""
    if task in SHIPPED_TASKS:
        return DEFAULT_BASE
    _say_that_it_holds(task)
    return "hold"


def exists_for(base: str, task: str) -> bool:
    """Whether a base policy ``base`` exists for the task named ``task``. Shipped policies support only the shipped
    tasks; any other policy is assumed to support every task until it acts."""
    return task in SHIPPED_TASKS or base not in (*NEWEST, *NEWEST.values())


@cache
def _say_that_it_holds(task: str) -> None:
    logger.warn(
        f'There is no base policy for {task} yet, so "hold" stands in: the residual alone moves the robot. '
        "Give base_policy to choose another one."
    )


def load_base_policy(policy: Any, task: Task) -> BasePolicy:
    """Load a base policy for ``task``.

    Args:
        policy: a shipped policy ("bc" or "vla", or a version such as "bc-v0"), "hold", "expert", "expert-offset", an
            ``.onnx`` file, a server (``openpi://host:port``, ``gr00t://host:port``), a callable, a
            :class:`BasePolicy`, or ``None`` for the task's default.
        task: the task that it acts in.

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
