"""Lift: what counts as lifted, what does not, and that finishing pays."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.tasks.base import SUCCESS_STEPS, Snapshot, Waypoint
from oc_residual_gym.tasks.lift import HALF_SIZE, LIFT_HEIGHT
from oc_residual_gym.tasks.moves import is_holding

ON_ITS_END = Rotation.from_euler("y", 90, degrees=True).as_quat()


def raised_to(state: Snapshot, height: float, tilt: float = 0.0) -> list[Waypoint]:
    """Bring the block, held at its centre, to ``height`` above the table, and tilt it about the fingers."""
    here, lift = state.target[:7], height - (state.poses["block"][2] - HALF_SIZE[2])
    tool = Rotation.from_quat(here[3:]) * Rotation.from_rotvec([0.0, tilt, 0.0])
    goal = np.concatenate([here[:2], [state.tcp_pose[2] + lift], tool.as_quat()])
    return [Waypoint(goal, True, wait=15, speed=0.003)]


def test_the_expert_lifts_the_block(stage):
    world = stage("Lift", "expert")
    met = world.run_to_the_end()
    assert world.succeeded
    assert met[-SUCCESS_STEPS:].all()
    assert not met[:-SUCCESS_STEPS].any()
    assert world.greatest_fall() < 0.1, "milestones stay reached on the way to success"


def test_three_centimetres_are_not_enough(stopped):
    world = stopped("Lift", is_holding, lambda state: raised_to(state, 0.03))
    assert not world.run(80).any()
    assert world.touching("left")
    assert world.touching("right")


def test_a_low_corner_is_not_lifted(stopped):
    world = stopped("Lift", is_holding, lambda state: raised_to(state, 0.055, tilt=0.7))
    assert not world.run(60).any()
    assert world.state.poses["block"][0, 2] > LIFT_HEIGHT + HALF_SIZE[2], "level, it would be lifted"
    assert world.touching("left")
    assert world.touching("right")


def test_standing_on_its_end_is_not_lifted(stage):
    world = stage("Lift")
    world.put(block=np.array([0.5, 0.2, HALF_SIZE[0], *ON_ITS_END]))
    assert not world.run(20).any()
    assert world.state.poses["block"][0, 2] > 0.055, "it has fallen over"


def test_a_dropped_block_is_not_lifted(stage):
    world = stage("Lift")
    world.put(block=np.array([0.5, 0.2, 0.15, 0.0, 0.0, 0.0, 1.0]))
    met = world.run(40)
    assert met[0]
    assert not met[-20:].any()
    assert not world.succeeded


def test_success_must_hold_without_a_break(stage):
    world = stage("Lift")
    high, low = (np.array([0.5, 0.2, z, 0.0, 0.0, 0.0, 1.0]) for z in (0.2, 0.02))
    for _ in range(3):
        for _ in range(SUCCESS_STEPS - 1):
            world.put(block=high)
            assert world.run(1).all()
        world.put(block=low)
        assert not world.run(1).any()
    assert not world.core.terminated[0]
    for _ in range(SUCCESS_STEPS):
        assert not world.succeeded
        world.put(block=high)
        world.run(1)
    assert world.succeeded
    assert world.core.terminated[0]


def stalling(state: Snapshot) -> list[Waypoint]:
    return raised_to(state, LIFT_HEIGHT - 0.003)


def flickering(state: Snapshot) -> list[Waypoint]:
    up, down = (raised_to(state, LIFT_HEIGHT + height)[0].pose for height in (0.004, -0.006))
    return [Waypoint(goal, True, wait=3, speed=0.002) for _ in range(30) for goal in (up, down)]


@pytest.mark.parametrize(("then", "margin"), [(stalling, 1.0), (flickering, 0.3)])
def test_finishing_pays_more(stopped, expert_beats, then, margin):
    world = stopped("Lift", is_holding, then)
    met = world.run_to_the_end()
    made = int(np.sum(np.diff(met.astype(int)) == 1))
    assert made == 0 if then is stalling else made >= 5
    assert max(world.rewards[:-1]) > -0.15
    expert_beats(world, margin)
