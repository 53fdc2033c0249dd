"""Shared by all tests."""

import pytest

from oc_residual_gym.registration import MAX_EPISODE_STEPS, env_id

TASK_NAMES = tuple(MAX_EPISODE_STEPS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that takes a ``task`` or an ``id`` runs for each registered task."""
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", TASK_NAMES)
    if "registered_id" in metafunc.fixturenames:
        metafunc.parametrize("registered_id", [env_id(name) for name in TASK_NAMES])
