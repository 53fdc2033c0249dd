"""Shared by all tests."""

import signal

import pytest

from oc_residual_gym.tasks import SHIPPED_TASKS
from oc_residual_gym.testing.tasks import parametrize_tasks

# A shell that runs the tests in the background lets them ignore Ctrl+C, and so would the programs that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that takes a ``task`` or a ``registered_id`` runs for each task of this package."""
    parametrize_tasks(metafunc, SHIPPED_TASKS)
