"""Tests with every task's symmetric objects in all poses that look alike: nothing that matters may tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.geometry import quat_multiply
from oc_residual_gym.states import Array
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import InitialState
from oc_residual_gym.tasks.symmetry import angle_between, symmetry_of

SEED = 0
"""Seed in split "val" of the start that is changed."""
PLANNED = 10
"""Number of look-alike starts from which the expert is run, spread over all."""


def _turned(poses: dict[str, Array], turns: dict[str, Array]) -> dict[str, Array]:
    """``poses`` (..., 7) by name, each object turned in its own frame by its quaternion in ``turns``."""
    result = dict(poses)
    for name, turn in turns.items():
        pose = poses[name]
        quat = quat_multiply(pose[..., 3:], np.broadcast_to(turn, pose[..., 3:].shape))
        result[name] = np.concatenate([pose[..., :3], quat], axis=-1)
    return result


@cache
def _look_alikes(task: str) -> list[dict[str, Array]]:
    """Starts that look the same, each as object name to turn: without turns, then one object turned, then all turned.

    An observed object that is not placed by its own pose, such as a drawer's face, stays as it is.
    """
    placed = start_of(TASKS[task], "val", SEED).poses
    members = {o.name: symmetry_of(o.symmetry).members(steps=8) for o in TASKS[task].objects if o.name in placed}
    single = [{name: turn} for name, turns in members.items() for turn in turns[1:]]
    if not single:
        pytest.skip("no object of this task has another pose that looks alike")
    cases: list[dict[str, Array]] = [{}, *single]
    rng = np.random.default_rng(0)
    cases += [{name: turns[rng.integers(len(turns))] for name, turns in members.items()} for _ in range(4)]
    return cases


def _planned(task: str) -> list[dict[str, Array]]:
    cases = _look_alikes(task)
    return cases[1 :: 1 + len(cases) // PLANNED] + cases[-1:]


def _start(task: str, turns: dict[str, Array]) -> InitialState:
    plain = start_of(TASKS[task], "val", SEED)
    return replace(plain, poses=_turned(dict(plain.poses), turns))


@pytest.fixture
def alike(task: str, request: pytest.FixtureRequest) -> Iterator[ResidualWorlds]:
    """One world per look-alike start of the same episode, with the base policy and pose errors of the test."""
    base, errors = request.param
    cases = _planned(task) if base == "expert" else _look_alikes(task)
    limit = TASKS[task].max_episode_steps
    core = ResidualWorlds(task, len(cases), base_policy=base, errors=errors, split="val", max_episode_steps=limit)
    core.reset(np.arange(len(cases)), [SEED] * len(cases), [_start(task, turns) for turns in cases])
    yield core
    core.close()


@pytest.mark.parametrize("alike", [("hold", "clean"), ("hold", "paper"), ("hold", "tracker")], indirect=True)
def test_observation_and_reward_do_not_tell_look_alike_starts_apart(alike: ResidualWorlds) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        seen, terms = alike.observation, np.array(list(alike.reward_terms.values()))
        np.testing.assert_allclose(seen, np.broadcast_to(seen[0], seen.shape), atol=2e-6)
        np.testing.assert_allclose(terms, np.broadcast_to(terms[:, :1], terms.shape), atol=1e-9)
        assert np.ptp(alike.reward) < 1e-9
        alike.step(np.tile(rng.uniform(-0.3, 0.3, 7), (alike.num_worlds, 1)))


@pytest.mark.parametrize("alike", [("expert", "clean")], indirect=True)
def test_the_expert_succeeds_from_every_look_alike_start_and_is_paid_the_same(alike: ResidualWorlds) -> None:
    task, true = alike.task, alike.simulation.true
    running = np.arange(alike.num_worlds)
    while len(running):
        alike.step(np.zeros((alike.num_worlds, 7)), running)
        if alike.steps[0] % 10 == 0:
            # Whatever the state, success and milestones are the same if the tracked frames were others.
            progress, success = task.progress(true), task.success(true)
            for turns in _planned(task.name):
                other = replace(true, poses=_turned(dict(true.poses), turns))
                np.testing.assert_array_equal(task.success(other), success)
                for name, value in task.progress(other).items():
                    np.testing.assert_allclose(value, progress[name], atol=1e-9)
        running = running[~(alike.terminated | alike.truncated)[running]]
    failed = [_planned(task.name)[world] for world in np.flatnonzero(~alike.success)]
    assert not failed, f"the expert of {task.name} fails with its objects turned by {failed}"


def test_a_start_at_look_alike_poses_looks_alike(task: str) -> None:
    spec = TASKS[task]
    plain = start_of(spec, "val", SEED)
    if not {o.name for o in spec.objects} <= set(plain.poses):
        pytest.skip("an observed object is not placed by its own pose")
    for turns in _look_alikes(task):
        found = spec.start_at(_start(task, turns).poses)
        for o in spec.objects:
            np.testing.assert_allclose(found.poses[o.name][:3], plain.poses[o.name][:3], atol=1e-9)
            assert angle_between(plain.poses[o.name][3:], found.poses[o.name][3:], o.symmetry) < 1e-6
