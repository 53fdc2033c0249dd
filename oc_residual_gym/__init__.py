"""Residual RL on frozen vision-language-action policies: six FR3 tasks as Gymnasium environments.

Importing this package registers the environments. It takes milliseconds, because the public names load at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from oc_residual_gym.registration import register_envs, register_task

if TYPE_CHECKING:
    from oc_residual_gym.envs.options import EnvOptions
    from oc_residual_gym.envs.residual_env import ResidualEnv
    from oc_residual_gym.envs.sb3 import ResidualVecEnv
    from oc_residual_gym.envs.vector_env import ResidualVectorEnv
    from oc_residual_gym.errors import BasePolicyError, SettingsError
    from oc_residual_gym.evaluation.evaluator import evaluate
    from oc_residual_gym.evaluation.settings import EvaluationSettings
    from oc_residual_gym.perception.errors import PoseErrorModel
    from oc_residual_gym.policies import load_base_policy
    from oc_residual_gym.policies.base import BasePolicy
    from oc_residual_gym.residuals import residual_policy
    from oc_residual_gym.tasks import TASKS
    from oc_residual_gym.tasks.base import Task
    from oc_residual_gym.worlds.domains import Domain

__version__ = "0.1.0"

_HOMES = {
    "BasePolicy": "policies.base",
    "BasePolicyError": "errors",
    "Domain": "worlds.domains",
    "EnvOptions": "envs.options",
    "EvaluationSettings": "evaluation.settings",
    "PoseErrorModel": "perception.errors",
    "ResidualEnv": "envs.residual_env",
    "ResidualVecEnv": "envs.sb3",
    "ResidualVectorEnv": "envs.vector_env",
    "SettingsError": "errors",
    "TASKS": "tasks",
    "Task": "tasks.base",
    "evaluate": "evaluation.evaluator",
    "load_base_policy": "policies",
    "residual_policy": "residuals",
}
"""Maps each public name to the module that defines it."""

__all__ = [
    "TASKS",
    "BasePolicy",
    "BasePolicyError",
    "Domain",
    "EnvOptions",
    "EvaluationSettings",
    "PoseErrorModel",
    "ResidualEnv",
    "ResidualVecEnv",
    "ResidualVectorEnv",
    "SettingsError",
    "Task",
    "evaluate",
    "load_base_policy",
    "register_task",
    "residual_policy",
]

register_envs()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: public names are {', '.join(__all__)}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
