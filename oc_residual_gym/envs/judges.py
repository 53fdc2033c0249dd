"""Judges: they turn the state of a world into rewards, success and truncation."""

from __future__ import annotations

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.states import Array, BoolArray, IntArray
from oc_residual_gym.tasks.base import REACHED, SUCCESS_STEPS
from oc_residual_gym.worlds.base import RealCell, Simulation


class SimulationJudge:
    """Judges simulated worlds by their true state.

    Args:
        world: worlds to judge.
        sparse: whether the reward is -1 until success, instead of progress - 1 until the success condition holds.
        max_steps: time limit in control steps, 0 for none.
    """

    def __init__(self, world: Simulation, sparse: bool, max_steps: int):
        self._world, self._sparse, self._max_steps = world, sparse, max_steps
        weights, n = world.task.weights, world.num_worlds
        self.reward = np.zeros(n)
        self.success = np.zeros(n, bool)
        """(N,) whether the success condition has held for ``SUCCESS_STEPS``."""
        self.truncated = np.zeros(n, bool)
        self.reward_terms: dict[str, Array] = {name: np.zeros(n) for name in weights}
        self._weights = np.array(list(weights.values()))
        self._held = np.zeros(n, np.int64)
        self._best = np.zeros((len(weights), n))
        self._missed = np.zeros(n, np.int64)
        self._names = [*(f"no_{name}" for name in weights), "not_held"]

    def start(self, worlds: IntArray, failed: BoolArray, steps: IntArray) -> None:
        """Start episodes in ``worlds``: clear their rewards, best milestones and held steps."""
        self.judge(worlds, failed, steps)
        self._held[worlds] = 0
        self._best[:, worlds] = 0.0
        self.reward[worlds] = 0.0
        self.truncated[worlds] = False

    def judge(self, worlds: IntArray, failed: BoolArray, steps: IntArray) -> None:
        """Judge a control step of ``worlds``.

        Args:
            worlds: (n,) indices of the worlds that were stepped.
            failed: (N,) whether the base policy failed to give a target for the next step.
            steps: (N,) control steps in the episode.
        """
        task, true = self._world.task, self._world.true
        milestones = task.progress(true)
        values = np.array(list(milestones.values()), np.float64)
        terms = np.empty_like(values)
        _judge(
            worlds,
            task.success(true),
            values,
            self._weights,
            self._world.stopped,
            failed,
            steps,
            self._max_steps,
            self._sparse,
            self._held,
            self._best,
            self.reward,
            terms,
            self.success,
            self.truncated,
            self._missed,
        )
        self.reward_terms = dict(zip(milestones, terms, strict=True))

    def failure(self, world: int) -> str:
        """Why an episode without a fault is not a success: "no_<first milestone missed>", or "not_held"."""
        return self._names[self._missed[world]]

    def end(self, world: int, reason: str) -> None:
        """Do nothing: a simulated arm does not move unless it is stepped."""


class OperatorJudge:
    """Judges a real cell by its operator's verdict; the reward is -1 per step until that is a success.

    Args:
        cell: cell to judge.
        max_steps: time limit in control steps, 0 for none.
    """

    def __init__(self, cell: RealCell, max_steps: int):
        self._cell, self._max_steps = cell, max_steps
        self.reward = np.zeros(1)
        self.success = np.zeros(1, bool)
        self.truncated = np.zeros(1, bool)
        self.reward_terms: dict[str, Array] = {name: np.zeros(1) for name in cell.task.weights}

    def start(self, worlds: IntArray, failed: BoolArray, steps: IntArray) -> None:
        """As :meth:`SimulationJudge.start`; an earlier verdict does not count."""
        for values in (self.reward, self.success, self.truncated):
            values[worlds] = 0

    def judge(self, worlds: IntArray, failed: BoolArray, steps: IntArray) -> None:
        """As :meth:`SimulationJudge.judge`."""
        for world in worlds:
            verdict = self._cell.verdict(int(world))
            fault = self._cell.stopped[world] or failed[world]
            late = 0 < self._max_steps <= steps[world]
            self.success[world] = verdict is True and not fault
            self.truncated[world] = verdict is False or fault or late
            self.reward[world] = 0.0 if self.success[world] else -1.0

    def failure(self, world: int) -> str:
        """Always "not_done": only the operator knows what was missing."""
        return "not_done"

    def end(self, world: int, reason: str) -> None:
        """Stop the arm, because the episode ended for ``reason``."""
        self._cell.stop(world, reason)


Judge = SimulationJudge | OperatorJudge


@njit(
    "void(int64[:],boolean[:],float64[:,:],float64[:],boolean[:],boolean[:],int64[:],int64,boolean,int64[:],float64[:,:],"
    "float64[:],float64[:,:],boolean[:],boolean[:],int64[:])"
)
def _judge(
    worlds: IntArray,
    done_now: BoolArray,
    milestones: Array,
    weights: Array,
    stopped: BoolArray,
    base_failed: BoolArray,
    steps: IntArray,
    max_steps: int,
    sparse: bool,
    held: IntArray,
    best: Array,
    reward: Array,
    terms: Array,
    success: BoolArray,
    truncated: BoolArray,
    missed: IntArray,
) -> None:
    """Judge a control step of ``worlds``.

    Args:
        worlds: (n,) indices of the worlds that were stepped.
        done_now: (N,) whether the success condition holds.
        milestones: (T, N) in [0, 1].
        weights: (T,) shares of the milestones in the dense reward.
        stopped: (N,) whether the world cannot continue.
        base_failed: (N,) whether the base policy failed to give a target for the next step.
        steps: (N,) control steps in the episode.
        max_steps: time limit in control steps, 0 for none.
        sparse: whether the reward is -1 until success, instead of progress - 1 until the success condition holds.
        held: (N,) control steps for which the condition has held without a break; updated.
        best: (T, N) best value of each milestone in the episode; updated.
        reward, success, truncated: (N,) written.
        terms: (T, N) weighted milestones, written for all worlds.
        missed: (N,) written: the first milestone whose best value is below ``REACHED``, T if there is none.
    """
    for n in range(len(done_now)):
        for t in range(len(weights)):
            terms[t, n] = weights[t] * milestones[t, n]
    for n in worlds:
        done = done_now[n] and not stopped[n]
        held[n] = held[n] + 1 if done else 0
        success[n] = held[n] >= SUCCESS_STEPS
        progress = 0.0
        for t in range(len(weights)):
            best[t, n] = max(best[t, n], milestones[t, n])
            progress += terms[t, n]
        if sparse:
            reward[n] = 0.0 if success[n] else -1.0
        else:
            reward[n] = 0.0 if done else progress - 1.0
        # As with Gymnasium's TimeLimit, success in the last step is both terminated and truncated.
        late = max_steps > 0 and steps[n] >= max_steps
        truncated[n] = late or stopped[n] or (base_failed[n] and not success[n])
        missed[n] = 0
        while missed[n] < len(weights) and best[missed[n], n] >= REACHED:
            missed[n] += 1
