"""Stack: what counts as stacked, what does not, and that finishing pays."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.geometry import rotate
from oc_residual_gym.tasks.base import SUCCESS_STEPS, Snapshot, Waypoint, pose
from oc_residual_gym.tasks.moves import is_holding
from oc_residual_gym.tasks.stack import HALF

GREEN = pose(0.5, 0.1, HALF)


def from_green(x: float, y: float, z: float) -> np.ndarray:
    return pose(GREEN[0] + x, GREEN[1] + y, GREEN[2] + z)


STACKED = from_green(0.0, 0.0, 2 * HALF)
BESIDE = from_green(2 * HALF + 0.0005, 0.0, 0.0)


def is_stacked_in_the_hand(state: Snapshot) -> bool:
    return is_holding(state) and state.contacts["green"]


def stay(state: Snapshot) -> list[Waypoint]:
    return [Waypoint(state.target[:7], True)]


def test_the_expert_stacks_the_cubes(stage):
    world = stage("Stack", "expert")
    met = world.run_to_the_end()
    assert world.succeeded
    assert met[-SUCCESS_STEPS:].all()
    assert not met[:-SUCCESS_STEPS].any()
    assert (np.diff(world.rewards[-30:]) > -0.005).all(), "letting go lowers no reward"
    assert world.greatest_fall() < 0.1, "milestones stay reached on the way to success"


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.018, 0.0), (-0.012, 0.012)])
def test_standing_on_the_green_cube_is_stacked(stage, offset):
    world = stage("Stack")
    world.put(green=GREEN, white=from_green(*offset, 2 * HALF))
    assert world.run(SUCCESS_STEPS - 1).all()
    assert not world.succeeded
    assert world.run(1).all()
    assert world.succeeded
    assert world.core.terminated[0]


def test_held_on_the_green_cube_is_not_stacked(stopped):
    world = stopped("Stack", is_stacked_in_the_hand, stay)
    assert not world.run(40).any()
    assert world.touching("green")
    assert world.touching("hand")


def test_standing_beside_the_green_cube_is_not_stacked(stage):
    world = stage("Stack")
    world.put(green=GREEN, white=BESIDE)
    assert not world.run(20).any()


def test_a_cube_stacked_far_off_the_middle_is_not_stacked(stage):
    world = stage("Stack")
    # On the diagonal, where the white cube's centre is still above the green cube.
    far = 0.025 / np.sqrt(2)
    world.put(green=GREEN, white=from_green(far, far, 2 * HALF))
    assert not world.run(20).any()
    assert world.touching("green")
    assert not world.touching("table")


def test_leaning_on_green_cube_and_table_is_not_stacked(stage):
    world = stage("Stack")
    leaning = Rotation.from_euler("y", -30, degrees=True).as_quat()
    world.put(green=GREEN, white=np.concatenate([from_green(2 * HALF + 0.008, 0.0, 0.008)[:3], leaning]))
    assert not world.run(20).any()
    assert world.touching("table")


def turned(position: np.ndarray, axis: str | list[float], degrees: float) -> np.ndarray:
    if isinstance(axis, str):
        rotation = Rotation.from_euler(axis, degrees, degrees=True)
    else:
        rotation = Rotation.from_rotvec(np.radians(degrees) * np.array(axis) / np.linalg.norm(axis))
    return np.concatenate([position[:3], rotation.as_quat()])


ON_ITS_EDGE = turned(from_green(0.0, 0.0, HALF + np.sqrt(2) * HALF), "x", 45)
ON_ITS_CORNER = turned(from_green(0.0, 0.0, HALF + np.sqrt(3) * HALF), [1.0, -1.0, 0.0], 54.7356)
FLOOR = np.array([0.7, 0.0, -0.8])
"""Beyond the table's edge, with its top at z = 0, from ``GREEN``'s place on it to the floor."""


@pytest.mark.parametrize(
    ("white", "green"),
    [
        (ON_ITS_EDGE, GREEN),
        (ON_ITS_CORNER, GREEN),
        (pose(0.5, 0.1, 2 * np.sqrt(2) * HALF + HALF), turned(np.array([0.5, 0.1, np.sqrt(2) * HALF]), "y", 45)),
        (pose(*(STACKED[:3] + FLOOR)), pose(*(GREEN[:3] + FLOOR))),
    ],
    ids=["white on an edge", "white on a corner", "green on an edge", "on the floor"],
)
def test_balanced_or_off_the_table_is_not_stacked(stage, white, green):
    world = stage("Stack")
    world.put(white=white, green=green)
    assert not world.run(SUCCESS_STEPS + 5).any()
    assert world.touching("green"), "nothing has fallen over"


@pytest.mark.parametrize("turn", [("x", 90), ("y", -90), ("x", 180), ("z", 30)])
def test_cubes_may_lie_on_any_face(stage, turn):
    world = stage("Stack")
    world.put(green=turned(GREEN, *turn), white=turned(STACKED, *turn))
    assert world.run(SUCCESS_STEPS).all()
    assert world.succeeded


def test_white_below_green_is_not_stacked(stage):
    world = stage("Stack")
    world.put(white=GREEN, green=STACKED)
    assert not world.run(20).any()
    assert world.touching("green")


def test_a_moving_stack_is_not_stacked(stage):
    world = stage("Stack")
    world.put(velocity=0.8, green=GREEN, white=STACKED)
    assert not world.run(1).any()


def test_success_must_hold_without_a_break(stage):
    world = stage("Stack")
    for _ in range(3):
        world.put(green=GREEN, white=STACKED)
        assert world.run(SUCCESS_STEPS - 1).all()
        world.put(white=BESIDE)
        assert not world.run(1).any()
        assert not world.succeeded
    world.put(green=GREEN, white=STACKED)
    world.run(SUCCESS_STEPS)
    assert world.succeeded


def flickering(state: Snapshot) -> list[Waypoint]:
    """Let go, touch the cube with a finger, close the hand again, and so on."""
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
    world = stopped("Stack", is_stacked_in_the_hand, then)
    met = world.run_to_the_end()
    made = int(np.sum(np.diff(met.astype(int)) == 1))
    assert made == 0 if then is stay else made >= 5
    assert max(world.rewards[:-1]) > -0.25
    expert_beats(world, margin=0.3)
