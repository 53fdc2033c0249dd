"""The index: every task that can be named, as data. Importing it imports no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oc_residual_gym.tasks.base import Task


@dataclass(frozen=True)
class Entry:
    """One task of the index."""

    source: str
    """"module:Class", or "" where nothing can be imported: a class of a function's body, an instance with a state."""
    max_episode_steps: int
    """The class's; stands here too, so that registration need not import it."""
    paper: bool = False
    """Is it one of the paper's five?"""
    shipped: bool = False
    """Does it come with this package, so that base policies have been trained for it?"""
    task: Task | None = None
    """What was registered in this process; made from ``source`` when first asked for where there is none."""


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
"""Name to entry. A new task of this package is one line here and its file in ``tasks/``; those of other packages come
in by ``oc_residual_gym.register_task``."""
