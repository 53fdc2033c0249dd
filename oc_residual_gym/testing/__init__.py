"""Tests that every task must pass, in this package or in yours. They need pytest:

    python -m pytest --pyargs oc_residual_gym.testing --task mypackage.module:MyTask

Repeat ``--task`` to test several tasks; without it, the tests run for the tasks of this package. To run them as part of
your own tests::

    # conftest.py
    from oc_residual_gym.testing.tasks import parametrize_tasks

    def pytest_generate_tests(metafunc):
        parametrize_tasks(metafunc, ["mypackage.module:MyTask"])

    # test_my_task.py
    from oc_residual_gym.testing.contract import *

The fixtures of :mod:`oc_residual_gym.testing.stages` put a task into any situation.
"""
