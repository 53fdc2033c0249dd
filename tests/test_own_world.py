"""A simulation of one's own in place of MuJoCo's: a test double whose arm is where it was told to be."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import pytest

import oc_residual_gym  # noqa: F401 (registers the environments)
from oc_residual_gym.errors import RenderError
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS, MAX_OPENING
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.states import Array, BoolArray, IntArray, RobotState, TrueState
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import InitialState, Task
from oc_residual_gym.worlds.base import RealCell, Simulation
from oc_residual_gym.worlds.domains import EpisodePhysics

HOME = forward_kinematics(HOME_JOINT_POSITIONS)


class GhostWorld:
    """N worlds without forces: the arm is at its target at once, and a closed hand carries the block along."""

    speed = 1.0

    def __init__(self, task: Task, num_worlds: int):
        n = num_worlds
        self.task, self.num_worlds = task, n
        self.stopped: BoolArray = np.zeros(n, bool)
        self.peak_contact_force: Array = np.zeros(n)
        self.robot = RobotState(
            joint_positions=np.tile(HOME_JOINT_POSITIONS, (n, 1)),
            joint_velocities=np.zeros((n, 7)),
            tcp_pose=np.tile(HOME, (n, 1)),
            tcp_velocity=np.zeros((n, 6)),
            gripper_width=np.full(n, MAX_OPENING),
            wrench=np.zeros((n, 6)),
        )
        self._touch = np.zeros(n, bool)
        self.true = TrueState(
            poses={"block": np.zeros((n, 7))},
            velocities={"block": np.zeros((n, 6))},
            contacts={"left": self._touch, "right": self._touch},
            slides={},
            parameters={},
            table_height=np.zeros(n),
            tcp_pose=self.robot.tcp_pose,
            gripper_width=self.robot.gripper_width,
        )

    @property
    def critic_state(self) -> Array:
        return np.concatenate([self.true.poses["block"], self._touch[:, None]], axis=1)

    def reset(self, worlds: IntArray, starts: Sequence[InitialState], physics: Sequence[EpisodePhysics]) -> None:
        self.robot.tcp_pose[worlds] = HOME
        self.robot.gripper_width[worlds] = MAX_OPENING
        self._touch[worlds] = False
        self.true.poses["block"][worlds] = [start.poses["block"] for start in starts]

    def step(self, targets: Array, worlds: IntArray | None = None) -> None:
        block, tcp = self.true.poses["block"], self.robot.tcp_pose
        for n in range(self.num_worlds) if worlds is None else worlds:
            closed = targets[n, 7] < 0.5
            self._touch[n] = closed and np.linalg.norm(block[n, :3] - tcp[n, :3]) < 0.02
            if self._touch[n]:
                block[n, :3] += targets[n, :3] - tcp[n, :3]
            tcp[n] = targets[n, :7]
            self.robot.gripper_width[n] = 0.04 if closed else MAX_OPENING

    def stop_reason(self, world: int) -> str:
        return ""

    def image(self, world: int, camera: str) -> np.ndarray:
        raise RenderError("ghosts cannot be seen")

    def render(self, world: int, camera: str, size: tuple[int, int], visuals: str = "light") -> np.ndarray:
        raise RenderError("ghosts cannot be seen")

    def close(self) -> None:
        pass


def test_it_is_a_simulation_and_not_a_real_cell() -> None:
    world = GhostWorld(TASKS["Lift"], 1)
    assert isinstance(world, Simulation) and not isinstance(world, RealCell)


def test_the_expert_lifts_a_ghostly_block() -> None:
    env = gym.make("OCResidual-Lift-v0", base_policy="expert", world=GhostWorld(TASKS["Lift"], 1), split="val")
    _, info = env.reset(seed=0)
    assert info["critic_state"].shape == (8,)
    for _ in range(300):
        _, _, terminated, truncated, info = env.step(np.zeros(7, np.float32))
        if terminated or truncated:
            break
    assert terminated and info["is_success"]


def test_many_of_them_run_in_the_vector_environment() -> None:
    world = GhostWorld(TASKS["Lift"], 3)
    envs = gym.make_vec("OCResidual-Lift-v0", num_envs=3, base_policy="hold", world=world)
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    _, rewards, *_ = envs.step(np.zeros((3, 7), np.float32))
    assert ((rewards >= -1.0) & (rewards <= 0.0)).all()


@pytest.mark.parametrize(
    ("name", "count", "message"), [("Stack", 1, "set up for Lift"), ("Lift", 2, "N = 1, and 2 were asked for")]
)
def test_a_world_of_something_else_is_refused(name: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make_vec(f"OCResidual-{name}-v0", num_envs=count, base_policy="hold", world=GhostWorld(TASKS["Lift"], 1))


def test_a_world_that_lacks_something_is_told_what() -> None:
    world = GhostWorld(TASKS["Lift"], 1)
    del world.peak_contact_force
    with pytest.raises(ValueError, match="GhostWorld is not a world, because it has no peak_contact_force"):
        gym.make("OCResidual-Lift-v0", base_policy="hold", world=world)
