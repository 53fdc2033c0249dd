"""Which tasks the tests run for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from oc_residual_gym.registration import env_id, task_name


def parametrize_tasks(metafunc: pytest.Metafunc, tasks: Sequence[Any]) -> None:
    """Run every test that takes a ``task`` (its name) or a ``registered_id`` (its Gymnasium id) for each of ``tasks``,
    which are registered where they are not names.

    Raises:
        SettingsError: there is no such task; the message lists those there are.
    """
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", [task_name(task) for task in tasks])
    if "registered_id" in metafunc.fixturenames:
        metafunc.parametrize("registered_id", [env_id(task_name(task)) for task in tasks])
