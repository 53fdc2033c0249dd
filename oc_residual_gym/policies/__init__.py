"""Base policies by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oc_residual_gym.policies.base import BasePolicy, CallablePolicy, HoldPolicy
from oc_residual_gym.policies.expert import ExpertPolicy, OffsetExpertPolicy
from oc_residual_gym.policies.onnx_policy import OnnxBasePolicy
from oc_residual_gym.tasks.base import Task

BASE_POLICIES = ("hold", "expert", "expert-offset", "FILE.onnx", "a callable", "a BasePolicy")


def load_base_policy(policy: Any, task: Task) -> BasePolicy:
    """The base policy named ``policy`` for ``task``: "hold", "expert", "expert-offset", an ``.onnx`` file, a
    callable or a policy.

    Raises:
        ValueError: there is no such policy.
    """
    if policy == "hold":
        return HoldPolicy()
    if policy == "expert":
        return ExpertPolicy(task)
    if policy == "expert-offset":
        return OffsetExpertPolicy(task)
    if isinstance(policy, (str, Path)) and str(policy).endswith(".onnx"):
        return OnnxBasePolicy(policy)
    if hasattr(policy, "predict") and hasattr(policy, "horizon"):
        return policy
    if callable(policy):
        return CallablePolicy(policy)
    raise ValueError(f"unknown base policy {policy!r}: choose one of {', '.join(BASE_POLICIES)}")
