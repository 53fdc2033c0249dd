"""StandCup: what counts as standing, what does not, the cup itself, and its expert."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.policies.residual import load_residual
from oc_residual_gym.tasks.base import SUCCESS_STEPS, axis_z
from oc_residual_gym.tasks.stand_cup import BASE_RADIUS, HEIGHT, MAX_TILT, MOUTH_RADIUS

STILL = np.zeros((1, 7))
LIMIT = 400
"""Control steps of the episodes here, long enough for the expert."""


def put_cup(core: ResidualWorlds, tilt: float, clearance: float = 0.0, world: int = 0) -> None:
    """Set the cup at rest beside the hand, ``tilt`` degrees from upright, its lowest point ``clearance`` (m) above the table."""
    radius = BASE_RADIUS if tilt <= 90 else MOUTH_RADIUS
    height = HEIGHT / 2 * abs(np.cos(np.radians(tilt))) + radius * np.sin(np.radians(tilt)) + clearance
    x, y, z, w = Rotation.from_euler("y", tilt, degrees=True).as_quat()
    scene = core.world.scene
    joint = scene.model.joint("cup_joint0")
    qpos, qvel = 1 + joint.qposadr[0], 1 + scene.model.nq + joint.dofadr[0]
    core.world._state[world, qpos : qpos + 7] = [0.5, 0.15, height, w, x, y, z]
    core.world._state[world, qvel : qvel + 6] = 0.0


def start(tilt: float, clearance: float = 0.0) -> ResidualWorlds:
    """A world one step after its cup was put there."""
    core = ResidualWorlds("StandCup", 1, errors="clean")
    core.reset(np.array([0]), [0])
    put_cup(core, tilt, clearance)
    core.step(STILL)
    return core


def held(core: ResidualWorlds) -> bool:
    return bool(core.task.success(core.world.true)[0])


def tilt_of(core: ResidualWorlds) -> np.ndarray:
    """(N,) degrees."""
    return np.degrees(np.arccos(axis_z(core.world.true.poses["cup"][:, 3:])[:, 2]))


def test_a_standing_cup_ends_the_episode_after_half_a_second():
    core = start(tilt=0.0)
    for step in range(1, SUCCESS_STEPS + 1):
        assert held(core)
        assert core.reward[0] == 0.0
        assert core.terminated[0] == (step == SUCCESS_STEPS)
        core.step(STILL)


@pytest.mark.parametrize(
    ("tilt", "clearance"),
    [(0.0, 0.03), (15.0, 0.0), (82.0, 0.0), (180.0, 0.0)],
    ids=["upright in the air", "tilted by 15 degrees", "lying", "standing on its mouth"],
)
def test_near_misses_do_not_count(tilt, clearance):
    core = start(tilt, clearance)
    assert not held(core)
    assert core.reward[0] < 0.0


def test_a_cup_standing_on_its_mouth_never_counts():
    core = start(tilt=180.0)
    for _ in range(2 * SUCCESS_STEPS):
        core.step(STILL)
        assert not held(core)
    assert core.world.true.contacts["table"][0]


def test_success_that_breaks_starts_over():
    core = start(tilt=0.0)
    for _ in range(SUCCESS_STEPS - 2):
        core.step(STILL)
    put_cup(core, tilt=15.0)
    core.step(STILL)
    assert not held(core)
    put_cup(core, tilt=0.0)
    for step in range(1, SUCCESS_STEPS + 1):
        assert not core.terminated[0]
        core.step(STILL)
        assert core.terminated[0] == (step == SUCCESS_STEPS)


def test_the_cup_lies_at_rest_at_the_start():
    worlds = 60
    for domain in ("nominal", "twin"):
        core = ResidualWorlds("StandCup", worlds, errors="clean", split="val", domain=domain)
        core.reset(np.arange(worlds), list(range(worlds)))
        before = core.world.true.poses["cup"].copy()
        for _ in range(20):
            core.step(np.zeros((worlds, 7)))
            assert (core.peak_contact_force == 0.0).all()
        np.testing.assert_allclose(core.world.true.poses["cup"], before, atol=1e-4)


def test_cups_lie_in_all_the_directions_of_the_reset_range():
    core = ResidualWorlds("StandCup", 60, errors="clean")
    core.reset(np.arange(60), list(range(60)))
    axis = axis_z(core.world.true.poses["cup"][:, 3:])
    azimuth = np.degrees(np.arctan2(axis[:, 1], axis[:, 0]))
    assert azimuth.min() < 95 and azimuth.max() > 135
    np.testing.assert_allclose(np.degrees(np.arcsin(axis[:, 2])), 7.125, atol=0.1)


def test_the_cup_is_hollow_and_its_wall_is_closed():
    core = start(tilt=0.0)
    model, data = core.world.scene.model, mujoco.MjData(core.world.scene.model)
    data.qpos[:] = core.world.physics_state(0)[0]
    mujoco.mj_forward(model, data)
    middle = core.world.true.poses["cup"][0, :3]
    groups, hit = np.array([1, 0, 0, 0, 0, 0], np.uint8), np.zeros(1, np.int32)

    def distance(origin, direction):
        return mujoco.mj_ray(model, data, origin, direction, groups, 1, -1, hit)

    down = np.array([0.0, 0.0, -1.0])
    assert distance(middle + [0, 0, 0.049], down) == pytest.approx(0.096, abs=0.001), "nothing above the base"
    for height in (-0.045, -0.02, 0.0, 0.03, 0.048):
        radius = 0.03125 + 0.125 * height
        for angle in np.linspace(0, 2 * np.pi, 257):
            outwards = np.array([np.cos(angle), np.sin(angle), 0.0])
            inside = distance(middle + [0, 0, height], outwards)
            outside = 0.1 - distance(middle + [0, 0, height] + 0.1 * outwards, -outwards)
            assert 0.002 < outside - inside < 0.006, "the wall is there"
            assert abs(outside - radius) < 0.0015, "and where the cone is"


@pytest.mark.parametrize("domain", ["nominal", "twin"])
def test_the_expert_stands_the_cup_upright(domain):
    worlds = 8
    core = ResidualWorlds(
        "StandCup", worlds, base_policy="expert", errors="clean", split="val", domain=domain
    )
    core.reset(np.arange(worlds), list(range(worlds)))
    active, zero, best = np.arange(worlds), np.zeros((worlds, 7)), np.zeros(worlds)
    while len(active) and core.steps.max() < LIMIT:
        core.step(zero, active)
        # The opened fingers may touch the cup once more.
        progress = np.sum([v for name, v in core.reward_terms.items() if name != "release"], axis=0)
        assert (progress[active] > best[active] - 0.03).all(), "progress fell on the way"
        best = np.maximum(best, progress)
        active = active[~core.terminated[active]]
    assert core.success.all()


def test_finishing_beats_holding_on_and_flickering():
    """Returns of the expert, of one that never lets go, and of one that topples the cup again and again."""
    expert, holding, flickering = 0, 1, 2
    core = ResidualWorlds("StandCup", 3, errors="clean", max_episode_steps=LIMIT)
    oracle = load_residual("oracle")
    core.reset(np.arange(3), [1, 1, 1])
    oracle.reset(core, np.arange(3))
    active, rewards, stopped = np.arange(3), np.zeros((LIMIT, 3)), False
    while len(active):
        action, true = oracle.act(core), core.world.true
        stopped = stopped or (true.contacts["table"][holding] and tilt_of(core)[holding] < 5)
        if stopped:
            # Held upright on the table.
            action[holding] = 0.0
            assert true.contacts["hand"][holding] and true.contacts["table"][holding]
            assert tilt_of(core)[holding] < np.degrees(MAX_TILT)
        if core._held[flickering] == SUCCESS_STEPS - 1:
            put_cup(core, tilt=15.0, world=flickering)
        core.step(action, active)
        rewards[core.steps[active] - 1, active] = core.reward[active]
        active = active[~(core.terminated | core.truncated)[active]]
    assert core.success.tolist() == [True, False, False]
    assert stopped
    assert core.failure[holding] == "no_release"
    assert (rewards[:, flickering] == 0.0).sum() > 50
    for gamma in (0.95, 0.99):
        returns = gamma ** np.arange(LIMIT) @ rewards
        assert returns[expert] > returns[holding]
        assert returns[expert] > returns[flickering]
