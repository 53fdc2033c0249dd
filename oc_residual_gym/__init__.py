"""Residual RL on frozen vision-language-action policies: six FR3 tasks as Gymnasium environments."""

from oc_residual_gym.registration import register_envs, register_task

__all__ = ["register_envs", "register_task"]

__version__ = "0.1.0"

register_envs()
