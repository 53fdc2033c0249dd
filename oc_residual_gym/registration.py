"""Gymnasium ids of the tasks. Cheap to import: tasks and entry points are strings until they are used."""

from __future__ import annotations

import os
import sys
from typing import Any

import gymnasium as gym

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.tasks import TASKS, import_task, resolve_task
from oc_residual_gym.tasks.index import INDEX, Entry

NEEDED = (
    "name",
    "instruction",
    "success_rule",
    "max_episode_steps",
    "specs",
    "objects",
    "contacts",
    "weights",
)
"""Attributes without which a task cannot run."""


def env_id(task: str) -> str:
    """Gymnasium id of the task named ``task``.

    >>> env_id("Lift")
    'OCResidual-Lift-v0'
    """
    return f"OCResidual-{task}-v0"


def register_envs() -> None:
    """Register every task of the index with Gymnasium, for ``gym.make`` and ``gym.make_vec``."""
    for name, entry in INDEX.items():
        _register(name, entry.max_episode_steps, name)


def register_task(task: Any) -> str:
    """Register a task of your own under its name: for ``gym.make``, the commands and ``tasks.TASKS``.

    Registering a class again (for example by running a notebook cell twice) replaces the earlier one.

    Args:
        task: a subclass of ``Task``, an instance of one, or "mypackage.module:MyTask".

    Returns:
        The Gymnasium id, ``OCResidual-<name>-v0``.

    Raises:
        SettingsError: it is not a task, lacks a required attribute, or another task has its name.
    """
    task = resolve_task(task)
    lacking = [name for name in NEEDED if not hasattr(task, name)]
    if lacking:
        raise SettingsError(f"the task {type(task).__qualname__} has no {', '.join(lacking)}")
    if not task.weights or sum(task.weights.values()) >= 1.0:
        raise SettingsError(f"the weights of the task {task.name} are {dict(task.weights)}: give some, below 1 in sum")
    name, source = task.name, _source(task)
    known = INDEX.get(name)
    if known is not None and known.shipped:
        if task is not TASKS[name]:
            raise SettingsError(f"this package has a task {name!r}: choose another name")
        return env_id(name)
    if known is not None and type(TASKS[name]).__module__ != type(task).__module__:
        raise SettingsError(f"{type(TASKS[name]).__module__} has a task {name!r}: choose another name")
    INDEX[name] = Entry(source, task.max_episode_steps, task=task)
    # A string, where possible: it can be stored as JSON and passed to other processes.
    _register(name, task.max_episode_steps, source or task)
    return env_id(name)


def task_name(task: Any) -> str:
    """Name of ``task``, as in ``TASKS``. A "module:Class" string, a class or an instance is registered first.

    Raises:
        SettingsError: there is no such task; the message lists the known ones.
    """
    resolved = resolve_task(task)
    if not isinstance(task, str) or ":" in task:
        register_task(resolved)
    return resolved.name


def look_in_current_folder() -> None:
    """Let a command import tasks from the current folder, as ``python -m`` does: a script sees only its own folder."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _source(task: Any) -> str:
    """ "module:Class", from which another process can create the same task; "" if it cannot be imported."""
    source = f"{type(task).__module__}:{type(task).__qualname__}"
    try:
        return source if import_task(source) is type(task) and not vars(task) else ""
    except SettingsError:
        return ""


def _register(name: str, max_episode_steps: int, task: Any) -> None:
    gym.registry.pop(env_id(name), None)  # registering an id twice would warn
    gym.register(
        id=env_id(name),
        entry_point="oc_residual_gym.envs.residual_env:make_env",
        vector_entry_point="oc_residual_gym.envs.vector_env:ResidualVectorEnv",
        kwargs={"task": task},
        max_episode_steps=max_episode_steps,
    )
