"""What every World does, simulated or real: one suite for both, the real one through its client on the rig."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

from cells import simulated_cell

from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.real.session import open_cell
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS, MAX_OPENING
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.base import World
from oc_residual_gym.worlds.domains import EpisodePhysics
from oc_residual_gym.worlds.sim import SimWorld

ONE = np.zeros(1, np.int64)


@pytest.fixture(scope="module", params=["simulation", pytest.param("robot", marks=pytest.mark.rig)])
def connected(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "simulation":
        world = SimWorld(TASKS["Lift"], 1)
        yield world
        world.close()
    else:
        with simulated_cell() as (_, cell), open_cell(cell, "Lift") as robot:
            yield robot


@pytest.fixture
def world(connected: World) -> World:
    connected.reset(ONE, [start_of(TASKS["Lift"], "val", 0)], [EpisodePhysics()])
    return connected


def held(world: World, opening: float = 1.0) -> np.ndarray:
    return np.concatenate([world.robot.tcp_pose[0], [opening]])[None]


def test_an_episode_starts_at_home_with_an_open_hand(world: World) -> None:
    robot = world.robot
    np.testing.assert_allclose(robot.joint_positions[0], HOME_JOINT_POSITIONS, atol=0.02)
    np.testing.assert_allclose(robot.joint_velocities[0], 0.0, atol=0.02)
    assert robot.gripper_width[0] == pytest.approx(MAX_OPENING, abs=0.002)
    assert not world.stopped[0] and world.stop_reason(0) == ""


def test_the_tcp_is_where_the_joints_put_it(world: World) -> None:
    ours, theirs = forward_kinematics(world.robot.joint_positions[0]), world.robot.tcp_pose[0]
    np.testing.assert_allclose(theirs[:3], ours[:3], atol=0.001)
    assert abs(ours[3:] @ theirs[3:]) > 1.0 - 1e-5


@pytest.mark.parametrize("axis", range(3))
def test_targets_are_tracked(world: World, axis: int) -> None:
    """50 mm in steps of 5 mm, and a second to settle."""
    target, start = held(world), world.robot.tcp_pose[0].copy()
    for _ in range(10):
        target[0, axis] += 0.005
        world.step(target)
    for _ in range(20):
        world.step(target)
    moved = world.robot.tcp_pose[0, :3] - start[:3]
    np.testing.assert_allclose(moved, 0.05 * np.eye(3)[axis], atol=0.004)
    assert not world.stopped[0]


def test_velocities_add_up_to_the_motion(world: World) -> None:
    target, start = held(world), world.robot.tcp_pose[0].copy()
    velocities = []
    for step in range(30):
        target[0, 1] += 0.005 if step < 20 else 0.0
        world.step(target)
        velocities.append(world.robot.tcp_velocity[0].copy())
    moved = world.robot.tcp_pose[0, :3] - start[:3]
    assert moved[1] > 0.08
    np.testing.assert_allclose(np.sum(velocities, axis=0)[:3] / 20.0, moved, atol=0.015)
    np.testing.assert_allclose(np.mean(velocities, axis=0)[3:], 0.0, atol=0.03)


def test_the_hand_closes_and_opens(world: World) -> None:
    target, steps = held(world, 0.0), 40 if isinstance(world, SimWorld) else 200  # a busy machine slows a rig down
    for opening, width in ((0.0, 0.0), (1.0, MAX_OPENING)):
        target[0, 7] = opening
        for _ in range(steps):
            world.step(target)
            if abs(world.robot.gripper_width[0] - width) < 0.001:
                break
        assert world.robot.gripper_width[0] == pytest.approx(width, abs=0.002)


def test_free_space_pushes_on_nothing(world: World) -> None:
    for _ in range(5):
        world.step(held(world))
    assert np.linalg.norm(world.robot.wrench[0, :3]) < 3.0
    assert np.isfinite(world.robot.wrench).all()
