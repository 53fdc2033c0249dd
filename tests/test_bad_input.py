"""What a user can get wrong, and what is said about it."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.options import EnvOptions
from oc_residual_gym.errors import BasePolicyError


def make(**kwargs) -> gym.Env:
    return gym.make("OCResidual-Lift-v0", **kwargs)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused_and_nothing_moves(bad):
    env, reference = make(), make()
    env.reset(seed=0)
    reference.reset(seed=0)
    action = np.zeros(7)
    action[4] = bad
    with pytest.raises(ValueError, match=r"entry 4 \(rotation_y\).*finite"):
        env.step(action)
    np.testing.assert_array_equal(env.step(np.ones(7))[0], reference.step(np.ones(7))[0])


@pytest.mark.parametrize("shape", [(6,), (8,), (1, 7), ()])
def test_actions_of_the_wrong_shape_are_refused(shape):
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.zeros(shape))
    vector = gym.make_vec("OCResidual-Lift-v0", num_envs=2)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        vector.step(np.zeros(shape))


def test_actions_outside_the_box_are_clipped_and_info_tells():
    env, reference = make(), make()
    env.reset(seed=0)
    reference.reset(seed=0)
    wild = env.step(np.array([50.0, 0, 0, 0, 0, 0, 0]))
    tame = reference.step(np.array([1.0, 0, 0, 0, 0, 0, 0]))
    np.testing.assert_array_equal(wild[0], tame[0])
    np.testing.assert_array_equal(wild[4]["executed_target"], tame[4]["executed_target"])


@pytest.mark.parametrize(
    ("option", "valid"),
    [
        ("domain", "nominal, twin"),
        ("errors", "clean"),
        ("split", "train, val, test"),
        ("reward", "dense, sparse"),
        ("obs_mode", "flat, dict"),
        ("render_mode", "rgb_array, human"),
        ("base_policy", "hold, expert"),
        ("camera", "shoulder, wrist, person"),
    ],
)
def test_unknown_options_are_answered_with_the_valid_ones(option, valid):
    for make_env in (make, lambda **k: gym.make_vec("OCResidual-Lift-v0", num_envs=1, **k)):
        with pytest.raises(ValueError, match="unknown") as error:
            make_env(**{option: "bogus"})
        assert all(name in str(error.value) for name in valid.split(", ") if name != "human")


def test_unknown_option_names_are_answered_with_the_valid_ones():
    for make_env in (make, lambda **k: gym.make_vec("OCResidual-Lift-v0", num_envs=1, **k)):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'noise'.*domain, errors, split"):
            make_env(noise=1.0)
    with pytest.raises(ValueError, match="render_size"):
        make(render_mode="rgb_array", render_size=(64,))
    with pytest.raises(ValueError, match="max_episode_steps"):
        gym.make_vec("OCResidual-Lift-v0", num_envs=1, max_episode_steps=0)


def test_unknown_task_and_autoreset_mode_are_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match="Lift, PickPlace, Stack, CloseDrawer, StandCup, PegInsert"):
        ResidualWorlds("Juggle", 1)
    with pytest.raises(ValueError, match="NextStep, SameStep"):
        gym.make_vec("OCResidual-Lift-v0", num_envs=1, autoreset_mode="Whenever")


def test_seeds_and_options_that_do_not_exist_are_refused():
    env = make(split="test")
    with pytest.raises(ValueError, match="seeds 0 to 499"):
        env.reset(seed=500)
    with pytest.raises(ValueError, match="options"):
        env.reset(options={"pose": 1})
    with pytest.raises(ValueError, match="3 seeds for 2 worlds"):
        gym.make_vec("OCResidual-Lift-v0", num_envs=2).reset(seed=[1, 2, 3])


def test_missing_or_broken_policy_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no policy file"):
        make(base_policy=str(tmp_path / "nothing.onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not an ONNX model"):
        make(base_policy=str(broken))


def test_base_policy_of_the_wrong_shape_is_an_error():
    with pytest.raises(ValueError, match="expected \\(1, 16, 8\\)"):
        make(base_policy=lambda view: np.zeros((len(view.worlds), 4, 8))).reset(seed=0)


class FailsAfterTwoChunks:
    """A base policy whose server is lost in one world."""

    name, hash, horizon, needs = "fails", None, 16, frozenset()

    def __init__(self, how: str):
        self.how, self.calls = how, 0

    def reset(self, worlds, generators):
        self.calls = 0

    def predict(self, view):
        self.calls += 1
        chunk = np.repeat(view.previous_target[:, None], 16, axis=1)
        if self.calls > 2:
            if self.how == "raises":
                raise BasePolicyError("connection lost")
            chunk[:, 3] = np.nan
        return chunk


@pytest.mark.parametrize("how", ["raises", "returns NaN"])
def test_failing_base_policy_truncates_the_episode_and_is_never_replaced(how):
    env = make(base_policy=FailsAfterTwoChunks(how), max_episode_steps=100)
    env.reset(seed=0)
    for step in range(1, 100):  # noqa: B007
        observation, _, terminated, truncated, info = env.step(np.zeros(7))
        if truncated:
            break
    assert step == 32 and not terminated
    assert info["failure"] == "base_policy_failed"
    assert np.isfinite(observation).all()


class NeverStarts(FailsAfterTwoChunks):
    """A base policy that has no targets for some worlds."""

    def __init__(self, worlds):
        super().__init__("")
        self.worlds = worlds

    def predict(self, view):
        chunk = np.repeat(view.previous_target[:, None], 16, axis=1)
        chunk[np.isin(view.worlds, self.worlds)] = np.nan
        return chunk


def test_base_policy_that_cannot_start_moves_nothing():
    env = make(base_policy=NeverStarts([0]), disable_env_checker=True)
    with pytest.raises(BasePolicyError, match="fails"):
        env.reset(seed=0)
    core = env.unwrapped.core
    np.testing.assert_allclose(core.base_target[0, :3], [0.42, 0.0, 0.28], atol=1e-3)
    core.step(np.zeros((1, 7)))
    assert core.truncated[0] and core.failure[0] == "base_policy_failed"


def test_base_policy_that_cannot_start_in_one_world_truncates_that_one_only():
    vector = gym.make_vec("OCResidual-Lift-v0", num_envs=3, base_policy=NeverStarts([1]))
    vector.reset(seed=0)
    for _ in range(2):  # each reset of that world fails again
        _, _, terminated, truncated, infos = vector.step(np.zeros((3, 7)))
        assert truncated.tolist() == [False, True, False] and not terminated.any()
        assert infos["failure"][1] == "base_policy_failed"
        assert not vector.step(np.zeros((3, 7)))[3].any()
    assert vector.unwrapped.core.steps.tolist() == [4, 0, 4]


def test_without_a_gl_library_state_works_and_rendering_names_the_package():
    """Loading any OpenGL library, or what needs one, fails as on a machine that has none."""
    script = """
import ctypes, ctypes.util, sys
load, find = ctypes.CDLL.__init__, ctypes.util.find_library

def without_gl(self, name, *args, **kwargs):
    if any(library in str(name) for library in ("GL", "OSMesa")):
        raise OSError(f"{name}: cannot open shared object file")
    load(self, name, *args, **kwargs)

ctypes.CDLL.__init__ = without_gl
ctypes.util.find_library = lambda name: None if "GL" in name or "OSMesa" in name else find(name)
import gymnasium as gym, numpy as np, oc_residual_gym
env = gym.make("OCResidual-Lift-v0", render_mode="rgb_array")
env.reset(seed=0)
env.step(np.zeros(7))
print("state works")
env.render()
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "state works" in result.stdout, result.stderr
    assert result.returncode != 0
    assert "RenderError" in result.stderr and "libegl1" in result.stderr and "libosmesa6" in result.stderr


def test_human_rendering_without_a_display_says_so(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform != "linux":
        pytest.skip("only Linux tells by its environment whether there is a display")
    with pytest.raises(RuntimeError, match="rgb_array"):
        make(render_mode="human").reset(seed=0)


def test_fuzz():
    """100,000 steps with random, extreme and jumping actions and resets in the middle: finite and within limits."""
    from oc_residual_gym.envs.actions import WORKSPACE_HIGH, WORKSPACE_LOW
    from oc_residual_gym.robots.constants import JOINT_LOWER, JOINT_UPPER
    from oc_residual_gym.tasks import SHIPPED_TASKS

    count, steps = 64, 261
    total = 0
    for i, task in enumerate(SHIPPED_TASKS):
        rng = np.random.default_rng(i)
        worlds = ResidualWorlds(task, count, errors="tracker", domain=("nominal", "twin")[i % 2], max_episode_steps=200)
        worlds.reset(np.arange(count), rng.integers(2**31, size=count).tolist())
        direction = rng.choice([-1.0, 1.0], (count, 7))
        for step in range(steps):
            if step % 20 == 0:
                direction = rng.choice([-1.0, 0.0, 1.0], (count, 7))
            kinds = rng.integers(3, size=(count, 1))
            random, extreme = rng.uniform(-1, 1, (count, 7)), rng.choice([-1e6, 1e6], (count, 7))
            worlds.step(np.where(kinds == 0, random, np.where(kinds == 1, direction, extreme)))
            total += count
            robot = worlds.world.robot
            assert np.isfinite(worlds.observation).all() and np.isfinite(worlds.reward).all()
            assert (worlds.reward <= 0).all() and (worlds.reward >= -1).all()
            assert (np.abs(worlds.observation) <= 10).all()
            assert (robot.joint_positions > JOINT_LOWER - 0.02).all() and (
                robot.joint_positions < JOINT_UPPER + 0.02
            ).all()
            assert (robot.gripper_width > -0.002).all() and (robot.gripper_width < 0.082).all()
            inside = np.minimum(np.maximum(worlds.executed_target[:, :3], WORKSPACE_LOW), WORKSPACE_HIGH)
            np.testing.assert_array_equal(inside, worlds.executed_target[:, :3])
            over = worlds.terminated | worlds.truncated | (rng.random(count) < 0.005)
            if over.any():
                worlds.reset(np.flatnonzero(over), rng.integers(2**31, size=over.sum()).tolist())
        assert not any(f == "diverged" for f in worlds.failure)
    assert total >= 100_000


def test_options_are_given_whole_or_one_by_one():
    with pytest.raises(TypeError, match="put split into the options"):
        ResidualWorlds("Lift", 1, EnvOptions(base_policy="hold"), split="val")
