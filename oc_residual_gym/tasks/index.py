"""The index of tasks: every task with a name, as data. Importing this module imports no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oc_residual_gym.tasks.base import Task


@dataclass(frozen=True)
class Entry:
    """One task in the index."""

    source: str
    """"module:Class", or "" if the task cannot be imported: a class inside a function, or an instance with state."""
    max_episode_steps: int
    """The class's time limit in control steps, repeated here so that registration need not import the class."""
    paper: bool = False
    """Whether the task is one of the paper's five."""
    shipped: bool = False
    """Whether the task comes with this package, which has trained base policies for it."""
    task: Task | None = None
    """Task registered in this process; if ``None``, it is created from ``source`` at first use."""


def _shipped(source: str, max_episode_steps: int, paper: bool = True) -> Entry:
    return Entry(f"oc_residual_gym.tasks.{source}", max_episode_steps, paper, shipped=True)


INDEX = {
    "Lift": _shipped("lift:Lift", 300),
    "PickPlace": _shipped("pick_place:PickPlace", 500),
    "Stack": _shipped("stack:Stack", 500),
    "CloseDrawer": _shipped("close_drawer:CloseDrawer", 500),
    "StandCup": _shipped("stand_cup:StandCup", 500),
    "PegInsert": _shipped("peg_insert:PegInsert", 500, paper=False),
}
"""Maps task names to entries. A new task of this package needs one line here and its file in ``tasks/``. Other
packages call ``oc_residual_gym.register_task``."""
