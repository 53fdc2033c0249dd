"""Residual policies that follow a task's scripted expert and learn nothing. Trained policies are compared with them.

``oracle`` plans from the true state: it shows what the range of corrections allows. ``planner`` plans from what a
policy sees, on a robot too: learning is worth what it adds to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oc_residual_gym.envs.actions import residual_between
from oc_residual_gym.envs.views import snapshot
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.policies.expert import follow
from oc_residual_gym.residuals.sight import Sight
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks.base import Snapshot, Task, Waypoint

if TYPE_CHECKING:
    from oc_residual_gym.envs.core import ResidualWorlds

PLAN_STEPS = 24
"""Control steps in a plan: more than a base policy's chunk of 16 with the inference pause before it."""


class ScriptedResidual:
    """Corrects the base policy towards a plan of the task's expert, as far as the range of corrections allows.

    It plans anew whenever the base policy starts a chunk, and when its plan has run out.

    Args:
        name: "oracle" plans from the true state, "planner" from what a policy sees.
    """

    hash: str | None = None

    def __init__(self, name: str):
        self.name = name
        self._sight: Sight | None = None
        self._plans = np.zeros((0, PLAN_STEPS, 8))
        self._ages = self._steps = np.zeros(0, np.int64)
        self._blind = np.zeros(0, bool)

    def reset(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """Plan in ``worlds``, where an episode begins.

        Raises:
            SettingsError: the expert needs something that a policy does not see, and the task has no plan without it.
            ValueError: the oracle runs on a real robot, which has no true state.
        """
        if len(self._plans) != core.num_worlds:
            self._sight = None if self.name == "oracle" else Sight(core.num_worlds)
            self._plans = np.zeros((core.num_worlds, PLAN_STEPS, 8))
            self._ages, self._steps = np.zeros((2, core.num_worlds), np.int64)
            self._blind = np.zeros(core.num_worlds, bool)
        if self._sight is not None:
            self._sight.start(worlds)
        self._look(core, worlds)
        self._plan(core, worlds)

    def advance(self, core: ResidualWorlds) -> None:
        """Notice that worlds have been stepped: go on in their plans, or plan anew."""
        # Worlds that were not stepped since the last call keep their place in the plan.
        moved = np.flatnonzero(core.steps != self._steps)
        self._ages[moved] += 1
        self._look(core, moved)
        starts = core.chunk_starts | (self._ages >= PLAN_STEPS) | self._blind
        self._plan(core, moved[starts[moved]])

    def targets(self, core: ResidualWorlds) -> Array:
        """(N, 8) planned targets of the next step; the base policy's where an object has not been seen yet."""
        planned = self._plans[np.arange(len(self._ages)), self._ages]
        return np.where(self._blind[:, None], core.base_target, planned)

    def act(self, core: ResidualWorlds) -> Array:
        self.advance(core)
        return residual_between(core.base_target, self.targets(core), core.scales)

    def _look(self, core: ResidualWorlds, worlds: IntArray) -> None:
        self._steps[worlds] = core.steps[worlds]
        if self._sight is not None:
            self._sight.update(core, worlds)

    def _plan(self, core: ResidualWorlds, worlds: IntArray) -> None:
        for world in worlds.tolist():
            state = self._state(core, world)
            self._blind[world] = state is None
            self._ages[world] = 0
            if state is not None:
                self._plans[world] = follow(state.target, self._legs(core.task, state), PLAN_STEPS)

    def _legs(self, task: Task, state: Snapshot) -> list[Waypoint]:
        if self._sight is None:
            return task.expert(state)
        try:
            return task.plan(state)
        except KeyError as missing:
            raise SettingsError(
                f"the planner cannot act in {task.name}: its expert reads {missing}, which a policy does not see; give "
                "the task a method plan that does without or infers it"
            ) from missing

    def _state(self, core: ResidualWorlds, world: int) -> Snapshot | None:
        if self._sight is None:
            return snapshot(core.simulation, world, core.latch, core.executed_target)
        return self._sight.state(core, world)
