"""SimWorld: honest physics, soft resets, domains, and what happens when physics fails."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.domains import DOMAINS, Domain, EpisodePhysics, domain_of
from oc_residual_gym.worlds.sim import SUBSTEPS, SimWorld


def hold(worlds: ResidualWorlds, steps: int) -> None:
    for _ in range(steps):
        worlds.step(np.zeros((worlds.num_worlds, 7)))


def test_impedance_tracks_a_rate_limited_turn_and_a_move(task):
    worlds = ResidualWorlds(task, 1, base_policy="hold", errors="clean")
    worlds.reset(np.array([0]), [0])
    for _ in range(20):
        worlds.step(np.array([[0.0, 0.5, 0.5, 0.0, 0.0, 0.3, 0.0]]))
    hold(worlds, 40)
    np.testing.assert_allclose(worlds.world.robot.tcp_pose[0, :3], worlds.executed_target[0, :3], atol=1e-3)
    cosine = abs(worlds.world.robot.tcp_pose[0, 3:] @ worlds.executed_target[0, 3:7])
    assert 2 * np.arccos(min(cosine, 1.0)) < 0.01


def test_posture_torque_keeps_the_elbow_without_moving_the_tcp():
    """Laps with the TCP end in the joint positions they began with."""
    worlds = ResidualWorlds("Lift", 1, base_policy="hold", errors="clean")
    worlds.reset(np.array([0]), [0])
    start = worlds.world.robot.joint_positions[0].copy()
    for angle in np.linspace(0, 4 * np.pi, 240):
        worlds.step(np.array([[0.3 * np.cos(angle), 0.3 * np.sin(angle), 0, 0, 0, 0, 0]]))
    for _ in range(80):
        back = np.array([0.42, 0.0, 0.28]) - worlds.executed_target[0, :3]
        worlds.step(np.concatenate([np.clip(back / 0.02, -1, 1), np.zeros(4)])[None])
    np.testing.assert_allclose(worlds.world.robot.joint_positions[0], start, atol=0.02)


def test_wrench_estimate_feels_what_the_hand_presses_on():
    """Pushing down on the table shows as an upward force on the hand, and as contact force."""
    worlds = ResidualWorlds("Lift", 1, base_policy="hold", errors="clean")
    worlds.reset(np.array([0]), [0])
    assert np.abs(worlds.world.robot.wrench).max() == 0.0
    for _ in range(80):
        slow = 1.0 if worlds.world.robot.tcp_pose[0, 2] > 0.05 else 0.1
        worlds.step(np.array([[0, 0, -slow, 0, 0, 0, -1.0]]))
    force = worlds.world.robot.wrench[0, :3]
    assert force[2] > 5.0 and abs(force[0]) < 5.0
    assert worlds.world.peak_contact_force[0] >= force[2] - 1e-6


def test_gripper_moves_at_a_tenth_of_a_metre_a_second():
    worlds = ResidualWorlds("Lift", 1, base_policy="hold", errors="clean")
    worlds.reset(np.array([0]), [0])
    widths = []
    for _ in range(20):
        worlds.step(np.array([[0, 0, 0, 0, 0, 0, -1.0]]))
        widths.append(float(worlds.world.robot.gripper_width[0]))
    speed = -np.diff(widths)[4:10].mean() * 20
    assert speed == pytest.approx(0.1, rel=0.05)
    assert widths[-1] < 0.001


def test_a_domain_of_ones_own_is_drawn_from_its_ranges() -> None:
    rng = np.random.default_rng(0)
    domain = Domain(friction=(1.2, 1.4), latency=(0, 3), hand_eye=(0.0, 0.1), inference_pause=(1, 2))
    assert not domain.is_nominal and not domain.is_calibrated
    drawn = [domain.sample(rng) for _ in range(200)]
    assert all(1.2 <= d.friction <= 1.4 and d.stiffness == d.drawer == 1.0 and d.payload == 0.0 for d in drawn)
    assert {d.latency for d in drawn} == {0, 1, 2, 3} and {d.inference_pause for d in drawn} == {1, 2}
    assert not np.any([d.hand_eye_position for d in drawn])
    assert np.std([d.hand_eye_rotation for d in drawn]) == pytest.approx(0.1, rel=0.1)


def test_a_domain_without_ranges_is_nominal() -> None:
    rng = np.random.default_rng(0)
    assert Domain().is_nominal and Domain().is_calibrated and not DOMAINS["twin"].is_nominal
    assert domain_of(Domain(latency=(0, 0))) == DOMAINS["nominal"] == domain_of("nominal")
    assert Domain().sample(rng).friction == 1.0
    assert rng.random() == np.random.default_rng(0).random()  # nothing was drawn


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"friction": (1.3, 0.7)}, "friction of a domain goes from 1.3 to 0.7: lesser value first"),
        ({"object_mass": (-1.0, 1.0)}, "object_mass of a domain is .*: it cannot be negative"),
        ({"camera": (0.1, -0.1)}, "camera of a domain is .*: it cannot be negative"),
    ],
)
def test_a_domain_that_cannot_be_drawn_from_is_refused(wrong: dict, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Domain(**wrong)


def test_twin_ranges_are_those_of_the_design():
    rng = np.random.default_rng(0)
    drawn = [DOMAINS["twin"].sample(rng) for _ in range(2000)]
    ranges = {
        "friction": (0.7, 1.3),
        "object_mass": (0.7, 1.5),
        "stiffness": (0.8, 1.2),
        "gripper_force": (0.7, 1.2),
        "gripper_speed": (0.7, 1.2),
        "payload": (-0.15, 0.15),
        "table_height": (-0.002, 0.002),
        "drawer": (0.6, 1.6),
    }
    for name, (low, high) in ranges.items():
        values = [getattr(d, name) for d in drawn]
        span = high - low
        assert low <= min(values) < low + 0.02 * span and high - 0.02 * span < max(values) <= high, name
    assert {d.latency for d in drawn} == {1, 2}
    assert {d.inference_pause for d in drawn} == {3}
    assert np.std([d.tcp_offset for d in drawn]) == pytest.approx(0.001, rel=0.05)
    assert np.std([d.hand_eye_position for d in drawn]) == pytest.approx(0.003, rel=0.05)


def settled(**physics) -> SimWorld:
    """A world of Lift after holding still at home for 1.5 s under these physics."""
    world = SimWorld(TASKS["Lift"], 1, domain=DOMAINS["twin"])
    world.reset(np.array([0]), [TASKS["Lift"].reset(np.random.default_rng(0))], [EpisodePhysics(**physics)])
    for _ in range(30):
        world.step(np.array([[0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0, 1.0]]))
    return world


def test_a_heavier_hand_sags_by_its_weight_over_the_stiffness():
    for payload, stiffness in ((0.15, 1.0), (-0.15, 1.0), (0.15, 0.8)):
        sag = 0.28 - settled(payload=payload, stiffness=stiffness).robot.tcp_pose[0, 2]
        assert sag == pytest.approx(payload * 9.81 / (800 * stiffness), rel=0.03)


def test_table_height_moves_everything_on_it(task):
    world = SimWorld(TASKS[task], 2, domain=DOMAINS["twin"])
    start = TASKS[task].reset(np.random.default_rng(0))
    world.reset(np.arange(2), [start, start], [EpisodePhysics(), EpisodePhysics(table_height=-0.002)])
    for name, poses in world.true.poses.items():
        assert poses[1, 2] - poses[0, 2] == pytest.approx(-0.002, abs=1e-9), name
    assert world.true.table_height.tolist() == [0.0, -0.002]


def test_tcp_offset_is_felt_by_the_fingers_not_by_the_robot():
    """The robot brings what it takes for its TCP to the target: its fingers are off by the offset."""
    offset = np.array([0.002, -0.001, 0.003])
    world, plain = settled(tcp_offset=offset), settled()
    np.testing.assert_allclose(world.robot.tcp_pose[0, :3], [0.42, 0.0, 0.28], atol=2e-4)
    shift = world._joint_anchors[0, 6] - plain._joint_anchors[0, 6]
    # The tool points down: its y and z axes are the base frame's, reversed.
    np.testing.assert_allclose(shift, -offset * [1, -1, -1], atol=3e-4)


def test_wrench_bias_and_gripper_speed():
    bias = np.array([1.0, -2.0, 0.5, 0.1, 0.0, -0.1])
    np.testing.assert_allclose(settled(wrench_bias=bias).robot.wrench[0], bias, atol=1e-9)
    world = settled(gripper_speed=0.7)
    widths = []
    for _ in range(10):
        world.step(np.array([[0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0, 0.0]]))
        widths.append(float(world.robot.gripper_width[0]))
    assert -np.diff(widths)[4:].mean() * 20 == pytest.approx(0.07, rel=0.05)


def test_hand_eye_offset_is_common_to_all_observed_objects():
    worlds = ResidualWorlds("Stack", 1, base_policy="hold", domain="twin", errors="clean")
    worlds.reset(np.array([0]), [0])
    physics = worlds.world.physics[0]
    turn = Rotation.from_rotvec(physics.hand_eye_rotation)
    for i, described in enumerate(worlds.task.objects):
        true = worlds.world.true.poses[described.name][0]
        expected = turn.apply(true[:3]) + physics.hand_eye_position
        np.testing.assert_allclose(worlds.filter.poses[0, i, :3], expected, atol=1e-9)


def test_latency_delays_the_motion():
    def first_motion(latency):
        world = SimWorld(TASKS["Lift"], 1, domain=DOMAINS["twin"])
        start = TASKS["Lift"].reset(np.random.default_rng(0))
        world.reset(np.array([0]), [start], [EpisodePhysics(latency=latency)])
        target = np.concatenate([world.robot.tcp_pose, [[1.0]]], axis=1)
        begin = world.robot.tcp_pose[0, 2]
        for step in range(10):
            target[0, 2] += 0.01
            world.step(target)
            if world.robot.tcp_pose[0, 2] > begin + 1e-4:
                return step
        return None

    assert [first_motion(k) for k in (0, 1, 2)] == [0, 1, 2]


def test_control_step_equals_a_plain_mj_step_loop(task):
    """The threaded rollout is nothing but 25 plain steps of MuJoCo, warm start zeroed at each control step."""
    from oc_residual_gym.worlds.sim import _CONTROL

    worlds = ResidualWorlds(task, 3, base_policy="hold", errors="clean")
    worlds.reset(np.arange(3), [0, 1, 2])
    model = worlds.world.scene.model
    full = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(10):
        before = worlds.world._state[1].copy()
        worlds.step(rng.uniform(-1, 1, (3, 7)))
        mujoco.mj_setState(model, data, before, full)
        data.qacc_warmstart[:] = 0
        for substep in range(SUBSTEPS):
            mujoco.mj_setState(model, data, worlds.world._control[1, substep], _CONTROL)
            mujoco.mj_step(model, data)
        after = np.empty(len(before))
        mujoco.mj_getState(model, data, after, full)
        np.testing.assert_array_equal(after, worlds.world._state[1])


def test_diverged_physics_truncates_that_world_only(task):
    worlds = ResidualWorlds(task, 3, base_policy="hold", errors="paper")
    reference = ResidualWorlds(task, 3, base_policy="hold", errors="paper")
    for w in (worlds, reference):
        w.reset(np.arange(3), [0, 1, 2])
        hold(w, 3)
    worlds.world._state[1, 1 + worlds.world.scene.arm_qpos[3]] = np.nan
    hold(worlds, 1)
    hold(reference, 1)
    assert worlds.truncated.tolist() == [False, True, False]
    assert worlds.failure == [None, "diverged", None]
    assert not worlds.terminated.any() and np.isfinite(worlds.observation).all()
    np.testing.assert_array_equal(worlds.observation[[0, 2]], reference.observation[[0, 2]])
    worlds.reset(np.array([1]), [1])
    reference.reset(np.array([1]), [1])
    hold(worlds, 2)
    hold(reference, 2)
    np.testing.assert_array_equal(worlds.observation, reference.observation)
