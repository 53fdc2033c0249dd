"""The tasks by name. Importing this module imports no task: each one is created at first use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.tasks.index import INDEX

if TYPE_CHECKING:
    from oc_residual_gym.tasks.base import Task

SHIPPED_TASKS = tuple(name for name, entry in INDEX.items() if entry.shipped)
"""Names of the tasks that come with this package."""
PAPER_TASKS = tuple(name for name, entry in INDEX.items() if entry.paper)
"""Names of the paper's five tasks. Results report their mean."""


class _Tasks(Mapping[str, "Task"]):
    """Maps names to tasks: first the tasks of this package, then those registered in this process."""

    def __getitem__(self, name: str) -> Task:
        entry = INDEX[name]
        return entry.task or _instance(import_task(entry.source))

    def __contains__(self, name: object) -> bool:
        return name in INDEX

    def __iter__(self) -> Iterator[str]:
        return iter(INDEX)

    def __len__(self) -> int:
        return len(INDEX)


TASKS = _Tasks()
"""All known tasks by name."""


def resolve_task(task: Any) -> Task:
    """Return the task for a registered name, "module:Class", a class or an instance.

    Each class has one instance per process.

    Raises:
        SettingsError: there is no such task; the message lists the known ones.
    """
    from oc_residual_gym.tasks.base import Task

    if isinstance(task, str):
        if task in TASKS:
            return TASKS[task]
        if ":" not in task:
            one_of("task", task, [*TASKS, "MODULE:CLASS"])
        return _instance(import_task(task))
    if isinstance(task, type) and issubclass(task, Task):
        return _instance(task)
    if isinstance(task, Task):
        return task
    raise SettingsError(f"{task!r} is not a task: give a name, 'module:Class', or a class or instance of Task")


def import_task(source: str) -> type[Task]:
    """Import the class that "module:Class" names.

    Raises:
        SettingsError: the class cannot be imported or is not a task.
    """
    from oc_residual_gym.tasks.base import Task

    module, _, name = source.partition(":")
    found: Any
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"there is no task {source!r} ({error}): install its package, or put its folder on PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise SettingsError(f"{source!r} is not a task: a task is a class that inherits Task")
    return found


@cache
def _instance(task: type[Task]) -> Task:
    try:
        return task()
    except TypeError as error:  # an abstract method is missing, or the class needs arguments
        raise SettingsError(f"the task {task.__qualname__} cannot be made without arguments: {error}") from error


def in_order(tasks: Iterable[str]) -> list[str]:
    """Sort task names in the order of the index. Names unknown to this process come last, in alphabetical order."""
    names = set(tasks)
    return [*(name for name in TASKS if name in names), *sorted(names - set(TASKS))]
