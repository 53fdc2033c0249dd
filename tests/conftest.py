"""Shared by all tests."""

import pytest

from oc_residual_gym.registration import env_id
from oc_residual_gym.tasks import SHIPPED_TASKS




def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that takes a ``task`` or an ``id`` runs for each registered task."""
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", SHIPPED_TASKS)
    if "registered_id" in metafunc.fixturenames:
        metafunc.parametrize("registered_id", [env_id(name) for name in SHIPPED_TASKS])
