"""One index names the tasks: it is cheap to import, and nothing else needs to know their names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.registration import task_name
from oc_residual_gym.tasks import PAPER_TASKS, SHIPPED_TASKS, TASKS, in_order, resolve_task
from oc_residual_gym.tasks.index import INDEX
from oc_residual_gym.tasks.lift import Lift

REPOSITORY = Path(__file__).parents[1]
MAY_NAME_TASKS = {
    "oc_residual_gym/bench.py",  # compares one of ours with robosuite's own
    "leaderboard/tracks.py",  # what a track runs is its definition
}


def test_importing_the_package_and_the_index_imports_no_task():
    code = """
import sys
import gymnasium
before = set(sys.modules)
import oc_residual_gym
from oc_residual_gym.tasks import PAPER_TASKS, TASKS
assert len(TASKS) == len(list(TASKS)) and "Lift" in TASKS and "Juggle" not in TASKS and len(PAPER_TASKS) == 5
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert "oc_residual_gym.tasks.index" in names
    assert not [name for name in names if name.split(".")[0] in ("mujoco", "numba", "scipy", "numpy")]
    assert not [name for name in names if name.startswith("oc_residual_gym.tasks.") and not name.endswith(".index")]


def test_there_is_one_instance_of_each_task():
    for name, entry in INDEX.items():
        assert TASKS[name] is TASKS[name] is resolve_task(name) is resolve_task(entry.source)
    assert TASKS["Lift"] is resolve_task(Lift)
    other = Lift()
    assert resolve_task(other) is other


def test_what_is_no_task_is_said():
    with pytest.raises(SettingsError, match=r"unknown task 'Juggle'.*PegInsert"):
        task_name("Juggle")
    with pytest.raises(SettingsError, match="is not a task"):
        resolve_task(int)
    with pytest.raises(KeyError):
        TASKS["Juggle"]


def test_names_come_in_the_order_of_the_index():
    assert in_order(["Unknown", *reversed(SHIPPED_TASKS)]) == [*SHIPPED_TASKS, "Unknown"]
    assert set(PAPER_TASKS) < set(SHIPPED_TASKS)


def test_no_other_module_names_a_task():
    """What a module has to know of a task is one of the task's own facts."""
    modules = {entry.source.partition(":")[0] for entry in INDEX.values()}
    found = []
    for package in ("oc_residual_gym", "demos_replay", "baselines", "leaderboard", "docs"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            path = file.relative_to(REPOSITORY).as_posix()
            if path.startswith("oc_residual_gym/tasks/") or path in MAY_NAME_TASKS:
                continue
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and node.value in SHIPPED_TASKS:
                    found.append(f"{path}:{node.lineno} names {node.value}")
                if isinstance(node, ast.ImportFrom) and node.module in modules:
                    found.append(f"{path}:{node.lineno} imports {node.module}")
    assert not found, "\n".join(found)
