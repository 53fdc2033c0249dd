"""CloseDrawer: what counts as closed, what does not, and what its drawers and its expert do."""

from __future__ import annotations

import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.policies.residual import load_residual
from oc_residual_gym.tasks.base import SUCCESS_STEPS
from oc_residual_gym.tasks.close_drawer import ACTIVE, CLOSED_OPENING, DRAWERS, OPENING

STILL = np.zeros((1, 7))
LIMIT = 300
"""Control steps of the episodes here, long enough for the expert."""


def opened(core: ResidualWorlds, world: int = 0) -> str:
    """Name of the drawer that stood open at the start."""
    return DRAWERS[int(core.world.true.parameters["active"][world])]


def put_drawer(core: ResidualWorlds, name: str, opening: float, speed: float = 0.0, world: int = 0) -> None:
    """Set a drawer's opening (m) and speed (m/s)."""
    joint = core.world.scene.model.joint(f"cabinet_{name}_slide")
    core.world._state[world, 1 + joint.qposadr[0]] = opening
    core.world._state[world, 1 + core.world.scene.model.nq + joint.dofadr[0]] = speed


def start(opening: float, speed: float = 0.0) -> ResidualWorlds:
    """A world with the hand out of the way, one step after its drawer was put there."""
    core = ResidualWorlds("CloseDrawer", 1, errors="clean")
    core.reset(np.array([0]), [0])
    put_drawer(core, opened(core), opening, speed)
    core.step(STILL)
    return core


def held(core: ResidualWorlds) -> bool:
    return bool(core.task.success(core.world.true)[0])


def test_a_closed_drawer_ends_the_episode_after_half_a_second():
    core = start(opening=0.005)
    for step in range(1, SUCCESS_STEPS + 1):
        assert held(core)
        assert core.reward[0] == 0.0
        assert core.terminated[0] == (step == SUCCESS_STEPS)
        core.step(STILL)


@pytest.mark.parametrize(
    ("opening", "speed"),
    [(0.0135, 0.0), (0.014, 0.0), (0.13, 0.0), (0.001, 0.15), (0.012, -0.25)],
    ids=["just open", "14 mm open", "fully open", "closed but bouncing back", "closed but still moving in"],
)
def test_near_misses_do_not_count(opening, speed):
    core = start(opening, speed)
    assert not held(core)
    assert core.reward[0] < 0.0


def test_closed_neighbours_do_not_count():
    core = start(opening=0.1)
    slides = core.world.true.slides
    assert all(slides[name][0, 0] < CLOSED_OPENING for name in DRAWERS if name != opened(core))
    assert not held(core)


def test_an_open_neighbour_does_not_matter():
    core = start(opening=0.005)
    put_drawer(core, next(DRAWERS[i] for i in ACTIVE if DRAWERS[i] != opened(core)), 0.1)
    core.step(STILL)
    assert held(core)


def test_success_that_breaks_starts_over():
    core = start(opening=0.005)
    for _ in range(SUCCESS_STEPS - 2):
        core.step(STILL)
    put_drawer(core, opened(core), 0.02)
    core.step(STILL)
    assert not held(core)
    put_drawer(core, opened(core), 0.005)
    for step in range(1, SUCCESS_STEPS + 1):
        assert not core.terminated[0]
        core.step(STILL)
        assert core.terminated[0] == (step == SUCCESS_STEPS)


def test_drawers_stay_where_they_are_and_the_hand_is_clear_at_the_start():
    worlds = 60
    core = ResidualWorlds("CloseDrawer", worlds, errors="clean", split="val")
    core.reset(np.arange(worlds), list(range(worlds)))
    before = {name: slide.copy() for name, slide in core.world.true.slides.items()}
    openings = np.stack([before[opened(core, w)][w, 0] for w in range(worlds)])
    assert (openings >= OPENING[0]).all() and (openings <= OPENING[1]).all()
    assert {opened(core, w) for w in range(worlds)} == {DRAWERS[i] for i in ACTIVE}
    for _ in range(20):
        core.step(np.zeros((worlds, 7)))
        assert (core.peak_contact_force == 0.0).all()
    for name, slide in core.world.true.slides.items():
        np.testing.assert_allclose(slide, before[name], atol=1e-6)


def test_drawers_stop_firmly_at_both_ends():
    for opening, speed in ((0.02, -0.5), (0.11, 0.5)):
        core = start(opening, speed)
        for _ in range(10):
            core.step(STILL)
            slide = core.world.true.slides[opened(core)][0, 0]
            assert -0.0005 < slide < OPENING[1] + 0.0005


@pytest.mark.parametrize("domain", ["nominal", "twin"])
def test_the_expert_closes_the_drawer_and_no_other(domain):
    worlds = 12
    core = ResidualWorlds(
        "CloseDrawer", worlds, base_policy="expert", errors="clean", split="val", domain=domain
    )
    core.reset(np.arange(worlds), list(range(worlds)))
    active, zero = np.arange(worlds), np.zeros((worlds, 7))
    best = np.zeros(worlds)
    while len(active) and core.steps.max() < 150:
        core.step(zero, active)
        progress = np.sum(list(core.reward_terms.values()), axis=0)
        assert (progress[active] > best[active] - 0.02).all(), "progress fell on the way"
        best = np.maximum(best, progress)
        active = active[~core.terminated[active]]
    assert core.success.all()
    for name, slide in core.world.true.slides.items():
        others = [w for w in range(worlds) if opened(core, w) != name]
        assert (np.abs(slide[others, 0]) < 1e-4).all()


def test_finishing_beats_stalling_and_flickering():
    """Returns of the expert, of one that stops just short, and of one that leaves success again and again."""
    expert, stalling, flickering = 0, 1, 2
    core = ResidualWorlds("CloseDrawer", 3, errors="clean", max_episode_steps=LIMIT)
    oracle = load_residual("oracle")
    core.reset(np.arange(3), [1, 1, 1])
    oracle.reset(core, np.arange(3))
    active, rewards = np.arange(3), np.zeros((LIMIT, 3))
    while len(active):
        action = oracle.act(core)
        opening = core.world.true.slides[opened(core)][:, 0]
        if opening[stalling] < 0.023:
            action[stalling] = 0.0
        if core.steps[flickering] % SUCCESS_STEPS == 0 and opening[flickering] < CLOSED_OPENING:
            put_drawer(core, opened(core), CLOSED_OPENING + 0.002, world=flickering)
        core.step(action, active)
        rewards[core.steps[active] - 1, active] = core.reward[active]
        active = active[~(core.terminated | core.truncated)[active]]
    assert core.success.tolist() == [True, False, False]
    assert CLOSED_OPENING < opening[stalling] < CLOSED_OPENING + 0.005
    assert (rewards[:, flickering] == 0.0).sum() > 100
    for gamma in (0.95, 0.99):
        returns = gamma ** np.arange(LIMIT) @ rewards
        assert returns[expert] > returns[stalling]
        assert returns[expert] > returns[flickering]
