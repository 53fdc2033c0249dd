"""pytest plugin that adds the option ``--task`` to ``python -m pytest --pyargs oc_residual_gym.testing`` only.

pytest parses its options before it reads the conftest.py of a ``--pyargs`` package. A plugin can add an option in time.
"""

from __future__ import annotations

import pytest


def pytest_load_initial_conftests(parser: pytest.Parser, args: list[str]) -> None:
    if any(arg.startswith(__package__) for arg in args):
        text = 'task to test: a name or "mypackage.module:MyTask"; repeat the option for several tasks'
        parser.addoption("--task", action="append", metavar="TASK", dest="oc_residual_tasks", help=text)


def pytest_configure(config: pytest.Config) -> None:
    tasks = config.getoption("oc_residual_tasks", None)
    if tasks:
        from oc_residual_gym.errors import SettingsError
        from oc_residual_gym.registration import task_name

        try:
            config.option.oc_residual_tasks = [task_name(task) for task in tasks]
        except SettingsError as error:
            raise pytest.UsageError(str(error)) from error
