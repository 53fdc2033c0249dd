"""Which tasks the tests of this folder run for; see ``plugin.py`` for the option."""

from __future__ import annotations

import pytest

from oc_residual_gym.tasks import SHIPPED_TASKS
from oc_residual_gym.testing.tasks import parametrize_tasks


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_tasks(metafunc, metafunc.config.getoption("oc_residual_tasks", None) or SHIPPED_TASKS)
