"""The tasks by name. A new task is one new file here plus one line in this table."""

from oc_residual_gym.tasks.base import Task
from oc_residual_gym.tasks.close_drawer import CloseDrawer
from oc_residual_gym.tasks.lift import Lift
from oc_residual_gym.tasks.peg_insert import PegInsert
from oc_residual_gym.tasks.pick_place import PickPlace
from oc_residual_gym.tasks.stack import Stack
from oc_residual_gym.tasks.stand_cup import StandCup

TASKS: dict[str, Task] = {t.name: t for t in (Lift(), PickPlace(), Stack(), CloseDrawer(), StandCup(), PegInsert())}
PAPER_TASKS = ("Lift", "PickPlace", "Stack", "CloseDrawer", "StandCup")
"""The paper's five tasks, whose mean is reported."""
