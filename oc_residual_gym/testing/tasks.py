"""Parametrises the tests by task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from oc_residual_gym.registration import env_id, task_name


def parametrize_tasks(metafunc: pytest.Metafunc, tasks: Sequence[Any]) -> None:
    """Run every test with an argument ``task`` (a name) or ``registered_id`` (a Gymnasium id) for each of ``tasks``.

    Tasks that are not given by name are registered.

    Raises:
        SettingsError: there is no such task; the message lists the known ones.
    """
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", [task_name(task) for task in tasks])
    if "registered_id" in metafunc.fixturenames:
        metafunc.parametrize("registered_id", [env_id(task_name(task)) for task in tasks])
