"""Gymnasium ids of the tasks. Importing this costs next to nothing: entry points are strings."""

from gymnasium.envs.registration import register

MAX_EPISODE_STEPS = {
    "Lift": 300,
    "PickPlace": 500,
    "Stack": 500,
    "CloseDrawer": 500,
    "StandCup": 500,
    "PegInsert": 500,
}
"""Task to control steps (20 a second). A new task is one more line here and its file in ``tasks/``."""


def env_id(task: str) -> str:
    """Gymnasium id of a task."""
    return f"OCResidual-{task}-v0"


def register_envs() -> None:
    """Register every task, single and vectorised."""
    for task, steps in MAX_EPISODE_STEPS.items():
        register(
            id=env_id(task),
            entry_point="oc_residual_gym.envs.residual_env:ResidualEnv",
            vector_entry_point="oc_residual_gym.envs.vector_env:ResidualVectorEnv",
            kwargs={"task": task},
            max_episode_steps=steps,
        )
