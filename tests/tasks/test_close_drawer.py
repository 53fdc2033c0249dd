"""CloseDrawer: what counts as closed, what does not, that finishing pays, and what the drawers do."""

import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.geometry import pose_multiply
from oc_residual_gym.tasks.base import SUCCESS_STEPS, Snapshot, Waypoint
from oc_residual_gym.tasks.close_drawer import ACTIVE, CLOSED_OPENING, DRAWERS, OPENING, TRAVEL


def opened(core: ResidualWorlds, world: int = 0) -> str:
    """Name of the drawer that stood open at the start."""
    return DRAWERS[int(core.world.true.parameters["active"][world])]


def put_drawer(core: ResidualWorlds, name: str, opening: float, speed: float = 0.0) -> None:
    """Set a drawer of the first world to an opening (m) and speed (m/s)."""
    model, state = core.world.scene.model, core.world._state[0]
    joint = model.joint(f"cabinet_{name}_slide")
    state[1 + joint.qposadr[0]] = opening
    state[1 + model.nq + joint.dofadr[0]] = speed


def opening_of(state: Snapshot) -> float:
    return float(state.slides[DRAWERS[int(state.parameters["active"])]][0])


def pushed_to(opening: float):
    """Legs from a hand that pushes, until the drawer is only ``opening`` (m) open."""

    def legs(state: Snapshot) -> list[Waypoint]:
        cabinet = state.poses["cabinet"]
        way = pose_multiply(cabinet, np.array([opening - opening_of(state), 0, 0, 0, 0, 0, 1]))[:3] - cabinet[:3]
        return [Waypoint(np.concatenate([state.tcp_pose[:3] + way, state.target[3:7]]), True, speed=0.003)]

    return legs


def test_a_closed_drawer_ends_the_episode_after_half_a_second(stage):
    world = stage("CloseDrawer")
    put_drawer(world.core, opened(world.core), 0.005)
    met = world.run(2 * SUCCESS_STEPS)
    assert met.all()
    assert len(met) == SUCCESS_STEPS
    assert world.succeeded
    assert world.core.terminated[0]
    assert world.rewards == [0.0] * SUCCESS_STEPS


@pytest.mark.parametrize(
    ("opening", "speed"),
    [(0.0135, 0.0), (0.014, 0.0), (TRAVEL, 0.0), (0.001, 0.15), (0.012, -0.25)],
    ids=["just open", "14 mm open", "fully open", "closed but bouncing back", "closed but still moving in"],
)
def test_near_misses_do_not_count(stage, opening, speed):
    world = stage("CloseDrawer")
    put_drawer(world.core, opened(world.core), opening, speed)
    assert not world.run(1).any()
    assert world.rewards[0] < 0.0


def test_closed_neighbours_do_not_count(stage):
    world = stage("CloseDrawer")
    put_drawer(world.core, opened(world.core), 0.1)
    assert not world.run(20).any()
    assert all(world.state.slides[n][0, 0] < CLOSED_OPENING for n in DRAWERS if n != opened(world.core))


def test_an_open_neighbour_does_not_matter(stage):
    world = stage("CloseDrawer")
    put_drawer(world.core, opened(world.core), 0.005)
    put_drawer(world.core, next(DRAWERS[i] for i in ACTIVE if DRAWERS[i] != opened(world.core)), 0.1)
    assert world.run(SUCCESS_STEPS).all()
    assert world.succeeded


def test_success_must_hold_without_a_break(stage):
    world = stage("CloseDrawer")
    for _ in range(3):
        put_drawer(world.core, opened(world.core), 0.005)
        assert world.run(SUCCESS_STEPS - 1).all()
        put_drawer(world.core, opened(world.core), 0.015)
        assert not world.run(1).any()
    put_drawer(world.core, opened(world.core), 0.005)
    assert not world.core.terminated[0]
    assert len(world.run(2 * SUCCESS_STEPS)) == SUCCESS_STEPS
    assert world.succeeded


def test_stalling_just_short_of_success_pays_less(stopped, expert_beats):
    world = stopped("CloseDrawer", lambda state: opening_of(state) < 0.04, pushed_to(CLOSED_OPENING + 0.003))
    assert not world.run_to_the_end().any()
    assert CLOSED_OPENING < world.state.slides[opened(world.core)][0, 0] < CLOSED_OPENING + 0.006
    assert world.core.failure == ["not_held"]
    expert_beats(world, 1.0)


def test_flickering_pays_less(stopped, expert_beats):
    world = stopped("CloseDrawer", lambda state: opening_of(state) < CLOSED_OPENING, pushed_to(0.05))
    for _ in range(len(world.rewards), world.core.task.max_episode_steps, SUCCESS_STEPS):
        put_drawer(world.core, opened(world.core), 0.015)
        world.run(1)
        put_drawer(world.core, opened(world.core), 0.005)
        world.run(SUCCESS_STEPS - 1)
    assert world.rewards.count(0.0) > 300
    expert_beats(world, 0.3)


@pytest.mark.parametrize("domain", ["nominal", "twin"])
def test_the_expert_closes_the_drawer_and_no_other(domain):
    worlds = 12
    core = ResidualWorlds("CloseDrawer", worlds, base_policy="expert", errors="clean", split="val", domain=domain)
    core.reset(np.arange(worlds), list(range(worlds)))
    active, best = np.arange(worlds), np.zeros(worlds)
    while len(active) and core.steps.max() < 150:
        core.step(np.zeros((worlds, 7)), active)
        progress = np.sum(list(core.reward_terms.values()), axis=0)
        assert (progress[active] > best[active] - 0.02).all(), "progress fell on the way"
        best = np.maximum(best, progress)
        active = active[~core.terminated[active]]
    assert core.success.all()
    for name, slide in core.world.true.slides.items():
        others = [w for w in range(worlds) if opened(core, w) != name]
        assert (np.abs(slide[others, 0]) < 1e-4).all()


def test_drawers_stay_where_they_are_and_the_hand_is_clear_at_the_start():
    worlds = 60
    core = ResidualWorlds("CloseDrawer", worlds, errors="clean", split="val")
    core.reset(np.arange(worlds), list(range(worlds)))
    before = {name: slide.copy() for name, slide in core.world.true.slides.items()}
    openings = np.array([before[opened(core, w)][w, 0] for w in range(worlds)])
    assert OPENING[0] <= openings.min() < openings.max() <= OPENING[1]
    assert {opened(core, w) for w in range(worlds)} == {DRAWERS[i] for i in ACTIVE}
    for _ in range(20):
        core.step(np.zeros((worlds, 7)))
        assert (core.world.peak_contact_force == 0.0).all()
    for name, slide in core.world.true.slides.items():
        np.testing.assert_allclose(slide, before[name], atol=1e-6)


@pytest.mark.parametrize(("opening", "speed"), [(0.02, -0.5), (0.11, 0.5)])
def test_drawers_stop_firmly_at_both_ends(stage, opening, speed):
    world = stage("CloseDrawer")
    put_drawer(world.core, opened(world.core), opening, speed)
    for _ in range(8):
        world.run(1)
        assert -0.001 < world.state.slides[opened(world.core)][0, 0] < TRAVEL + 0.001
