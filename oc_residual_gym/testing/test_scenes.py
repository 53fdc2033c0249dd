"""Tests of every task's scene: only contact holds objects, episodes start at rest, and poses can set up an episode."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import RenderError
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.domains import DOMAINS, EpisodePhysics
from oc_residual_gym.worlds.opengl import gl_context
from oc_residual_gym.worlds.scene import build_scene
from oc_residual_gym.worlds.sim import SimWorld


def hold(worlds: ResidualWorlds, steps: int) -> None:
    for _ in range(steps):
        worlds.step(np.zeros((worlds.num_worlds, 7)))


@pytest.fixture
def needs_opengl() -> None:
    try:
        gl_context(8, 8).free()
    except RenderError as error:
        pytest.skip(str(error))


def test_nothing_but_contact_and_friction_holds_objects(task: str) -> None:
    model = build_scene(TASKS[task]).model
    # The only equality constraint couples the hand's two fingers.
    assert model.neq == 1 and model.eq_type[0] == mujoco.mjtEq.mjEQ_JOINT
    assert "finger" in model.joint(model.eq_obj1id[0]).name and "finger" in model.joint(model.eq_obj2id[0]).name
    touching = (model.geom_contype | model.geom_conaffinity) > 0
    assert model.geom_friction[touching, 0].max() <= 1.5
    # Only the controller's target and the objects bolted to the table are kinematic.
    mocap = {model.body(i).name for i in range(model.nbody) if model.body_mocapid[i] >= 0}
    assert mocap == {"target"} | {f"{s.name}_main" for s in TASKS[task].specs if s.fixed}
    movable = [s for s in TASKS[task].specs if not s.fixed]
    for spec in movable:
        body = model.body(f"{spec.name}_main")
        assert body.mass[0] == pytest.approx(spec.mass) and spec.mass > 0
        assert model.jnt_type[model.body_jntadr[body.id]] == mujoco.mjtJoint.mjJNT_FREE


def test_physics_models_are_small(task: str) -> None:
    """Models have no visual meshes or textures, because every world of a shifted domain gets a copy."""
    model = build_scene(TASKS[task]).model
    assert model.nmeshvert < 1000 and model.ntex == 0
    assert model.nbuffer < 1_000_000


def test_scenes_start_at_rest(task: str) -> None:
    worlds = ResidualWorlds(task, 20, base_policy="hold", errors="clean", split="val")
    worlds.reset(np.arange(20), list(range(20)))
    start = {k: v.copy() for k, v in worlds.simulation.true.poses.items()}
    hold(worlds, 20)
    for name, poses in worlds.simulation.true.poses.items():
        np.testing.assert_allclose(poses[:, :3], start[name][:, :3], atol=1e-3, err_msg=name)
    assert worlds.world.peak_contact_force.max() == 0.0
    np.testing.assert_allclose(worlds.world.robot.tcp_pose[:, :3], [[0.42, 0.0, 0.28]] * 20, atol=1e-3)


def test_no_contact_with_the_hand_at_any_reset(task: str) -> None:
    count = 250
    for split in ("val", "train"):
        worlds = ResidualWorlds(task, count, base_policy="hold", split=split)
        worlds.reset(np.arange(count), list(range(count)))
        hold(worlds, 1)
        assert worlds.world.peak_contact_force.max() == 0.0


def test_twin_changes_physics_per_episode_and_leaves_nothing_behind(task: str) -> None:
    world = SimWorld(TASKS[task], 2, domain=DOMAINS["twin"])
    nominal = world.scene.model
    start = TASKS[task].reset(np.random.default_rng(0))
    drawn = DOMAINS["twin"].sample(np.random.default_rng(1))
    world.reset(np.arange(2), [start, start], [drawn, EpisodePhysics()])
    shifted = world.models[0]
    assert shifted.geom_friction[:, 0].max() <= 1.5
    assert not np.array_equal(shifted.geom_friction, nominal.geom_friction)
    assert not np.array_equal(shifted.actuator_biasprm, nominal.actuator_biasprm)
    world.reset(np.array([0]), [start], [EpisodePhysics()])
    for model in world.models:
        for field in ("geom_friction", "body_mass", "body_inertia", "actuator_biasprm", "actuator_forcerange"):
            np.testing.assert_array_equal(getattr(model, field), getattr(nominal, field), err_msg=field)
        for field in ("dof_frictionloss", "dof_damping", "body_pos", "site_pos", "body_gravcomp"):
            np.testing.assert_array_equal(getattr(model, field), getattr(nominal, field), err_msg=field)


def test_a_start_can_be_given_by_the_observed_objects(task: str) -> None:
    """``start_at`` inverts ``object_poses``: the poses that a cell measures suffice to set up the same episode."""
    spec = TASKS[task]
    core = ResidualWorlds(task, 2, base_policy="hold", errors="clean", split="train")
    core.reset(np.array([0]), [7])
    poses = {o.name: p[0] for o, p in zip(spec.objects, spec.object_poses(core.simulation.true), strict=True)}
    core.reset(np.array([1]), [7], [spec.start_at(poses)])
    for pose in spec.object_poses(core.simulation.true):
        np.testing.assert_allclose(pose[1, :3], pose[0, :3], atol=1e-3)
        np.testing.assert_allclose(np.abs(pose[1, 3:] @ pose[0, 3:]), 1.0, atol=1e-4)
    core.close()


def test_rgb_array_is_a_picture_that_changes_with_the_scene(registered_id: str, needs_opengl: None) -> None:
    env: Any = gym.make(registered_id, render_mode="rgb_array", render_size=(120, 160))
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (120, 160, 3)
    assert first.dtype == np.uint8
    assert first.std() > 10
    np.testing.assert_array_equal(first, env.render())
    for _ in range(10):
        env.step(np.array([1.0, 0, 0, 0, 0, 0, 0]))
    assert np.abs(env.render().astype(int) - first).max() > 50
    env.reset(seed=1)
    env.reset(seed=0)
    np.testing.assert_array_equal(first, env.render())
