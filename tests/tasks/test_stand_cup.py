"""StandCup: what counts as standing, what does not, that finishing pays, and how the cup is made."""

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.tasks.base import SUCCESS_STEPS, Snapshot, Waypoint, axis_z
from oc_residual_gym.tasks.stand_cup import BASE_RADIUS, HEIGHT, MOUTH_RADIUS

IN_THE_AIR, IN_THE_HAND, ALONE = "in the air", "in the hand", "alone"


def cup_at(tilt: float, clearance: float = 0.0) -> np.ndarray:
    """Pose beside the hand, ``tilt`` degrees from upright, lowest point ``clearance`` (m) above the table."""
    radius = BASE_RADIUS if tilt <= 90 else MOUTH_RADIUS
    height = HEIGHT / 2 * abs(np.cos(np.radians(tilt))) + radius * np.sin(np.radians(tilt)) + clearance
    return np.array([0.5, 0.15, height, *Rotation.from_euler("y", tilt, degrees=True).as_quat()])


def tilt_of(pose: np.ndarray) -> float:
    """Degrees from upright."""
    return float(np.degrees(np.arccos(min(axis_z(pose[3:])[2], 1.0))))


def upright(where: str):
    """Has the expert got the cup upright: in the air, on the table but in the hand, or standing alone?"""

    def stop(state: Snapshot) -> bool:
        here = ALONE if not state.contacts["hand"] else IN_THE_HAND if state.contacts["table"] else IN_THE_AIR
        return here == where and tilt_of(state.poses["cup"]) < 8

    return stop


def stay(_: Snapshot) -> list[Waypoint]:
    return []


def draw_back(state: Snapshot) -> list[Waypoint]:
    here = state.target[:7].copy()
    here[:3] -= 0.1 * axis_z(here[3:])
    return [Waypoint(here, False)]


def lean(state: Snapshot) -> list[Waypoint]:
    """Tilt the cup in the hand by 15 degrees."""
    here = state.target[:7]
    tilted = Rotation.from_quat(here[3:]) * Rotation.from_euler("y", -15, degrees=True)
    return [Waypoint(np.concatenate([here[:3], tilted.as_quat()]), True)]


def test_a_standing_cup_ends_the_episode_after_half_a_second(stage):
    world = stage("StandCup")
    world.put(cup=cup_at(tilt=0.0))
    met = world.run(2 * SUCCESS_STEPS)
    assert met.all()
    assert len(met) == SUCCESS_STEPS
    assert world.succeeded
    assert world.core.terminated[0]
    assert world.rewards == [0.0] * SUCCESS_STEPS


@pytest.mark.parametrize(
    ("tilt", "clearance"),
    [(0.0, 0.03), (15.0, 0.0), (82.0, 0.0), (180.0, 0.0)],
    ids=["upright in the air", "tilted by 15 degrees", "lying", "standing on its mouth"],
)
def test_near_misses_do_not_count(stage, tilt, clearance):
    world = stage("StandCup")
    for _ in range(SUCCESS_STEPS + 2):
        world.put(cup=cup_at(tilt, clearance))
        assert not world.run(1).any()
        assert world.rewards[-1] < 0.0


def test_standing_on_its_mouth_stays_a_miss(stage):
    world = stage("StandCup")
    world.put(cup=cup_at(tilt=180.0))
    assert not world.run(40).any()
    assert world.touching("table")
    assert tilt_of(world.state.poses["cup"][0]) > 179


def test_held_upright_in_the_air_does_not_count(stopped):
    world = stopped("StandCup", upright(IN_THE_AIR), stay)
    assert not world.run(40).any()
    assert tilt_of(world.state.poses["cup"][0]) < 10
    assert not world.touching("table")


def test_leaning_on_the_hand_does_not_count(stopped):
    world = stopped("StandCup", upright(IN_THE_HAND), lean)
    assert not world.run(40).any()
    assert tilt_of(world.state.poses["cup"][0]) > 11
    assert world.touching("table")
    assert world.touching("hand")


def test_a_rolling_or_sliding_cup_is_not_still(stage):
    world = stage("StandCup")
    world.put(velocity=0.5, cup=cup_at(tilt=0.0))
    assert not world.run(1).any()


def test_success_must_hold_without_a_break(stage):
    world = stage("StandCup")
    for _ in range(3):
        world.put(cup=cup_at(tilt=0.0))
        assert world.run(SUCCESS_STEPS - 1).all()
        world.put(cup=cup_at(tilt=15.0))
        assert not world.run(1).any()
    world.put(cup=cup_at(tilt=0.0))
    assert not world.core.terminated[0]
    assert len(world.run(2 * SUCCESS_STEPS)) == SUCCESS_STEPS
    assert world.succeeded


def test_never_letting_go_pays_less(stopped, expert_beats):
    world = stopped("StandCup", upright(IN_THE_HAND), stay)
    assert not world.run_to_the_end().any()
    assert world.touching("table")
    assert world.touching("hand")
    assert tilt_of(world.state.poses["cup"][0]) < 10
    assert world.core.failure == ["no_release"]
    expert_beats(world, 1.0)


def test_flickering_pays_less(stopped, expert_beats):
    world = stopped("StandCup", upright(ALONE), draw_back)
    for _ in range(len(world.rewards), world.core.task.max_episode_steps, SUCCESS_STEPS):
        world.put(cup=cup_at(tilt=15.0))
        world.run(1)
        world.put(cup=cup_at(tilt=0.0))
        world.run(SUCCESS_STEPS - 1)
    assert world.rewards.count(0.0) > 200
    expert_beats(world, 0.3)


@pytest.mark.parametrize("domain", ["nominal", "twin"])
def test_the_expert_stands_the_cup_upright(domain):
    worlds = 8
    core = ResidualWorlds("StandCup", worlds, base_policy="expert", errors="clean", split="val", domain=domain)
    core.reset(np.arange(worlds), list(range(worlds)))
    active, best = np.arange(worlds), np.zeros(worlds)
    while len(active) and core.steps.max() < 400:
        core.step(np.zeros((worlds, 7)), active)
        # The opened fingers may touch the cup once more.
        progress = np.sum([v for name, v in core.reward_terms.items() if name != "release"], axis=0)
        assert (progress[active] > best[active] - 0.03).all(), "progress fell on the way"
        best = np.maximum(best, progress)
        active = active[~core.terminated[active]]
    assert core.success.all()


@pytest.mark.parametrize("domain", ["nominal", "twin"])
def test_the_cup_lies_at_rest_at_the_start(domain):
    worlds = 60
    core = ResidualWorlds("StandCup", worlds, errors="clean", split="val", domain=domain)
    core.reset(np.arange(worlds), list(range(worlds)))
    before = core.world.true.poses["cup"].copy()
    axis = axis_z(before[:, 3:])
    np.testing.assert_allclose(np.degrees(np.arcsin(axis[:, 2])), 7.125, atol=0.1)
    azimuth = np.degrees(np.arctan2(axis[:, 1], axis[:, 0]))
    assert 85 <= azimuth.min() < 95
    assert 135 < azimuth.max() <= 145.1
    for _ in range(20):
        core.step(np.zeros((worlds, 7)))
        assert (core.world.peak_contact_force == 0.0).all()
    np.testing.assert_allclose(core.world.true.poses["cup"], before, atol=1e-4)


def test_the_cup_is_hollow_and_its_wall_is_closed(stage):
    world = stage("StandCup")
    world.put(cup=cup_at(tilt=0.0))
    world.run(1)
    model = world.core.world.scene.model
    data = mujoco.MjData(model)
    data.qpos[:] = world.core.world.physics_state(0)[0]
    mujoco.mj_forward(model, data)
    collision, hit = np.array([1, 0, 0, 0, 0, 0], np.uint8), np.zeros(1, np.int32)
    middle, up = world.state.poses["cup"][0, :3], np.array([0.0, 0.0, 1.0])

    def ray(start: np.ndarray, direction: np.ndarray) -> float:
        """Metres from ``start``, seen from the cup's middle, to the first thing that collides."""
        return mujoco.mj_ray(model, data, middle + start, direction, collision, 1, -1, hit)

    assert ray(0.049 * up, -up) == pytest.approx(0.096, abs=0.001), "nothing above the base"
    for height in (-0.045, -0.02, 0.0, 0.03, 0.048):
        cone = (MOUTH_RADIUS + BASE_RADIUS) / 2 + (MOUTH_RADIUS - BASE_RADIUS) * height / HEIGHT
        for angle in np.linspace(0, 2 * np.pi, 257):
            outwards = np.array([np.cos(angle), np.sin(angle), 0.0])
            inside = ray(height * up, outwards)
            outside = 0.1 - ray(height * up + 0.1 * outwards, -outwards)
            assert outside == pytest.approx(cone, abs=0.0015)
            assert 0.002 < outside - inside < 0.006
