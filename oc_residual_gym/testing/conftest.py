"""Selects the tasks for the tests in this folder: those of ``--task`` (see ``plugin.py``), or all of this package."""

from __future__ import annotations

import pytest

from oc_residual_gym.tasks import SHIPPED_TASKS
from oc_residual_gym.testing.tasks import parametrize_tasks


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_tasks(metafunc, metafunc.config.getoption("oc_residual_tasks", None) or SHIPPED_TASKS)
