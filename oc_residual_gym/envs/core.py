"""The common core of the single and the vector environment: N worlds of one task with a base policy inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from oc_residual_gym.envs.actions import LATCH_STEPS, Latch, checked, compose, limit
from oc_residual_gym.envs.episodes import check_seed, episode_generators
from oc_residual_gym.envs.observation import BASE_TARGET_STEPS, Field, ObservationBuilder, Seen
from oc_residual_gym.envs.options import EnvOptions
from oc_residual_gym.envs.parts import observers_of, runner_of, world_of
from oc_residual_gym.envs.views import policy_view, simulated
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.perception.filter import PoseFilter
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.states import Array, BoolArray, IntArray
from oc_residual_gym.tasks import resolve_task
from oc_residual_gym.tasks.base import InitialState
from oc_residual_gym.worlds.base import Simulation
from oc_residual_gym.worlds.domains import domain_of
from oc_residual_gym.worlds.sim import SimWorld


class ResidualWorlds:
    """N worlds of one task. A base policy acts in each of them, and residual actions correct it.

    Args:
        task: task name, "module:Class", a subclass of ``Task`` or an instance.
        num_worlds: N.
        options: see :class:`EnvOptions`.
        keywords: single options, used when ``options`` is ``None``.

    Raises:
        SettingsError: an option has an invalid value (the message lists the valid ones), or a real cell does not
            support it.
        TypeError: an option is unknown.
    """

    def __init__(self, task: Any, num_worlds: int, options: EnvOptions | None = None, **keywords: Any):
        if num_worlds < 1:
            raise SettingsError(f"the number of worlds is {num_worlds}: give at least 1")
        self.options = options = EnvOptions.of("ResidualWorlds", keywords, options)
        self.task = resolve_task(task)
        self.num_worlds, self.split, self.scales = num_worlds, options.split, options.scales
        self.domain = domain_of(options.domain)
        self.base_policy = load_base_policy(options.base_policy, self.task)
        self.filter = PoseFilter([o.symmetry for o in self.task.objects], num_worlds)
        self.world = world_of(self.task, num_worlds, options, self.base_policy)
        self.tracker, self._judge = observers_of(self.world, options)
        self.observation_builder = ObservationBuilder(tuple(o.name for o in self.task.objects), num_worlds)
        self._runner = runner_of(self.base_policy, self.task, num_worlds, options)
        self._ahead = np.array([*BASE_TARGET_STEPS, 1_000_000])
        self._allocate()

    def _allocate(self) -> None:
        n = self.num_worlds
        self.seeds = np.zeros(n, np.int64)
        """(N,) seed of the current episode."""
        self.steps = np.zeros(n, np.int64)
        """(N,) control steps taken in the current episode."""
        self.observation = np.zeros((n, self.observation_builder.size), np.float32)
        self.failure: list[str | None] = [None] * n
        """Per world: why its episode was truncated, or ``None``."""
        self.executed_target, self.base_target = np.zeros((n, 8)), np.zeros((n, 8))
        """(N, 8) target executed in the last step, and the base policy's target for the next step."""
        self.latch = Latch(np.zeros(n, bool), np.zeros(n, np.int64))
        self._all = np.arange(n)

    @property
    def reward(self) -> Array:
        """(N,) reward of the last step."""
        return self._judge.reward

    @property
    def success(self) -> BoolArray:
        """(N,) whether the success condition has held for ``SUCCESS_STEPS``."""
        return self._judge.success

    @property
    def terminated(self) -> BoolArray:
        """(N,) whether the episode has terminated; only success terminates."""
        return self._judge.success

    @property
    def truncated(self) -> BoolArray:
        """(N,) whether the episode was truncated, by the time limit or a fault."""
        return self._judge.truncated

    @property
    def reward_terms(self) -> dict[str, Array]:
        """Milestone name to its weighted value (N,) in the last step."""
        return self._judge.reward_terms

    @property
    def base_policy_failed(self) -> BoolArray:
        """(N,) whether the base policy has failed to give targets in the current episode."""
        return self._runner.failed

    @property
    def base_policy_problem(self) -> list[str]:
        """Per world: how the base policy has failed in the current episode, or ""."""
        return self._runner.problems

    @property
    def base_policy_error(self) -> Exception | None:
        """Last exception of the base policy; ``None`` if it has raised none."""
        return self._runner.error

    @property
    def chunk_starts(self) -> BoolArray:
        """(N,) whether the next step is the first of a base policy's chunk of several targets."""
        return self._runner.starts

    @cached_property
    def simulation(self) -> Simulation:
        """The simulated worlds. Raises ``ValueError`` if the robot is real."""
        return simulated(self.world)

    @property
    def mujoco(self) -> SimWorld:
        """The MuJoCo simulation, for code that needs its model. Raises ``ValueError`` for any other world."""
        if not isinstance(self.world, SimWorld):
            raise ValueError("this needs the MuJoCo simulation, and the environment runs another world")
        return self.world

    @property
    def observation_layout(self) -> tuple[Field, ...]:
        """Name, slice, unit, frame and scale of every part of the flat observation."""
        return self.observation_builder.layout

    def reset(self, worlds: IntArray, seeds: Sequence[int], starts: Sequence[InitialState] | None = None) -> None:
        """Start episodes in ``worlds``; the other worlds are not touched.

        If the base policy fails to return a world's first targets, the first step truncates that world.

        Args:
            worlds: (n,) indices of the worlds.
            seeds: n seeds of the split.
            starts: n start states that replace those drawn from the seeds.

        Raises:
            ValueError: a seed is not in the split.
        """
        worlds = np.asarray(worlds, np.int64)
        streams = [episode_generators(self.task.name, self.split, check_seed(self.split, seed)) for seed in seeds]
        if starts is None:
            starts = [self.task.reset(initial) for initial, *_ in streams]
        physics = [self.domain.sample(generator) for _, generator, *_ in streams]
        self.world.reset(worlds, starts, physics)
        self.seeds[worlds] = seeds
        self.steps[worlds] = 0
        closed = np.array([start.gripper_closed for start in starts])
        self.latch.closed[worlds] = closed
        self.latch.steps[worlds] = LATCH_STEPS
        self.executed_target[worlds, :7] = self.world.robot.tcp_pose[worlds]
        self.executed_target[worlds, 7] = ~closed
        self.tracker.reset(worlds, [perception for _, _, perception, _ in streams], physics)
        self.filter.reset(worlds)
        for world in worlds:
            self.failure[world] = None
        self._perceive(worlds)
        # If the base policy fails at once, the arm must hold still, not continue the last episode's chunk.
        pauses, policy_generators = [p.inference_pause for p in physics], [policy for *_, policy in streams]
        self._runner.start(worlds, self.executed_target[worlds], pauses, policy_generators)
        self._plan(worlds)
        self._judge.start(worlds, self.base_policy_failed, self.steps)
        self._end(worlds[self.base_policy_failed[worlds]])
        self._observe()

    def step(self, actions: Array, worlds: IntArray | None = None) -> None:
        """Advance ``worlds`` (default: all) by one control step; ``actions`` (N, 7) of other worlds are ignored.

        Raises:
            ValueError: ``actions`` have the wrong shape or a non-finite entry; no world has moved.
        """
        actions = checked(actions, self.num_worlds)
        if worlds is not None and len(worlds) == 0:
            return
        target = compose(self.base_target, np.minimum(np.maximum(actions, -1.0), 1.0), self.scales)
        executed, latch = limit(target, self.executed_target, self.world.robot.tcp_pose, self.latch, self.world.speed)
        rows: slice | IntArray
        if worlds is None:
            rows, self.executed_target, self.latch = slice(None), executed, latch
        else:
            rows = worlds
            self.executed_target[rows] = executed[rows]
            self.latch.closed[rows], self.latch.steps[rows] = latch.closed[rows], latch.steps[rows]
        self.world.step(self.executed_target, worlds)
        self.steps[rows] += 1
        self._perceive(worlds)
        self._plan(self._runner.advance(rows))
        stepped = self._all[rows]
        self._judge.judge(stepped, self.base_policy_failed, self.steps)
        over = self.truncated & ~self.success
        if over.any():
            self._end(stepped[over[stepped]])
        self._observe()

    def _perceive(self, worlds: IntArray | None) -> None:
        seen, valid = self.tracker.observe(self.world.robot.tcp_pose, self.latch.closed, worlds)
        self.filter.update(seen, valid, worlds)

    def _plan(self, worlds: IntArray) -> None:
        """Request new chunks for ``worlds``, whose chunks have run out; then set the next step's base targets.

        If the base policy fails, the world keeps its last target and is truncated when the step is judged.
        """
        if len(worlds):
            self._runner.request(worlds, self.view, self.executed_target[worlds], self.world.robot)
        self.base_target = self._runner.current

    def _end(self, worlds: IntArray) -> None:
        """Name the failures of ``worlds``, whose episodes have ended without success."""
        for world in worlds.tolist():
            self.failure[world] = self.name_failure(world)
            if self.base_policy_failed[world]:
                self._judge.end(world, "base_policy_failed")

    def name_failure(self, world: int) -> str:
        """Why the episode of ``world`` has not succeeded: a fault, or "no_<milestone>" for the first one missed.

        "not_held" if all milestones were reached but success did not hold; "not_done" if an operator judged.
        """
        if self.world.stopped[world]:
            return self.world.stop_reason(world)
        if self.base_policy_failed[world]:
            return "base_policy_failed"
        return self._judge.failure(world)

    def _observe(self) -> None:
        robot = self.world.robot
        seen = Seen(
            robot,
            robot.wrench + self.tracker.wrench_noise(),
            self.latch.closed,
            np.concatenate([self.executed_target[:, None], self._runner.targets(self._ahead)], axis=1),
            self._runner.phase,
            self.filter.poses,
            self.filter.valid,
            self.filter.age,
        )
        self.observation = self.observation_builder.build(seen)

    def view(self, worlds: IntArray, needs: frozenset[str]) -> PolicyView:
        """What a base policy with these ``needs`` sees in ``worlds``."""
        return policy_view(self.world, self.tracker, self.filter, self.latch, self.executed_target, worlds, needs)

    def close(self) -> None:
        """Stop the worlds' threads and close their connections."""
        self.world.close()
