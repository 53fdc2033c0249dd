"""The robot's reflex: simulated episodes end where a real FR3 would stop itself, at the thresholds of a cell's file."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.real.arm import arm_settings
from oc_residual_gym.real.cell import Cell, Poses, Robot, load_cell
from oc_residual_gym.real.rig_models import scene_data
from oc_residual_gym.robots.reflex import WRENCH_FILTER, Reflex
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import SUCCESS_STEPS
from oc_residual_gym.testing.stages import stage  # noqa: F401 (fixture)
from oc_residual_gym.worlds.domains import DOMAINS, Domain, EpisodePhysics
from oc_residual_gym.worlds.sim import SimWorld

NONE = Reflex(math.inf, math.inf, math.inf)
SLAM = np.array([0, 0, -1.0, 0, 0, 0, -1.0])
"""Down at the rate limit, 0.2 m/s, with the hand closing."""


def at_home(worlds: int = 1, **options) -> ResidualWorlds:
    core = ResidualWorlds("Lift", worlds, base_policy="hold", errors="clean", split="val", **options)
    core.reset(np.arange(worlds), list(range(worlds)))
    return core


def press(core: ResidualWorlds, steps: int = 100) -> float:
    """Come down fast, touch the table gently and lean on it. Returns the last force upwards."""
    for _ in range(steps):
        slow = 1.0 if core.world.robot.tcp_pose[0, 2] > 0.05 else 0.1
        core.step(np.array([[0, 0, -slow, 0, 0, 0, -1.0]]))
        if core.truncated[0]:
            break
    return float(core.world.robot.wrench[0, 2])


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_a_hand_slammed_on_the_table_ends_the_episode_of_that_world_only(domain):
    core, quiet = at_home(3, domain=domain), at_home(3, domain=domain)
    actions = np.zeros((3, 7))
    actions[1] = SLAM
    for _ in range(60):
        core.step(actions)
        quiet.step(np.zeros((3, 7)))
        if core.truncated.any():
            break
    assert core.truncated.tolist() == [False, True, False]
    assert core.failure == [None, "robot_reflex", None]
    assert not core.terminated.any()
    assert core.world.peak_contact_force[1] > Reflex.force_threshold
    np.testing.assert_array_equal(core.observation[[0, 2]], quiet.observation[[0, 2]])


def test_the_arm_stays_still_until_the_next_reset_and_one_world_equals_three():
    alone, three = at_home(), at_home(3)
    for core in (alone, three):
        while not core.truncated[0]:
            core.step(np.tile(SLAM, (core.num_worlds, 1)))
    assert alone.steps[0] == three.steps[0]
    np.testing.assert_array_equal(alone.observation[0], three.observation[0])
    before = alone.simulation.critic_state, alone.world.robot.joint_positions.copy()
    alone.step(-SLAM[None])
    np.testing.assert_array_equal(alone.simulation.critic_state, before[0])
    np.testing.assert_array_equal(alone.world.robot.joint_positions, before[1])
    assert alone.failure == ["robot_reflex"]
    alone.reset(np.arange(1), [0])
    np.testing.assert_array_equal(alone.observation, at_home().observation)
    alone.step(np.zeros((1, 7)))
    assert not alone.truncated[0]


def test_leaning_on_the_table_does_not_stop_the_arm():
    core = at_home()
    force = press(core)
    assert 10.0 < force < Reflex.force_threshold
    assert not core.truncated[0]


def test_thresholds_of_ones_own():
    gentle = at_home(domain=Domain(reflex=Reflex(force_threshold=10)))
    press(gentle)
    assert gentle.failure == ["robot_reflex"]
    off = at_home(domain=Domain(reflex=NONE))
    for _ in range(60):
        off.step(SLAM[None])
    assert not off.truncated[0]
    with pytest.raises(SettingsError, match=r"torque_threshold of a reflex is 0\.0: give more than 0"):
        Reflex(torque_threshold=0.0)


def test_joint_torques_are_those_of_the_contact_force_on_the_tcp():
    core = at_home(domain=Domain(reflex=NONE))
    press(core)
    world = core.mujoco
    model, data = world.scene.model, mujoco.MjData(world.scene.model)
    data.qpos[:] = world.physics_state(0)[0]
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    position, rotation = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, position, rotation, model.site("gripper0_right_tcp").id)
    torques = np.vstack([position, rotation])[:, world.scene.arm_qpos].T @ world.robot.wrench[0]
    largest = float(np.abs(torques[:4]).max())
    assert largest > 3.0
    for threshold, stops in ((0.95 * largest, True), (1.1 * largest, False)):
        core = at_home(domain=Domain(reflex=Reflex(math.inf, threshold, math.inf)))
        press(core)
        assert bool(core.truncated[0]) is stops


def test_the_robot_feels_an_error_of_its_payload_that_the_tared_reading_does_not_show():
    def held(payload: float) -> SimWorld:
        world = SimWorld(TASKS["Lift"], 1, domain=Domain(payload=(-0.15, 0.15), reflex=Reflex(force_threshold=1.2)))
        world.reset(np.arange(1), [TASKS["Lift"].reset(np.random.default_rng(0))], [EpisodePhysics(payload=payload)])
        world.step(np.array([[0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0, 1.0]]))
        return world

    assert held(0.15).stop_reason(0) == "robot_reflex"  # 1.47 N
    assert held(0.1).stop_reason(0) == ""  # 0.98 N
    assert not held(0.1).robot.wrench.any()


def test_success_at_the_step_of_a_reflex_does_not_count(stage):  # noqa: F811
    world = stage("CloseDrawer")
    core = world.core.mujoco
    name = f"cabinet_drawer{int(world.state.parameters['active'][0])}_slide"
    core._state[0, 1 + core.scene.model.joint(name).qposadr[0]] = 0.005
    assert world.run(SUCCESS_STEPS - 1).all()
    core._felt[0, 0] = 1.2 * Reflex.force_threshold
    assert world.run(1).all(), "the drawer is still closed"
    assert not world.succeeded
    assert world.core.truncated[0] and world.core.failure == ["robot_reflex"]
    assert world.rewards[-1] < 0.0


def test_simulation_cell_and_rig_share_their_numbers():
    example = load_cell(Path(__file__).parents[1] / "examples" / "cell.yaml").robot
    assert example.reflex == Robot("127.0.0.1").reflex == DOMAINS["nominal"].reflex == DOMAINS["twin"].reflex
    cell = Cell("test", Robot("127.0.0.1", force_threshold=40.0), Poses("tcp://127.0.0.1:1"))
    settings = arm_settings(cell)
    assert settings.force_thresholds == (40.0, 40.0, 40.0, 16.0, 16.0, 16.0)
    assert settings.torque_thresholds == (38.0, 38.0, 38.0, 38.0, 16.0, 16.0, 16.0)
    assert scene_data(None, None, False, "clean")["wrench_filter"] == WRENCH_FILTER
