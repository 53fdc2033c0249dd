"""Tests of every task's environments, single and vectorised."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.tasks import TASKS, resolve_task

ERROR_MODELS = ("clean", "paper", "tracker")


def random_actions(steps: int, worlds: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, worlds, 7))


def rollout(env: gym.Env, seed: int, steps: int = 30) -> list:
    actions = random_actions(steps, 1)[:, 0]
    return [env.reset(seed=seed), *(env.step(action) for action in actions)]


def test_check_env_has_nothing_to_complain_about(registered_id: str) -> None:
    gym.make(registered_id).close()  # The warning about a missing base policy appears only once.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(registered_id).unwrapped, skip_render_check=True)
        check_env(gym.make(registered_id, obs_mode="dict").unwrapped, skip_render_check=True)


def test_spec_survives_json(registered_id: str) -> None:
    env: Any = gym.make(registered_id, errors="tracker", split="val", position_scale=0.01)
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.spec == env.spec
    assert data_equivalence(rollout(env, 3), rollout(again, 3))


def test_a_seed_determines_the_episode_exactly(registered_id: str) -> None:
    env: Any = gym.make(registered_id, domain="twin", errors="tracker")
    first = rollout(env, seed=7)
    rollout(env, seed=8)
    assert data_equivalence(first, rollout(env, seed=7))
    other = gym.make(registered_id, domain="twin", errors="tracker")
    assert data_equivalence(first, rollout(other, seed=7))
    assert not data_equivalence(first, rollout(env, seed=8))


def test_episodes_after_a_seeded_one_repeat_too(registered_id: str) -> None:
    def seeds(env: gym.Env) -> list[int]:
        env.reset(seed=5)
        return [env.reset()[1]["seed"] for _ in range(3)]

    env: Any = gym.make(registered_id)
    first = seeds(env)
    assert len(set(first)) == 3
    assert first == seeds(env)


def test_splits_have_different_start_states(registered_id: str) -> None:
    observations = [gym.make(registered_id, split=s, errors="clean").reset(seed=0)[0] for s in ("train", "val", "test")]
    assert not np.array_equal(observations[0], observations[1])
    assert not np.array_equal(observations[1], observations[2])


def test_pickled_env_behaves_the_same(registered_id: str) -> None:
    env: Any = gym.make(registered_id, errors="tracker")
    again = pickle.loads(pickle.dumps(env))
    assert data_equivalence(rollout(env, 4), rollout(again, 4))


@pytest.mark.parametrize("domain", ["nominal", "twin"])
@pytest.mark.parametrize("errors", ERROR_MODELS)
def test_a_world_does_not_depend_on_its_neighbours(task: str, errors: str, domain: str) -> None:
    """N = 1 and N = 64 give the same trajectory over 50 random steps, bit for bit."""
    steps, many, picked = 50, 64, 41
    actions = random_actions(steps, many)
    crowd = ResidualWorlds(task, many, errors=errors, domain=domain, base_policy="hold")
    alone = ResidualWorlds(task, 1, errors=errors, domain=domain, base_policy="hold")
    crowd.reset(np.arange(many), list(range(many)))
    alone.reset(np.array([0]), [picked])
    for action in actions:
        np.testing.assert_array_equal(alone.observation[0], crowd.observation[picked])
        crowd.step(action)
        alone.step(action[picked : picked + 1])
        assert alone.reward[0] == crowd.reward[picked]
    np.testing.assert_array_equal(alone.simulation.critic_state[0], crowd.simulation.critic_state[picked])
    np.testing.assert_array_equal(alone.executed_target[0], crowd.executed_target[picked])


def test_chunk_boundaries_are_each_worlds_own(task: str) -> None:
    """When a world restarts in the middle of a chunk, its neighbour keeps its own chunks and its own noise."""
    pair = ResidualWorlds(task, 2, base_policy="expert", errors="tracker", domain="twin")
    alone = ResidualWorlds(task, 1, base_policy="expert", errors="tracker", domain="twin")
    pair.reset(np.arange(2), [3, 4])
    alone.reset(np.array([0]), [3])
    zero = np.zeros((2, 7))
    for step in range(60):
        if step in (5, 23):
            pair.reset(np.array([1]), [100 + step])
        pair.step(zero)
        alone.step(zero[:1])
        np.testing.assert_array_equal(pair.observation[0], alone.observation[0])
        np.testing.assert_array_equal(pair.base_target[0], alone.base_target[0])


def test_stepping_some_worlds_leaves_the_others_alone(task: str) -> None:
    worlds = ResidualWorlds(task, 3, errors="tracker", domain="twin")
    reference = ResidualWorlds(task, 3, errors="tracker", domain="twin")
    for w in (worlds, reference):
        w.reset(np.arange(3), [0, 1, 2])
    actions = random_actions(40, 3)
    for action in actions[:20]:
        worlds.step(action, np.array([0, 2]))
        reference.step(action)
    np.testing.assert_array_equal(worlds.observation[[0, 2]], reference.observation[[0, 2]])
    assert worlds.steps.tolist() == [20, 0, 20]
    for action in actions[:20]:
        worlds.step(action, np.array([1]))
    np.testing.assert_array_equal(worlds.observation, reference.observation)


def test_zero_residual_executes_the_base_policy_alone(task: str) -> None:
    """For the zero action, the composed target equals the base target exactly."""
    from oc_residual_gym.envs.actions import ResidualScales, compose

    worlds = ResidualWorlds(task, 2, base_policy="expert", errors="clean")
    worlds.reset(np.arange(2), [0, 1])
    for _ in range(20):
        np.testing.assert_array_equal(
            compose(worlds.base_target, np.zeros((2, 7)), ResidualScales()), worlds.base_target
        )
        worlds.step(np.zeros((2, 7)))


def test_single_and_vector_env_agree_through_resets(registered_id: str) -> None:
    """With the same seeds and actions, NEXT_STEP worlds equal single environments that are reset after each episode."""
    steps, limit = 45, 20
    vector: Any = gym.make_vec(registered_id, num_envs=2, max_episode_steps=limit)
    singles = [gym.make(registered_id, max_episode_steps=limit) for _ in range(2)]
    observations, _ = vector.reset(seed=11)
    for i, env in enumerate(singles):
        np.testing.assert_array_equal(env.reset(seed=11 + i)[0], observations[i])
    over = [False, False]
    for action in random_actions(steps, 2):
        observations, rewards, terminated, truncated, infos = vector.step(action)
        for i, env in enumerate(singles):
            if over[i]:
                observation, info = env.reset()
                assert (rewards[i], terminated[i], truncated[i]) == (0.0, False, False)
                over[i] = False
            else:
                observation, reward, term, trunc, info = env.step(action[i])
                assert (rewards[i], terminated[i], truncated[i]) == (reward, term, trunc)
                over[i] = term or trunc
                if over[i]:
                    assert infos["failure"][i] == info["failure"] is not None
            np.testing.assert_array_equal(observations[i], observation)
            assert infos["seed"][i] == info["seed"]


def test_time_limits_are_equal_in_single_and_vector_form(registered_id: str) -> None:
    spec: EnvSpec = gym.spec(registered_id)
    vector: Any = gym.make_vec(registered_id, num_envs=1, base_policy="hold")
    single: Any = gym.make(registered_id, base_policy="hold")
    assert vector.unwrapped.core.options.max_episode_steps == spec.max_episode_steps == single.spec.max_episode_steps
    assert resolve_task(spec.kwargs["task"]).max_episode_steps == spec.max_episode_steps
    vector.reset(seed=0)
    single.reset(seed=0)
    for step in range(1, spec.max_episode_steps + 1):
        truncated = single.step(np.zeros(7))[3], vector.step(np.zeros((1, 7)))[3][0]
        assert truncated == (step == spec.max_episode_steps,) * 2


def test_same_step_autoreset_keeps_the_terminal_observation(task: str) -> None:
    limit = 12
    same: Any = gym.make_vec(f"OCResidual-{task}-v0", num_envs=2, max_episode_steps=limit, autoreset_mode="SameStep")
    following: Any = gym.make_vec(f"OCResidual-{task}-v0", num_envs=2, max_episode_steps=limit)
    assert same.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert following.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    same.reset(seed=0)
    following.reset(seed=0)
    for action in random_actions(limit, 2):
        a, b = same.step(action), following.step(action)
    assert a[3].all() and b[3].all()
    for i in range(2):
        np.testing.assert_array_equal(a[4]["final_obs"][i], b[0][i])
        assert a[4]["final_info"]["failure"][i] == b[4]["failure"][i]
    # The reset step of NEXT_STEP ignores its action and returns what SAME_STEP returned one step earlier.
    reset = following.step(np.ones((2, 7)))
    np.testing.assert_array_equal(reset[0], a[0])
    assert reset[1].tolist() == [0.0, 0.0] and not reset[3].any()


def test_sb3_adapter_keeps_terminal_observations(task: str) -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="needs the extra [train]")
    from oc_residual_gym.envs.sb3 import ResidualVecEnv

    limit = 8
    env: Any = ResidualVecEnv(task, 2, max_episode_steps=limit)
    reference = gym.make_vec(f"OCResidual-{task}-v0", num_envs=2, max_episode_steps=limit)
    env.seed(0)
    np.testing.assert_array_equal(env.reset(), reference.reset(seed=0)[0])
    for action in random_actions(limit, 2):
        _, _, done, infos = env.step(action)
        last = reference.step(action)
    assert done.all()
    for i, info in enumerate(infos):
        np.testing.assert_array_equal(info["terminal_observation"], last[0][i])
        assert info["TimeLimit.truncated"] and not info["is_success"]
        assert info["failure"] == last[4]["failure"][i]
    assert sb3.PPO("MlpPolicy", env, n_steps=4, batch_size=8, n_epochs=1).learn(8).num_timesteps == 8


def test_observation_layout_covers_the_observation(registered_id: str) -> None:
    env: Any = gym.make(registered_id, errors="clean")
    observation, _ = env.reset(seed=0)
    layout = env.unwrapped.observation_layout
    covered = np.concatenate([np.arange(f.start, f.stop) for f in layout])
    np.testing.assert_array_equal(covered, np.arange(observation.size))
    as_dict, _ = gym.make(registered_id, errors="clean", obs_mode="dict").reset(seed=0)
    np.testing.assert_array_equal(np.concatenate([as_dict[f.name] for f in layout]), observation)
    assert np.isfinite(env.observation_space.low).all() and np.isfinite(env.observation_space.high).all()
    position = as_dict["tcp_position"] * next(f.scale for f in layout if f.name == "tcp_position")
    np.testing.assert_allclose(position, [0.42, 0.0, 0.28], atol=1e-3)


def test_observed_objects_are_where_they_are(task: str) -> None:
    """With clean poses, the observation holds the true poses, in the base frame and relative to the TCP."""
    from scipy.spatial.transform import Rotation

    worlds = ResidualWorlds(task, 1, errors="clean")
    worlds.reset(np.array([0]), [2])
    named = worlds.observation_builder.as_dict(worlds.observation[0])
    scales = {f.name: f.scale for f in worlds.observation_layout}
    tcp = worlds.world.robot.tcp_pose[0]
    for described, pose in zip(worlds.task.objects, worlds.task.object_poses(worlds.simulation.true), strict=True):
        name = described.name
        base = named[f"{name}_position_in_base"] * scales[f"{name}_position_in_base"]
        np.testing.assert_allclose(base, pose[0, :3], atol=1e-6)
        relative = named[f"{name}_position_in_tcp"] * scales[f"{name}_position_in_tcp"]
        expected = Rotation.from_quat(tcp[3:]).inv().apply(pose[0, :3] - tcp[:3])
        np.testing.assert_allclose(relative, expected, atol=1e-6)
        assert named[f"{name}_valid"] == 1.0 and named[f"{name}_age"] == 0.0


def test_rewards_are_never_positive_and_sparse_is_minus_one(task: str) -> None:
    for reward in ("dense", "sparse"):
        worlds = ResidualWorlds(task, 4, reward=reward, errors="clean")
        worlds.reset(np.arange(4), [0, 1, 2, 3])
        for action in random_actions(30, 4):
            worlds.step(action)
            assert (worlds.reward <= 0.0).all() and (worlds.reward >= -1.0).all()
            if reward == "sparse":
                assert (worlds.reward[~worlds.success] == -1.0).all()
    assert 0.0 < sum(TASKS[task].weights.values()) < 1.0
    assert set(TASKS[task].failures) <= set(TASKS[task].weights)
    assert TASKS[task].close_up in (None, *(o.name for o in TASKS[task].objects))
