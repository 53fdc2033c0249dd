"""The hyperparameter files for rl-baselines3-zoo start at the base policy. The zoo itself is not needed here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

pytest.importorskip("stable_baselines3", reason="needs the extra [train]")

from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.noise import NormalActionNoise

import oc_residual_gym  # noqa: F401 (registers the environments)
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.sb3 import StartAtBase

FOLDER = Path(__file__).parents[1] / "examples" / "rl_zoo3"
ALGORITHMS: dict[str, Any] = {"sac": SAC, "td3": TD3, "ppo": PPO}
STEPS = 60
ZOO_ONLY = {"n_timesteps", "n_envs", "normalize", "noise_type", "noise_std", "callback"}
"""Entries that the zoo does not pass to the algorithm."""


class Actions(BaseCallback):
    """Notes the actions that are executed, and ends the training after ``STEPS``."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def _on_step(self) -> bool:
        self.seen.append(self.locals["clipped_actions" if "clipped_actions" in self.locals else "actions"].copy())
        return len(self.seen) < STEPS


def algorithm(name: str, **changes: Any) -> tuple[Any, BaseCallback]:
    """The algorithm as the zoo makes it from its file, on one environment, and the callback that the file names."""
    given = yaml.safe_load((FOLDER / f"{name}.yml").read_text())["default"] | changes
    settings = {key: value for key, value in given.items() if key not in ZOO_ONLY}
    settings["policy_kwargs"] = eval(settings["policy_kwargs"])  # as the zoo does
    if isinstance(settings["learning_rate"], str):
        settings["learning_rate"] = float(settings["learning_rate"].removeprefix("lin_"))
    if "noise_std" in given:
        settings["action_noise"] = NormalActionNoise(np.zeros(7), np.full(7, given["noise_std"]))
    module, _, called = given["callback"].rpartition(".")
    env = gym.make("OCResidual-PegInsert-v0", base_policy="bc")
    model = ALGORITHMS[name](env=env, seed=0, device="cpu", **settings)
    return model, getattr(importlib.import_module(module), called)()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_first_actions_are_small(name: str) -> None:
    model, start = algorithm(name)
    noted = Actions()
    model.learn(STEPS, callback=CallbackList([start, noted]))
    actions = np.concatenate(noted.seen)
    assert actions.shape == (STEPS, 7)
    assert 0.001 < np.abs(actions).mean() < 0.06
    # No direction: 1 mm, all the time, would halve the base policy's success.
    assert np.abs(actions.mean(axis=0)).max() < 0.03
    mean, _ = model.predict(model.observation_space.sample() * 0.0, deterministic=True)
    np.testing.assert_allclose(mean, 0.0, atol=1e-6)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_base_policy_s_success_survives_the_exploration(name: str) -> None:
    """The base policy alone succeeds in 7 or 8 of these 8 episodes; with default settings, hardly any succeed."""
    model, start = algorithm(name)
    start.init_callback(model)
    start.on_training_start({}, {})
    worlds, every = ResidualWorlds("PegInsert", 8, base_policy="bc"), np.arange(8)
    noise = getattr(model, "action_noise", None)
    worlds.reset(every, every.tolist())
    while len(running := np.flatnonzero(~(worlds.terminated | worlds.truncated))):
        if name == "sac":
            model.actor.reset_noise(8)
        actions = model.predict(worlds.observation)[0]
        worlds.step(actions if noise is None else actions + [noise() for _ in every], running)
    worlds.close()
    assert worlds.success.sum() >= 5


def test_a_trained_model_is_left_as_it_is() -> None:
    model, start = algorithm("td3", train_freq=20, gradient_steps=2)
    model.learn(40, callback=start)
    before = model.actor.mu[-2].weight.detach().clone()
    assert before.abs().max() > 0
    start.init_callback(model)
    start.on_training_start({}, {})
    assert (model.actor.mu[-2].weight == before).all()
    assert isinstance(start, StartAtBase)
