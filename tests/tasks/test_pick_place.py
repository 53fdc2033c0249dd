"""PickPlace: what counts as placed, what does not, and that finishing pays."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.geometry import rotate
from oc_residual_gym.tasks.base import SUCCESS_STEPS, Snapshot, Waypoint, pose
from oc_residual_gym.tasks.moves import is_holding
from oc_residual_gym.tasks.pick_place import HALF_SIZE, PLATE_HEIGHT, PLATE_RADIUS

REST_HEIGHT = PLATE_HEIGHT + HALF_SIZE[2]


def beside_center(world, distance, z=REST_HEIGHT):
    """Pose of a level block whose centre is ``distance`` metres in +x from the plate's."""
    x, y = world.state.poses["plate"][0, :2]
    return pose(x + distance, y, z)


def is_on_the_plate_in_the_hand(state: Snapshot) -> bool:
    return is_holding(state) and state.contacts["plate"]


def is_above_the_plate(state: Snapshot) -> bool:
    distance = state.poses["block"][:2] - state.poses["plate"][:2]
    return is_holding(state) and np.hypot(*distance) < 0.01


def stay(state: Snapshot) -> list[Waypoint]:
    return [Waypoint(state.target[:7], True)]


def test_the_expert_places_the_block(stage):
    world = stage("PickPlace", "expert")
    met = world.run_to_the_end()
    assert world.succeeded
    assert met[-SUCCESS_STEPS:].all()
    assert not met[:-SUCCESS_STEPS].any()
    assert (np.diff(world.rewards[-30:]) > -0.005).all(), "letting go lowers no reward"
    assert world.greatest_fall() < 0.1, "milestones stay reached on the way to success"


@pytest.mark.parametrize("distance", [0.0, 0.09])
def test_lying_on_the_plate_is_placed(stage, distance):
    world = stage("PickPlace")
    world.put(block=beside_center(world, distance))
    assert world.run(SUCCESS_STEPS - 1).all()
    assert not world.succeeded
    assert world.run(1).all()
    assert world.succeeded
    assert world.core.terminated[0]


ON_ITS_EDGE = Rotation.from_euler("x", 45, degrees=True)
ON_ITS_SHORT_EDGE = Rotation.from_euler("y", np.degrees(np.arctan2(HALF_SIZE[0], HALF_SIZE[2])), degrees=True)


@pytest.mark.parametrize(
    ("turn", "height"),
    [(ON_ITS_EDGE, np.sqrt(2) * HALF_SIZE[2]), (ON_ITS_SHORT_EDGE, np.hypot(HALF_SIZE[0], HALF_SIZE[2]))],
    ids=["long edge", "short edge"],
)
def test_balanced_on_an_edge_is_not_placed(stage, turn, height):
    world = stage("PickPlace")
    on_edge = beside_center(world, 0.0, PLATE_HEIGHT + height)
    world.put(block=np.concatenate([on_edge[:3], turn.as_quat()]))
    assert not world.run(5).any()
    assert world.touching("plate") and not world.touching("table")


@pytest.mark.parametrize(("axis", "degrees"), [("x", 90), ("x", 180), ("y", 90), ("z", 60)])
def test_the_block_may_lie_on_any_face(stage, axis, degrees):
    world = stage("PickPlace")
    height = HALF_SIZE[0] if axis == "y" else HALF_SIZE[2]
    flat = beside_center(world, 0.0, PLATE_HEIGHT + height)
    turn = Rotation.from_euler(axis, degrees, degrees=True).as_quat()
    world.put(block=np.concatenate([flat[:3], turn]))
    assert world.run(SUCCESS_STEPS).all()
    assert world.succeeded


def test_held_above_the_plate_is_not_placed(stopped):
    world = stopped("PickPlace", is_above_the_plate, stay)
    assert not world.run(40).any()
    assert not world.touching("plate")


def test_held_on_the_plate_is_not_placed(stopped):
    world = stopped("PickPlace", is_on_the_plate_in_the_hand, stay)
    assert not world.run(40).any()
    assert world.touching("plate")
    assert world.touching("hand")


def test_lying_beside_the_plate_is_not_placed(stage):
    world = stage("PickPlace")
    world.put(block=beside_center(world, PLATE_RADIUS + HALF_SIZE[0] + 0.001, z=HALF_SIZE[2]))
    assert not world.run(20).any()


def test_leaning_on_plate_and_table_is_not_placed(stage):
    world = stage("PickPlace")
    x, y = world.state.poses["plate"][0, :2]
    leaning = Rotation.from_euler("y", 10, degrees=True).as_quat()
    world.put(block=np.array([x + PLATE_RADIUS + 0.005, y, 0.03, *leaning]))
    assert not world.run(20).any()
    assert world.touching("plate")
    assert world.touching("table")


def test_sliding_over_the_plate_is_not_placed(stage):
    world = stage("PickPlace")
    world.put(velocity=0.8, block=beside_center(world, -0.06))
    met = world.run(20)
    assert not met[0]
    assert met[-1]
    assert abs(world.state.poses["block"][0, 0] - world.state.poses["plate"][0, 0]) < PLATE_RADIUS


def test_success_must_hold_without_a_break(stage):
    world = stage("PickPlace")
    on, off = beside_center(world, 0.0), beside_center(world, 0.2, z=HALF_SIZE[2])
    for _ in range(3):
        world.put(block=on)
        assert world.run(SUCCESS_STEPS - 1).all()
        world.put(block=off)
        assert not world.run(1).any()
        assert not world.succeeded
    world.put(block=on)
    world.run(SUCCESS_STEPS)
    assert world.succeeded


def flickering(state: Snapshot) -> list[Waypoint]:
    """Let go, touch the block with a finger, close the hand again, and so on."""
    here = state.target[:7]
    side = np.concatenate([0.025 * rotate(here[3:], np.array([0.0, 1.0, 0.0])), np.zeros(4)])
    cycle = (
        Waypoint(here, False, wait=1),
        Waypoint(here + side, False, speed=0.01),
        Waypoint(here, True, wait=10),
    )
    return [leg for _ in range(20) for leg in cycle]


@pytest.mark.parametrize("then", [stay, flickering])
def test_finishing_pays_more(stopped, expert_beats, then):
    world = stopped("PickPlace", is_on_the_plate_in_the_hand, then)
    met = world.run_to_the_end()
    made = int(np.sum(np.diff(met.astype(int)) == 1))
    assert made == 0 if then is stay else made >= 5
    assert max(world.rewards[:-1]) > -0.25
    expert_beats(world, margin=0.3)
