"""Training with a teacher: what is imitated, who drives, what is remembered, and that the update loop is SB3's."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("stable_baselines3", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")

from stable_baselines3 import SAC, TD3  # noqa: E402
from stable_baselines3.common.logger import configure  # noqa: E402

from baselines.cli import main  # noqa: E402
from baselines.residual.algorithms import load_algorithm  # noqa: E402
from baselines.residual.algorithms.teaching import advice_of, imitation_errors  # noqa: E402
from baselines.residual.export import export_residual  # noqa: E402
from baselines.residual.memory import LAGS, Memory, memory_size, phase_entry, recall  # noqa: E402
from baselines.residual.settings import Settings, Teaching, load_settings  # noqa: E402
from baselines.residual.targets import Correction, action_to, correction  # noqa: E402
from baselines.residual.worlds import TrainingWorlds  # noqa: E402
from oc_residual_gym.envs.core import ResidualWorlds  # noqa: E402
from oc_residual_gym.residuals import load_residual  # noqa: E402
from oc_residual_gym.residuals.onnx import OnnxResidual  # noqa: E402
from oc_residual_gym.residuals.scripted import ScriptedResidual  # noqa: E402

TASK = "PickPlace"


def taught_settings(algorithm: str = "sac", **changes: Any) -> Settings:
    settings = load_settings(algorithm, TASK, "bc", "planner")
    conditions = (("nominal", "paper"), ("twin", "tracker"))
    return replace(settings, **{"worlds": 4, "conditions": conditions} | changes)


@pytest.fixture(scope="module")
def steps() -> list[SimpleNamespace]:
    """Some steps of a planner, with noise, in the shifted world: pauses, delays and all."""
    core = ResidualWorlds(TASK, 4, base_policy="bc", domain="twin", errors="tracker")
    worlds, planner, rng = np.arange(4), ScriptedResidual("planner"), np.random.default_rng(0)
    core.reset(worlds, [0, 1, 2, 3])
    planner.reset(core, worlds)
    taken = []
    for _ in range(60):
        planner.advance(core)
        targets = core.executed_target.copy(), core.base_target.copy()
        taken.append(SimpleNamespace(observation=core.observation, targets=targets, plan=planner.targets(core)))
        core.step((planner.act(core) + rng.normal(0.0, 0.1, (4, 7))).clip(-1.0, 1.0))
    layout = core.observation_layout
    core.close()
    return [SimpleNamespace(**vars(step), layout=layout, scales=core.scales) for step in taken]


def test_a_correction_from_the_observation_is_that_from_the_exact_targets(steps: list[SimpleNamespace]) -> None:
    network = Correction(steps[0].layout, steps[0].scales)
    for step in steps:
        executed, base = step.targets
        action = action_to(step.plan, executed)
        exact = correction(action, executed, base, step.scales)
        seen = network(torch.from_numpy(step.observation), torch.from_numpy(action)).numpy()
        np.testing.assert_allclose(seen, exact, atol=2e-6)


def test_an_action_towards_a_plan_brings_the_corrected_target_there(steps: list[SimpleNamespace]) -> None:
    """As far as one step and the range of corrections allow, which the planner's own first steps do."""
    from oc_residual_gym.envs.actions import compose

    near = 0
    for step in steps:
        executed, base = step.targets
        reached = compose(base, correction(action_to(step.plan, executed), executed, base, step.scales), step.scales)
        within = np.abs(step.plan[:, :3] - executed[:, :3]).max(axis=1) < 0.009
        within &= np.abs(step.plan[:, :3] - base[:, :3]).max(axis=1) < 0.019
        near += int(within.sum())
        np.testing.assert_allclose(reached[within, :3], step.plan[within, :3], atol=1e-6)
    assert near > 50


def test_the_memory_in_training_is_that_of_a_file(steps: list[SimpleNamespace]) -> None:
    layout = steps[0].layout
    size, phase = layout[-1].stop, phase_entry(layout)
    memory, carried, starts = Memory(4, layout), torch.zeros(4, memory_size(size)), 0
    for number, step in enumerate(steps):
        if number == 30:  # a new episode in one world
            memory.forget(np.array([2]))
            carried[2] = 0.0
        seen, carried = recall(torch.from_numpy(step.observation), carried, phase)
        mine = memory.recall(step.observation)
        np.testing.assert_array_equal(mine, seen.numpy())
        starts += int((step.observation[:, phase] == 0.0).sum())
        for place, lag in enumerate(LAGS):
            before = steps[number - lag].observation if number >= lag else np.zeros((4, size))
            np.testing.assert_array_equal(mine[:2, (2 + place) * size : (3 + place) * size], before[:2])
    assert starts > 8


@pytest.mark.parametrize("teacher", ["planner", "oracle"])
def test_worlds_that_the_teacher_drives_do_what_it_does_alone(teacher: str) -> None:
    settings = taught_settings(worlds=2, conditions=(("nominal", "paper"),))
    worlds = TrainingWorlds(TASK, "bc", settings, teacher, threads=1)
    worlds.seed(5)
    observation = worlds.reset()
    assert isinstance(observation, np.ndarray)
    core = worlds.parts[0].envs.core
    alone = ResidualWorlds(TASK, 2, base_policy="bc", errors="paper", split="train")
    policy, both = load_residual(teacher, TASK, "bc"), np.arange(2)
    alone.reset(both, core.seeds.tolist())
    policy.reset(alone, both)
    for _ in range(50):
        observation, *_ = worlds.step(advice_of(torch.from_numpy(observation)).numpy())
        alone.step(policy.act(alone))
        np.testing.assert_allclose(core.executed_target[:, :3], alone.executed_target[:, :3], atol=1e-3)
    worlds.close()
    alone.close()


def test_an_actor_that_imitates_perfectly_has_no_error() -> None:
    advice = torch.tensor([[0.3, -0.5, 0.0, 0.9, -0.9, 0.1, 1.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]])
    means = torch.atanh(advice.clamp(-0.999, 0.999))
    means[:, -1] = 20.0 * advice[:, -1]
    assert imitation_errors(means, advice).max() < 1e-4
    wrong = means.clone()
    wrong[:, -1] *= -1.0
    assert imitation_errors(wrong, advice).min() > 1.0  # an open hand is not nearly a closed one


def test_the_teacher_drives_less_and_less_and_its_pull_fades() -> None:
    teaching = Teaching(steps=100, drive=(1.0, 0.2), drive_steps=40, learning_rate=1e-3, updates=1, pull=(1.0, 0.0))
    assert [teaching.drive_share(n) for n in (0, 20, 40, 400)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert [teaching.pull_at(n, 200) for n in (100, 150, 200)] == pytest.approx([1.0, 0.5, 0.0])
    assert teaching.rate(0) == 1e-3 and teaching.rate(100) == 0.0


def filled(algorithm: str) -> Any:
    """A model whose replay buffer has been filled, and whose critics have already learned something."""
    settings = load_settings(algorithm, TASK, "hold")
    small = {"buffer_size": 400, "batch_size": 32, "learning_starts": 0, "policy_kwargs": {"net_arch": [32, 32]}}
    settings = replace(settings, worlds=4, model=settings.model | small, start=settings.start | {"critic_updates": 0})
    worlds = TrainingWorlds("Lift", "hold", settings, threads=1)
    model: Any = load_algorithm(algorithm).make(settings, worlds, "Lift", seed=0)
    model.set_logger(configure(None, []))
    model.gradient_steps = 2
    model.learn(160)
    worlds.close()
    return model


@pytest.mark.parametrize(("algorithm", "theirs"), [("sac", SAC), ("td3", TD3)])
def test_the_update_loop_does_what_stable_baselines3_does(algorithm: str, theirs: Any) -> None:
    models = [filled(algorithm), filled(algorithm)]
    before = {name: value.clone() for name, value in models[0].policy.state_dict().items()}
    for model, train in zip(models, (type(models[0]).train, theirs.train), strict=True):
        np.random.seed(3)  # noqa: NPY002 (the buffer samples with this generator)
        torch.manual_seed(3)
        train(model, 6, 32)
    ours, other = (model.policy.state_dict() for model in models)
    moved = 0
    for name, value in ours.items():
        if name.startswith("average."):  # Stable-Baselines3's SAC has none: it follows the actor, update by update
            assert not torch.equal(value, before[name])
            continue
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=2e-6, msg=name)
        moved += not torch.equal(value, before[name])
    assert moved > 20


def test_critics_side_by_side_answer_as_separate_networks() -> None:
    from torch import nn

    model = filled("sac")
    critics = model.critic
    observations = torch.randn(16, model.observation_space.shape[0])
    actions = torch.rand(16, 7)
    answers = critics(observations, actions)
    x = torch.cat([critics.features_extractor(observations), actions], dim=1)
    for number, answer in enumerate(answers):
        parts: list[Any] = []
        for layer in critics.layers:
            linear, norm = nn.Linear(*layer.linear.weight.shape[1:]), nn.LayerNorm(layer.shift.shape[-1])
            linear.weight.data, linear.bias.data = layer.linear.weight[number].T, layer.linear.bias[number, 0]
            norm.weight.data, norm.bias.data = layer.scale[number, 0], layer.shift[number, 0]
            parts += [linear, norm, nn.SiLU()]
        last = nn.Linear(critics.last.weight.shape[1], 1)
        last.weight.data, last.bias.data = critics.last.weight[number].T, critics.last.bias[number, 0]
        torch.testing.assert_close(answer, nn.Sequential(*parts, last)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
def test_imitation_learns_and_the_exported_file_acts_as_the_student(algorithm: str, tmp_path: Path) -> None:
    """A student that has seen the planner for a moment is nearer to it than one that has not, in its file too."""
    settings = taught_settings(algorithm)
    small = {"buffer_size": 4000, "batch_size": 128, "learning_starts": 0, "policy_kwargs": {"net_arch": [64, 64]}}
    assert settings.teaching is not None
    lessons = replace(settings.teaching, steps=1200, drive=(1.0, 1.0), updates=4)
    settings = replace(settings, model=settings.model | small, teaching=lessons)
    worlds = TrainingWorlds(TASK, "bc", settings, "planner", threads=1)
    model: Any = load_algorithm(algorithm).make(settings, worlds, TASK, seed=0)
    model.set_logger(configure(None, []))
    untrained = copy.deepcopy(model.policy)
    model.learn(1200)
    sample = model.replay_buffer.sample(512).observations
    with torch.no_grad():
        before, after = (
            float(imitation_errors(policy.means(sample), advice_of(sample)).mean())
            for policy in (untrained, model.policy)
        )
    assert after < 0.7 * before
    assert model._n_updates == 0 and model.imitations > 100  # the critics have not begun
    layout = worlds.observation_layout
    path, _ = export_residual(
        load_algorithm(algorithm).actor(model), layout, settings, worlds.hidden, tmp_path / "policy.onnx", {}
    )
    policy, observation = OnnxResidual(path), worlds.reset()
    for _ in range(20):
        assert isinstance(observation, np.ndarray)
        action, _ = model.predict(observation, deterministic=True)
        wanted = np.concatenate([part.correction(a) for part, a in zip(worlds.parts, np.split(action, 2), strict=True)])
        np.testing.assert_allclose(policy(observation[:, : layout[-1].stop]), wanted, atol=1e-4)
        observation, *_ = worlds.step(action)
    worlds.close()


def test_an_episode_that_the_reflex_ends_is_worth_the_least() -> None:
    settings = replace(taught_settings(worlds=2, conditions=(("nominal", "clean"),)), action="correction")
    worlds = TrainingWorlds(TASK, "hold", settings, threads=1)
    worlds.reset()
    down = np.zeros((2, 7), np.float32)
    down[0, 2] = -1.0  # one hand is pressed onto the table
    for _ in range(120):
        _, rewards, dones, infos = worlds.step(down)
        if dones[0]:
            break
    worlds.close()
    assert infos[0]["failure"] == "robot_reflex" and not infos[0]["TimeLimit.truncated"]
    assert rewards[0] == pytest.approx(-1.0) and rewards[1] > -0.1


def test_reinforcement_follows_imitation_and_the_critics_learn_first() -> None:
    settings = taught_settings()
    assert settings.teaching is not None
    small = {"buffer_size": 800, "batch_size": 32, "learning_starts": 0, "gradient_steps": 1}
    settings = replace(
        settings,
        model=settings.model | small | {"policy_kwargs": {"net_arch": [32, 32]}},
        start=settings.start | {"critic_updates": 5},
        teaching=replace(settings.teaching, steps=40, updates=1, pull=(1.0, 0.0)),
    )
    worlds = TrainingWorlds("Lift", "hold", settings, "planner", threads=1)
    model: Any = load_algorithm("sac").make(settings, worlds, "Lift", seed=0)
    model.set_logger(configure(None, []))

    def learned(steps: int) -> tuple[bool, bool]:
        """Whether actor and critics change in the next ``steps`` steps of 4 worlds."""
        before = copy.deepcopy(model.policy.state_dict())
        model.learn(4 * steps, reset_num_timesteps=False)
        after = model.policy.state_dict()
        return tuple(  # type: ignore[return-value]
            any(not torch.equal(after[n], before[n]) for n in after if n.startswith(part))
            for part in ("actor.", "critic.")
        )

    assert learned(10) == (True, False)
    assert learned(5) == (False, True)
    assert learned(5) == (True, True)
    assert model.imitations == 10 and model._n_updates == 10
    worlds.close()


def test_ppo_has_no_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train-residual", "--task", TASK, "--algo", "ppo", "--teacher", "planner", "--out", str(tmp_path / "a")]
    assert main(command) == 2
    assert "ppo cannot learn from a teacher" in capsys.readouterr().err


def test_a_taught_training_names_its_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baselines.residual.train.EVALUATION_EPISODES", 1)
    monkeypatch.setattr("baselines.residual.train.EVALUATIONS", 1)
    command = ["train-residual", "--task", "CloseDrawer", "--base", "hold", "--teacher", "planner", "--steps", "64"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["teacher"] == "planner" and report["settings"]["action"] == "target"
    assert load_residual(tmp_path / "policy.onnx", "CloseDrawer", "hold").hash == report["sha256"]
    assert main([*command[:-4], "--steps", "64", "--out", str(tmp_path)]) == 2  # another training
