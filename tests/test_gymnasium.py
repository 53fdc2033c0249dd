"""Seeds, time limits, keywords, autoreset and attributes mean the same in every way of making an environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from oc_residual_gym import ResidualEnv, ResidualVectorEnv
from oc_residual_gym.envs.episodes import episode_seed
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.registration import env_id, register_task
from oc_residual_gym.tasks.index import INDEX
from oc_residual_gym.tasks.lift import Lift

LIMIT = 6


class ShortLift(Lift):
    """Lift with a time limit that a test can wait for."""

    name = "ShortLift"
    max_episode_steps = LIMIT


SHORT = env_id(ShortLift.name)


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    """Register the task for this module only: "all" means all tasks to other tests."""
    register_task(ShortLift)
    yield
    INDEX.pop(ShortLift.name)
    gym.registry.pop(SHORT)


def sb3(**options: Any) -> Any:
    pytest.importorskip("stable_baselines3")
    from oc_residual_gym import ResidualVecEnv

    return ResidualVecEnv(ShortLift, 1, **options)


def forms(**options: Any) -> dict[str, Callable[[], Any]]:
    """Ways to make the environment, by name."""
    given = {"base_policy": "hold", "split": "val", **options}
    return {
        "make": lambda: gym.make(SHORT, **given),
        "sync": lambda: gym.make_vec(SHORT, 1, "sync", **given),
        "async": lambda: gym.make_vec(SHORT, 1, "async", **given),
        "vector": lambda: gym.make_vec(SHORT, 1, **given),
        "ResidualEnv": lambda: ResidualEnv(ShortLift, **given),
        "ResidualVectorEnv": lambda: ResidualVectorEnv(1, ShortLift, **given),
    }


FORMS = tuple(forms())


def length(env: Any, most: int) -> int | None:
    """Steps until the first episode is truncated; ``None`` if it lasts for ``most``."""
    batched = isinstance(env, gym.vector.VectorEnv)
    env.reset(seed=0)
    for step in range(1, most + 1):
        if np.any(env.step(np.zeros((1, 7)) if batched else np.zeros(7))[3]):
            return step
    return None


@pytest.mark.parametrize("form", [*FORMS, "sb3"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, LIMIT),
        ({"max_episode_steps": None}, LIMIT),
        ({"max_episode_steps": -1}, None),
        ({"max_episode_steps": 3}, 3),
    ],
)
def test_time_limits(form: str, given: dict[str, Any], expected: int | None) -> None:
    if form == "sb3":
        env = sb3(base_policy="hold", **given)
        env.reset()
        ends = [bool(env.step(np.zeros((1, 7)))[2][0]) for _ in range(LIMIT + 3)]
        assert (ends.index(True) + 1 if any(ends) else None) == expected
        return
    env = forms(**given)[form]()
    assert length(env, LIMIT + 3) == expected
    env.close()


@pytest.mark.parametrize("steps", [0, -2, 2.5, True, "10"])
def test_time_limits_that_do_not_exist_are_refused(steps: Any) -> None:
    for form in ("vector", "ResidualEnv", "ResidualVectorEnv"):
        with pytest.raises(SettingsError, match=r"max_episode_steps.*-1 for no limit"):
            forms(max_episode_steps=steps)[form]()


@pytest.mark.parametrize("form", ["make", "vector", "ResidualEnv", "ResidualVectorEnv"])
def test_seeds_of_any_integer_type_are_the_same_seed(form: str) -> None:
    env = forms()[form]()
    expected, _ = env.reset(seed=3)
    for seed in (np.int64(3), np.uint32(3), np.int8(3), np.array(3)):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], expected)
    if form in ("vector", "ResidualVectorEnv"):
        for seeds in ([np.uint16(3)], np.array([3]), (3,)):
            np.testing.assert_array_equal(env.reset(seed=seeds)[0], expected)


@pytest.mark.parametrize("seed", [3.0, np.float32(3), True, np.True_, "3", np.array(3.0)])
def test_what_is_no_integer_is_no_seed(seed: Any) -> None:
    for make in forms().values():
        env = make()
        if not isinstance(env, (gym.vector.SyncVectorEnv, gym.vector.AsyncVectorEnv)):  # they read seeds themselves
            with pytest.raises(SettingsError, match=r"the seed is .*3|the seed is .*True"):
                env.reset(seed=seed)
        env.close()


@pytest.mark.parametrize("form", ["make", "vector", "ResidualEnv", "ResidualVectorEnv"])
def test_a_seed_that_the_split_lacks_is_refused_unless_a_tool_has_drawn_it(form: str) -> None:
    env = forms()[form]()
    for seed in (-1, 500, 9999):
        with pytest.raises(SettingsError, match=f"seed {seed} .*'val', which has the seeds 0 to 499"):
            env.reset(seed=seed)
    drawn = [int(np.ravel(env.reset(seed=seed)[1]["seed"])[0]) for seed in (4246820548, 4246820548, 10_000)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(0 <= seed < 500 for seed in drawn)
    train = ResidualEnv(ShortLift, base_policy="hold")
    assert train.reset(seed=4246820548)[1]["seed"] == 4246820548


@pytest.mark.parametrize("processes", [False, True])
def test_sb3_makes_environments_of_a_split_with_500_seeds(processes: bool) -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    kind = SubprocVecEnv if processes else DummyVecEnv
    options = {"split": "val", "base_policy": "hold"}
    registered = "oc_residual_gym:OCResidual-Lift-v0"  # a process of its own must import the package
    env = make_vec_env(registered, 2, env_kwargs=options, vec_env_cls=kind)
    env.reset()
    assert all(0 <= info["seed"] < 500 for info in env.reset_infos)
    env.close()
    seeded = make_vec_env(registered, 2, seed=7, env_kwargs=options)
    seeded.reset()
    assert [info["seed"] for info in seeded.reset_infos] == [7, 8]


def test_our_adapter_draws_seeds_of_the_split_and_refuses_others_at_once() -> None:
    env = sb3(base_policy="hold", split="val")
    env.seed()
    env.reset()
    assert 0 <= env.reset_infos[0]["seed"] < 500
    assert env.seed(np.uint32(3)) == [3]
    with pytest.raises(SettingsError, match="seeds 0 to 499"):
        env.seed(600)


def test_videos_of_the_sb3_adapter_run_in_real_time() -> None:
    assert sb3(base_policy="hold").metadata["render_fps"] == 20 == ResidualEnv.metadata["render_fps"]


def test_attributes_through_the_sb3_adapter() -> None:
    env = sb3(base_policy="hold")
    assert env.get_attr("autoreset_mode", 0) == [AutoresetMode.SAME_STEP]
    env.set_attr("level", 3)
    assert env.get_attr("level") == [3]
    assert not env.has_attr("nothing")


@pytest.mark.parametrize("form", FORMS)
def test_unknown_keywords_are_named_with_a_similar_one(form: str) -> None:
    """torchrl passes ``frameskip``, and tries again without it if the message holds the first words."""
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'frameskip'.*base_policy, domain"):
        forms(frameskip=1)[form]()
    with pytest.raises(TypeError, match=r"'base_polcy' \(did you mean base_policy\?\)"):
        forms(base_polcy="hold")[form]()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_autoreset_modes_do_what_those_of_gymnasium_do(mode: AutoresetMode) -> None:
    options = {"base_policy": "hold", "split": "val", "max_episode_steps": 3}
    ours: Any = gym.make_vec("OCResidual-Lift-v0", 2, autoreset_mode=mode, **options)
    theirs: Any = gym.make_vec("OCResidual-Lift-v0", 2, "sync", vector_kwargs={"autoreset_mode": mode}, **options)
    assert ours.autoreset_mode is mode is ours.metadata["autoreset_mode"]

    def same(one: Any, other: Any) -> None:
        np.testing.assert_array_equal(one[0], other[0])
        for mine, reference in zip(one[1:-1], other[1:-1], strict=True):
            np.testing.assert_array_equal(mine, reference)

    same(ours.reset(seed=0), theirs.reset(seed=0))
    for _ in range(7):
        mine, reference = (env.step(np.zeros((2, 7))) for env in (ours, theirs))
        same(mine, reference)
        if mode is AutoresetMode.DISABLED and mine[3].any():
            with pytest.raises(gym.error.ResetNeeded, match=r"worlds \[0, 1\].*reset_mask"):
                ours.step(np.zeros((2, 7)))
            mask = np.ones(2, bool)
            same(*(env.reset(seed=[5, 9], options={"reset_mask": mask}) for env in (ours, theirs)))


def test_a_reset_mask_resets_some_worlds_and_leaves_the_others_alone() -> None:
    env: Any = gym.make_vec("OCResidual-Lift-v0", 3, base_policy="hold", split="val", autoreset_mode="Disabled")
    env.reset(seed=0)
    before = env.step(np.zeros((3, 7)))[0]
    options = {"reset_mask": np.array([False, True, False])}
    after, infos = env.reset(seed=[None, 7, None], options=options)
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(after[1], ResidualEnv("Lift", base_policy="hold", split="val").reset(seed=7)[0])
    assert infos["seed"][1] == 7
    assert infos["_seed"].tolist() == infos["_reward_terms"].tolist() == [False, True, False]
    assert env.core.steps.tolist() == [1, 0, 1]
    assert list(options) == ["reset_mask"]  # the caller's own
    for wrong in (np.zeros(3, bool), np.ones(2, bool), np.array([0, 1, 0])):
        with pytest.raises(SettingsError, match="give 3 bools"):
            env.reset(options={"reset_mask": wrong})
    with pytest.raises(ValueError, match="unknown reset options 'pose'"):
        env.reset(options={"reset_mask": np.ones(3, bool), "pose": 1})


def test_attributes_per_world_are_those_of_the_single_environments() -> None:
    options = {"base_policy": "hold", "render_mode": "rgb_array"}
    ours: Any = gym.make_vec("OCResidual-Lift-v0", 2, **options)
    theirs: Any = gym.make_vec("OCResidual-Lift-v0", 2, "sync", **options)
    for name in ("observation_space", "action_space", "observation_layout", "render_mode"):
        assert ours.get_attr(name) == ours.call(name) == theirs.get_attr(name)
    ours.set_attr("level", 3)
    assert ours.get_attr("level") == (3, 3)
    ours.set_attr("level", [4, 4])
    assert ours.get_attr("level") == (4, 4)
    with pytest.raises(AttributeError, match="nothing"):
        ours.get_attr("nothing")
    with pytest.raises(SettingsError, match="cannot differ"):
        ours.set_attr("level", [1, 2])
    with pytest.raises(SettingsError, match="1 values for 2 worlds"):
        ours.set_attr("level", [1])
    with pytest.raises(SettingsError, match="split is fixed"):
        ours.set_attr("split", "val")
    with pytest.raises(NotImplementedError, match="stepped together"):
        ours.call("reset")


@pytest.mark.parametrize("form", ["make", "vector"])
def test_drawn_seeds_that_start_the_same_episode_do_not_share_all_later_ones(form: str) -> None:
    env = forms()[form]()

    def episodes(seed: int) -> list[int]:
        infos = [env.reset(seed=seed)[1], *(env.reset()[1] for _ in range(3))]
        return [int(np.ravel(info["seed"])[0]) for info in infos]

    starts: dict[int, int] = {}
    for seed in range(10_000, 10_600):  # more than there are rows
        first = episode_seed("val", seed)
        if first in starts:
            assert episodes(seed)[0] == episodes(starts[first])[0]
            assert episodes(seed)[1:] != episodes(starts[first])[1:]
            return
        starts[first] = seed
    raise AssertionError("600 seeds start 600 different episodes of 500")
