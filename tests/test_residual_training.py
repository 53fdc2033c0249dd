"""Training of residual policies: starts at the base policy, survives a kill, exports what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("stable_baselines3", reason="needs the extra [train]")
pytest.importorskip("tensorboard", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [dev]")

from baselines import BaselineError  # noqa: E402
from baselines.cli import main  # noqa: E402
from baselines.residual import settings as settings_module  # noqa: E402
from baselines.residual.algorithms import CLASSES, make_model  # noqa: E402
from baselines.residual.privileged import privileged_size  # noqa: E402
from baselines.residual.settings import ALGORITHMS, load_settings  # noqa: E402
from baselines.residual.worlds import TrainingWorlds  # noqa: E402
from oc_residual_gym.envs.actions import ResidualScales, compose  # noqa: E402
from oc_residual_gym.evaluation.results import write_json, write_text  # noqa: E402
from oc_residual_gym.perception.errors import MODELS  # noqa: E402
from oc_residual_gym.policies.onnx_policy import OnnxResidual  # noqa: E402

SMALL = {
    "ppo": "n_steps = 8\nbatch_size = 16",
    "sac": "learning_starts = 16\nbuffer_size = 400\nbatch_size = 16\ntrain_freq = 1\ngradient_steps = 1\nn_steps = 3",
    "td3": "learning_starts = 16\nbuffer_size = 400\nbatch_size = 16\ntrain_freq = 1\ngradient_steps = 1\nn_steps = 3",
}
START = {
    "ppo": "log_std = -1.0\ncritic_updates = 2",
    "sac": "log_std = -1.0\ncritic_updates = 2",
    "td3": "noise = 0.3\ncritic_updates = 2",
}
STEPS = 96
BOUND = (0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.5)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of trainings that take seconds."""
    folder = tmp_path / "settings"
    folder.mkdir()
    for algorithm in ALGORITHMS:
        (folder / f"{algorithm}.toml").write_text(
            f"[training]\nsteps = {STEPS}\nworlds = 4\nerrors = ['paper', 'tracker']\n"
            f"bound = {list(BOUND)}\n"
            f"[start]\n{START[algorithm]}\n[model]\ngamma = 0.9\nlearning_rate = 1e-3\n{SMALL[algorithm]}\n"
            "[model.policy_kwargs]\nnet_arch = [16]\n"
        )
    monkeypatch.setattr(settings_module, "FOLDER", folder)
    monkeypatch.setattr("baselines.residual.train.EVALUATIONS", 2)
    monkeypatch.setattr("baselines.residual.train.EVALUATION_EPISODES", 1)
    monkeypatch.setattr("baselines.residual.train.CHECKPOINT_SECONDS", 0.0)


def train(algorithm: str, out: Path, *more: str) -> int:
    return main(["train-residual", "--task", "CloseDrawer", "--algo", algorithm, "--out", str(out), *more])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_killed_training_resumes_and_exports_what_it_trained(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, calls, step_wait = tmp_path / "out", 0, TrainingWorlds.step_wait

    def killed(self: TrainingWorlds) -> object:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return step_wait(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingWorlds, "step_wait", killed)
        assert train(algorithm, out) == 130
    (checkpoint,) = out.glob("checkpoint-*")
    done = int(checkpoint.name.split("-")[1])
    assert 0 < done < STEPS and not (out / "report.json").exists()

    assert train(algorithm, out) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["steps"] >= STEPS and report["updates"] > 0
    # It went on, instead of beginning again: the curve holds what was measured before the kill, in order.
    measured = [record["steps"] for record in report["curve"]]
    assert measured[0] == 0 and measured == sorted(measured) and measured[-1] == report["steps"]
    assert list((out / "tensorboard").iterdir()) and (out / "learning_curve.png").stat().st_size > 0

    (checkpoint,) = out.glob("checkpoint-*")
    model = CLASSES[algorithm].load(checkpoint / "model.zip", device="cpu")
    policy = OnnxResidual(out / "policy.onnx")
    fields = make_worlds().observation_layout
    policy.check([f.name for f in fields], fields[-1].stop)
    seen = np.random.default_rng(0).normal(size=(32, fields[-1].stop)).astype(np.float32)
    hidden = np.zeros((32, model.observation_space.shape[0] - seen.shape[1]), np.float32)  # type: ignore[index]
    actions, _ = model.predict(np.concatenate([seen, hidden], axis=1), deterministic=True)
    assert np.abs(actions).max() > 1e-4  # it learned something
    np.testing.assert_allclose(policy(seen), actions * BOUND, atol=1e-5)


def make_worlds(task: str = "CloseDrawer", worlds: int = 2) -> TrainingWorlds:
    return TrainingWorlds(task, "hold", worlds, ("paper", "tracker"), BOUND, reward_scale=0.1, threads=1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_starts_at_the_base_policy(algorithm: str) -> None:
    settings = load_settings(algorithm, "PegInsert", "bc")
    worlds = make_worlds("PegInsert")
    model = make_model(settings, worlds, seed=0)
    observation = worlds.reset()
    deterministic, _ = model.predict(observation, deterministic=True)  # type: ignore[arg-type]
    assert not deterministic.any()
    if algorithm == "ppo":
        samples = np.concatenate([model.predict(observation)[0] for _ in range(100)])  # type: ignore[arg-type]
    else:
        # What the algorithm itself does in its warm-up, where Stable-Baselines3 would act uniformly.
        model._setup_learn(1000)
        samples = np.concatenate([model._sample_action(1000, model.action_noise, 2)[0] for _ in range(100)])  # type: ignore[attr-defined]
    assert 0.1 < samples.std() < 0.4  # in shares of the bound


def test_every_task_and_base_has_settings(task: str) -> None:
    for algorithm in ALGORITHMS:
        for base in ("bc", "vla"):
            settings = load_settings(algorithm, task, base)
            assert settings.algorithm == algorithm and settings.worlds % len(settings.errors) == 0


def test_settings_of_a_task_and_base_override_the_general_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (settings_module.FOLDER / "ppo.toml").read_text()
    text += "\n[task.Lift.training]\nsteps = 7\n[task.Lift.vla.model]\ngamma = 0.5\n"
    text += "[task.Lift.vla.model.policy_kwargs]\nnet_arch = [3]\n"
    (tmp_path / "ppo.toml").write_text(text)
    general = load_settings("ppo", "Stack", "bc")
    monkeypatch.setattr(settings_module, "FOLDER", tmp_path)
    assert load_settings("ppo", "Stack", "bc") == general
    ours = load_settings("ppo", "Lift", "bc")
    assert ours.steps == 7 and ours.model == general.model
    vla = load_settings("ppo", "Lift", "vla")
    assert vla.steps == 7 and vla.model["gamma"] == 0.5 and vla.model["policy_kwargs"]["net_arch"] == [3]


def test_settings_with_an_unknown_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (settings_module.FOLDER / "ppo.toml").read_text()
    (tmp_path / "ppo.toml").write_text(text + "\n[task.Lift.training]\nstep = 7\n")
    monkeypatch.setattr(settings_module, "FOLDER", tmp_path)
    with pytest.raises(BaselineError, match="step"):
        load_settings("ppo", "Lift", "bc")


def test_worlds_show_the_critics_more_than_the_policy(task: str) -> None:
    """The policy's observation comes first, also in an episode's last one; true state follows."""
    worlds = make_worlds(task)
    cores = [part.envs.core for part in worlds.parts]
    assert [core.errors.model for core in cores] == [MODELS["paper"], MODELS["tracker"]]
    size, true = worlds.observation_layout[-1].stop, cores[0].world.true
    assert worlds.observation_space.shape == (size + privileged_size(len(true.poses), len(true.contacts)),)
    worlds.seed(3)
    observation = worlds.reset()
    np.testing.assert_array_equal(observation[:, :size], np.concatenate([core.observation for core in cores]))
    cores[0].max_episode_steps = 2
    actions = np.ones((2, 7), np.float32)
    before = [core.base_target.copy() for core in cores]
    observation, _, dones, _ = worlds.step(actions)
    assert not dones.any()
    moved = compose(before[0], actions[:1] * BOUND, ResidualScales())
    assert np.abs(cores[0].executed_target - moved)[:, :3].max() < 0.03  # the bounded correction, then limited
    after, rewards, dones, infos = worlds.step(0 * actions)
    worlds.close()
    assert dones.tolist() == [True, False] and (rewards >= -0.1).all() and (rewards <= 0).all()
    last = infos[0]["terminal_observation"]
    assert last.shape == observation[0].shape and infos[0]["TimeLimit.truncated"]
    # One step apart the world has hardly changed; the next episode is another one.
    assert np.abs(last - observation[0])[size:].max() < np.abs(after[0] - observation[0])[size:].max()


def test_critics_see_what_the_actor_does_not() -> None:
    worlds = make_worlds("PegInsert")
    hidden = worlds.observation_layout[-1].stop
    for algorithm in ALGORITHMS:
        model = make_model(load_settings(algorithm, "PegInsert", "bc"), worlds, seed=0)
        with torch.no_grad():  # away from the zero that it starts with
            layer = model.policy.action_net if algorithm == "ppo" else list(model.policy.actor.children())[-1]  # type: ignore[union-attr]
            for parameter in layer.parameters():  # type: ignore[union-attr]
                parameter.normal_()
        one = torch.zeros(1, worlds.observation_space.shape[0])  # type: ignore[index]
        other = one.clone()
        other[:, hidden:] = 1.0
        assert np.array_equal(*(model.predict(o.numpy(), deterministic=True)[0] for o in (one, other)))
        action = torch.zeros(1, 7)
        values = [
            model.policy.predict_values(o) if algorithm == "ppo" else model.critic(o, action)[0] for o in (one, other)
        ]  # type: ignore[operator, attr-defined]
        assert not torch.equal(*values)


@pytest.mark.usefixtures("small")
def test_bad_requests_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-residual", "--task", "Lift", "--base", "nobody", "--out", str(tmp_path / "a")]) == 2
    assert "nobody" in capsys.readouterr().err
    assert main(["train-residual", "--task", "Sweep", "--out", str(tmp_path / "b")]) == 2
    assert "CloseDrawer" in capsys.readouterr().err
    assert train("ppo", tmp_path / "out", "--steps", "32") == 0
    assert train("ppo", tmp_path / "out", "--steps", "32", "--seed", "1") == 2
    assert "seed: 0 there, 1 now" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert train("ppo", tmp_path / "file") == 2


@pytest.mark.usefixtures("small")
def test_finished_trainings_are_published_with_their_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "published"
    assert train("ppo", first, "--steps", "32") == 0
    assert train("ppo", second, "--steps", "32", "--seed", "1") == 0
    reports = [json.loads((folder / "report.json").read_text()) for folder in (first, second)]
    hashes = [{"residual": {"CloseDrawer": report["sha256"]}} for report in reports]
    evaluated = [tmp_path / "evaluated-0", tmp_path / "evaluated-1"]
    for folder, name, successes in zip(evaluated, hashes, (40, 30), strict=True):
        cell = {"task": "CloseDrawer", "domain": "twin", "errors": "tracker", "successes": successes, "episodes": 50}
        write_json(folder / "summary.json", {"cells": [cell], "hashes": name})
    compared = tmp_path / "compared"
    write_json(compared / "summary.json", {"hashes": hashes[0]})
    write_text(compared / "compare.md", "# Title\n\n| the | table |\n\n![plot](compare.png)\n\n## Reading\n")
    more = ["--comparison", str(compared), "--evaluations", *map(str, evaluated)]
    assert main(["publish", str(second), str(first), "--out", str(out), *more]) == 0
    assert (out / "CloseDrawer.onnx").read_bytes() == (first / "policy.onnx").read_bytes()  # of the least seed
    assert (out / "learning_curves.png").stat().st_size > 0
    card = (out / "card.md").read_text()
    for report in reports:
        assert report["sha256"] in card and report["command"] in card and f"{report['steps']:,}" in card
    assert "| the | table |" in card and "### Reading" in card and "compare.png" not in card
    assert card.index("40 of 50") < card.index("30 of 50")  # a line for each seed

    capsys.readouterr()
    assert main(["publish", str(second), "--out", str(out), *more]) == 2
    assert "compared another CloseDrawer policy" in capsys.readouterr().err
    assert main(["publish", str(second), "--out", str(out), "--evaluations", str(evaluated[0])]) == 2
    assert "evaluated another CloseDrawer policy" in capsys.readouterr().err
    assert main(["publish", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "no finished training" in capsys.readouterr().err
