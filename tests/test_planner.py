"""The planner: it plans from what a policy sees, and learns nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.views import snapshot
from oc_residual_gym.residuals import RESIDUALS, UNTRAINED, ScriptedResidual, load_residual
from oc_residual_gym.residuals.scripted import PLAN_STEPS
from oc_residual_gym.residuals.sight import REST_STEPS, Sight
from oc_residual_gym.tasks import SHIPPED_TASKS, TASKS
from oc_residual_gym.tasks.base import Snapshot
from oc_residual_gym.tasks.pick_place import HALF_SIZE, PLATE_HEIGHT
from oc_residual_gym.tasks.stack import STACKED

SEEN = {"task", "num_worlds", "steps", "chunk_starts", "base_target", "executed_target", "scales", "latch", "filter"}
"""What a policy may read of a core, besides the measured state of its robot."""
UP = np.array([0.0, 0.0, 1.0])


class Blindfold:
    """A core without true state: all that is not in ``SEEN`` is missing."""

    def __init__(self, core: ResidualWorlds):
        self._core = core

    @property
    def world(self) -> Any:
        return SimpleNamespace(robot=self._core.world.robot)

    def __getattr__(self, name: str) -> Any:
        if name not in SEEN:
            raise AssertionError(f"the planner reads {name}")
        return getattr(self._core, name)


def episodes(task: str, seeds: list[int], **options: Any) -> ResidualWorlds:
    """Worlds in which episodes with these seeds of the split val have begun."""
    core = ResidualWorlds(task, len(seeds), split="val", **({"base_policy": "bc"} | options))
    core.reset(np.arange(len(seeds)), seeds)
    return core


def actions_of(core: ResidualWorlds, steps: int, blindfold: bool = False) -> np.ndarray:
    """(steps, N, 7) the planner's actions in the first steps of the episodes."""
    seen: Any = Blindfold(core) if blindfold else core
    planner, actions = ScriptedResidual("planner"), []
    planner.reset(seen, np.arange(core.num_worlds))
    for _ in range(steps):
        actions.append(planner.act(seen))
        core.step(actions[-1])
    core.close()
    return np.array(actions)


def seen_of(task: str) -> Snapshot:
    """A state as the planner sees it at the start of an episode, with poses free of errors."""
    core = episodes(task, [0], base_policy="hold", errors="clean")
    state = Sight(1).state(core, 0)
    assert state is not None
    return state


def test_it_is_one_of_the_residuals_that_learn_nothing() -> None:
    assert UNTRAINED == ("zero", "planner", "oracle") == RESIDUALS[:3]
    planner = load_residual("planner", "Lift", "bc")
    assert planner.name == "planner" and planner.hash is None


def test_it_reads_only_what_a_policy_sees(task: str) -> None:
    plain, blind = (actions_of(episodes(task, [0]), 40, blindfold) for blindfold in (False, True))
    np.testing.assert_array_equal(plain, blind)
    assert np.abs(plain).max() > 0.01


def test_a_world_does_not_depend_on_its_neighbours() -> None:
    options = {"domain": "twin", "errors": "tracker"}
    together = actions_of(episodes("PickPlace", [0, 1, 2, 3], **options), 60)
    alone = actions_of(episodes("PickPlace", [2], **options), 60)
    np.testing.assert_array_equal(together[:, 2], alone[:, 0])


def test_it_follows_the_base_until_every_object_has_been_seen() -> None:
    core = episodes("PickPlace", [0, 1], base_policy="hold", errors="clean")
    core.filter.poses[1, 0] = np.nan  # the block of the second world
    planner = ScriptedResidual("planner")
    planner.reset(core, np.arange(2))
    planned, unseen = planner.act(core)
    assert np.abs(planned).max() > 0.05
    np.testing.assert_array_equal(unseen, np.zeros(7))
    for _ in range(PLAN_STEPS):  # the step brings the pose
        core.step(planner.act(core))
    assert np.abs(planner.act(core)[1]).max() > 0.05


@pytest.mark.parametrize("steps", [1, 2])
def test_fingers_that_are_reported_rarely_do_not_seem_to_rest(steps: int) -> None:
    """A robot's hand says its width every ``steps`` control steps or so; it closes with 5 mm per step."""
    core: Any = SimpleNamespace(world=SimpleNamespace(robot=SimpleNamespace(gripper_width=np.array([0.08]))))
    sight, world = Sight(1), np.zeros(1, np.int64)
    sight.start(world)
    core.task = SimpleNamespace(objects=(), grasped=None, contacts={"left": (), "right": ()})
    core.filter = SimpleNamespace(poses=np.zeros((1, 0, 7)))
    core.world.robot.tcp_pose, core.executed_target = np.zeros((1, 7)), np.zeros((1, 8))
    core.latch = SimpleNamespace(closed=np.ones(1, bool))
    widths = np.repeat(np.arange(0.08, 0.04, -0.005 * steps), steps).tolist()
    held = []
    for width in [*widths, *[0.04] * (REST_STEPS + 1)]:
        core.world.robot.gripper_width[0] = width
        sight.update(core, world)
        held.append(sight.state(core, 0).contacts["left"])
    assert not any(held[: len(widths)]) and held[-1]


def test_it_infers_that_the_block_is_on_the_plate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_of("PickPlace")
    assert not told("PickPlace", _at(seen, "block", _above_plate(seen, 0.03)), monkeypatch).contacts["plate"]
    assert told("PickPlace", _at(seen, "block", _above_plate(seen, 0.003)), monkeypatch).contacts["plate"]


def test_it_infers_that_the_white_cube_is_on_the_green_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = seen_of("Stack")
    stacked = seen.poses["green"][:3] + STACKED
    assert not told("Stack", _at(seen, "white", stacked + 0.03 * UP), monkeypatch).contacts["green"]
    assert told("Stack", _at(seen, "white", stacked + 0.003 * UP), monkeypatch).contacts["green"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_infers_which_drawer_is_open_and_how_far(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    core = episodes("CloseDrawer", [seed], base_policy="hold", errors="clean")
    seen = Sight(1).state(core, 0)
    true = snapshot(core.simulation, 0, core.latch, core.executed_target)
    assert seen is not None
    inferred = told("CloseDrawer", seen, monkeypatch)
    assert inferred.parameters["active"] == true.parameters["active"]
    ((name, slide),) = inferred.slides.items()
    np.testing.assert_allclose(slide[0], true.slides[name][0], atol=1e-4)
    np.testing.assert_allclose(inferred.poses[name], inferred.poses["drawer"])


def told(task: str, seen: Snapshot, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """What the task's plan tells its expert."""
    states: list[Snapshot] = []
    monkeypatch.setattr(TASKS[task], "expert", lambda state: states.append(state) or [])
    TASKS[task].plan(seen)
    return states[0]


@pytest.mark.parametrize("name", SHIPPED_TASKS)
def test_it_does_the_task_alone(name: str) -> None:
    """The base policy holds still, and the poses have errors: all motion is the planner's."""
    core, worlds = episodes(name, [0, 1], base_policy="hold"), np.arange(2)
    planner = load_residual("planner", name, "hold")
    planner.reset(core, worlds)
    while len(running := np.flatnonzero(~(core.terminated | core.truncated))):
        core.step(planner.act(core), running)
    core.close()
    assert core.success.all()


def _at(seen: Snapshot, name: str, position: np.ndarray) -> Snapshot:
    seen.poses[name][:3] = position  # type: ignore[index]
    return seen


def _above_plate(seen: Snapshot, height: float) -> np.ndarray:
    """Position of a block whose lower side is ``height`` metres above the plate."""
    return seen.poses["plate"][:3] + (PLATE_HEIGHT / 2 + HALF_SIZE[2] + height) * UP
