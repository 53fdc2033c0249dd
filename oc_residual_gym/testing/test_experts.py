"""Tests with every task's scripted expert: the task can be solved, and its success and milestones are right."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.registration import env_id
from oc_residual_gym.states import Array, BoolArray, IntArray
from oc_residual_gym.tasks import TASKS, resolve_task
from oc_residual_gym.tasks.base import SUCCESS_STEPS, Task
from oc_residual_gym.tasks.index import INDEX

SEEDS = range(8)
"""Seeds of split "val"; the expert must succeed on all of them."""


@dataclass
class Run:
    """Records of the expert in N worlds, at the start and after each of T control steps."""

    done: BoolArray
    """(T + 1, N) whether the success condition held."""
    milestones: Array
    """(T + 1, N, M) values of the M milestones."""
    rewards: Array
    """(T, N) rewards."""
    succeeded: BoolArray
    """(N,) whether the episode succeeded."""
    ends: IntArray
    """(N,) number of control steps in each episode."""


@cache
def expert_run(task: str) -> Run:
    """Run the expert on ``SEEDS``, each episode to its end."""
    limit = TASKS[task].max_episode_steps
    core = ResidualWorlds(task, len(SEEDS), base_policy="expert", errors="clean", split="val", max_episode_steps=limit)
    everyone = np.arange(len(SEEDS))
    core.reset(everyone, list(SEEDS))
    done, milestones, rewards = [_success(core)], [_milestones(core)], []
    running = everyone
    while len(running):
        core.step(np.zeros((len(SEEDS), 7)), running)
        done.append(_success(core))
        milestones.append(_milestones(core))
        rewards.append(core.reward.copy())
        running = running[~(core.terminated | core.truncated)[running]]
    run = Run(np.array(done), np.array(milestones), np.array(rewards), core.success.copy(), core.steps.copy())
    core.close()
    return run


def _success(core: ResidualWorlds) -> BoolArray:
    return core.task.success(core.simulation.true).copy()


def _milestones(core: ResidualWorlds) -> Array:
    progress = core.task.progress(core.simulation.true)
    assert list(progress) == list(core.task.weights)
    return np.stack([np.asarray(value, np.float64) for value in progress.values()], axis=1)


def test_the_index_and_the_class_agree(task: str) -> None:
    spec = TASKS[task]
    assert spec.name == task
    assert spec.max_episode_steps == INDEX[task].max_episode_steps
    assert INDEX[task].source, "worker processes must be able to import the class"
    assert resolve_task(INDEX[task].source) is resolve_task(type(spec)) is resolve_task(task) is spec
    assert env_id(task).isascii()


def test_it_says_what_it_is(task: str) -> None:
    spec: Task = TASKS[task]
    assert spec.instruction and spec.success_rule
    names = {item.name for item in spec.specs}
    for fact in (spec.grasped, spec.goal):
        assert fact is None or fact.name in names
    assert 0 <= spec.picture_step < spec.max_episode_steps
    assert 0.0 < sum(spec.weights.values()) < 1.0 and min(spec.weights.values()) > 0.0


def test_the_expert_succeeds(task: str) -> None:
    run = expert_run(task)
    failed = [seed for seed, success in zip(SEEDS, run.succeeded, strict=True) if not success]
    assert not failed, f"the expert of {task} fails in split val, seeds {failed}"


def test_nothing_is_done_at_the_start(task: str) -> None:
    assert not expert_run(task).done[0].any()


def test_success_must_hold(task: str) -> None:
    """An episode ends as soon as the success condition has held for ten control steps without a break."""
    run = expert_run(task)
    for world in np.flatnonzero(run.succeeded):
        held = 0
        for step in range(1, int(run.ends[world]) + 1):
            assert held < SUCCESS_STEPS
            held = held + 1 if run.done[step, world] else 0
        assert held == SUCCESS_STEPS


def test_progress_is_a_share_and_pays(task: str) -> None:
    run = expert_run(task)
    weights = np.array(list(TASKS[task].weights.values()))
    for world in range(len(SEEDS)):
        end = int(run.ends[world])
        values, done = run.milestones[: end + 1, world], run.done[1 : end + 1, world]
        assert (values >= 0.0).all() and (values <= 1.0).all()
        assert ((values @ weights) < 1.0).all()
        rewards = run.rewards[:end, world]
        assert (rewards[done] == 0.0).all() and (rewards[~done] < 0.0).all()
        assert values[-1] @ weights > values[0] @ weights
