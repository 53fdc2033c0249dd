"""The tests that every task must pass, of this package or of yours (they need pytest):

    python -m pytest --pyargs oc_residual_gym.testing --task mypackage.module:MyTask

They take ``--task`` as often as you like, and the tasks of this package without it. Your own tests can take them over::

    # conftest.py
    from oc_residual_gym.testing.tasks import parametrize_tasks

    def pytest_generate_tests(metafunc):
        parametrize_tasks(metafunc, ["mypackage.module:MyTask"])

    # test_my_task.py
    from oc_residual_gym.testing.contract import *

and put a task into any situation with the fixtures of :mod:`oc_residual_gym.testing.stages`.
"""
