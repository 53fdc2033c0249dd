"""Training of residual policies: starts at the base policy, survives a kill, exports what was trained."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("stable_baselines3", reason="needs the extra [train]")
pytest.importorskip("tensorboard", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")

from baselines import BaselineError  # noqa: E402
from baselines.cli import main  # noqa: E402
from baselines.residual import checkpoints  # noqa: E402
from baselines.residual import settings as settings_module  # noqa: E402
from baselines.residual.algorithms import ALGORITHMS, load_algorithm  # noqa: E402
from baselines.residual.memory import LAGS  # noqa: E402
from baselines.residual.privileged import privileged, privileged_size  # noqa: E402
from baselines.residual.settings import load_settings  # noqa: E402
from baselines.residual.train import TrainResidualRequest, _identity  # noqa: E402
from baselines.residual.worlds import ADVICE, TrainingWorlds  # noqa: E402
from oc_residual_gym.envs.actions import ResidualScales, compose  # noqa: E402
from oc_residual_gym.errors import BasePolicyError, SettingsError  # noqa: E402
from oc_residual_gym.evaluation.rollout import run_rows  # noqa: E402
from oc_residual_gym.evaluation.settings import EvaluationSettings  # noqa: E402
from oc_residual_gym.files import (  # noqa: E402
    alone,
    write_json,
    write_text,
)
from oc_residual_gym.perception.errors import MODELS  # noqa: E402
from oc_residual_gym.policies.base import HoldPolicy, PolicyView  # noqa: E402
from oc_residual_gym.residuals.onnx import OnnxResidual  # noqa: E402

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
TEACHER = (
    "[teacher]\nimitation = 0.6\ndrive = [1.0, 0.5]\ndrive_until = 0.4\nlearning_rate = 1e-3\nupdates = 2\n"
    "pull = [1.0, 0.5]\n"
)
STEPS = 96
BOUND = (0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.5)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of trainings that take seconds."""
    folder = tmp_path / "settings"
    folder.mkdir()
    for algorithm in ALGORITHMS:
        (folder / f"{algorithm}.toml").write_text(
            f"[training]\nsteps = {STEPS}\nworlds = 4\nconditions = [['nominal', 'paper'], ['nominal', 'tracker']]\n"
            f"action = 'correction'\nbound = {list(BOUND)}\npenalty = 0.1\n"
            f"[start]\n{START[algorithm]}\n{'' if algorithm == 'ppo' else TEACHER}"
            f"[model]\ngamma = 0.9\nlearning_rate = [1e-3, 1e-4]\n{SMALL[algorithm]}\n"
            "[model.policy_kwargs]\nnet_arch = [16]\n"
            "[taught.training]\naction = 'target'\nbound = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]\n"
        )
    monkeypatch.setattr(settings_module, "FOLDER", folder)
    monkeypatch.setattr("baselines.residual.train.EVALUATIONS", 2)
    monkeypatch.setattr("baselines.residual.train.EVALUATION_EPISODES", 1)
    monkeypatch.setattr("baselines.residual.train.CHECKPOINT_SECONDS", 0.0)


def train(algorithm: str, out: Path, *more: str) -> int:
    return main(["train-residual", "--task", "CloseDrawer", "--algo", algorithm, "--out", str(out), *more])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("algorithm", "teacher"), [*((a, "none") for a in ALGORITHMS), ("sac", "planner"), ("td3", "oracle")]
)
def test_a_killed_training_resumes_and_exports_what_it_trained(
    algorithm: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = ["--teacher", teacher]
    out, calls, step_wait, evaluations = tmp_path / "out", 0, TrainingWorlds.step_wait, []

    def counted(self: TrainingWorlds) -> object:
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return step_wait(self)

    def watched(settings: EvaluationSettings, *arguments: object) -> object:
        evaluations.append(settings)
        return run_rows(settings, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingWorlds, "step_wait", counted)
    monkeypatch.setattr("baselines.residual.train.run_rows", watched)
    assert train(algorithm, out, *taught) == 130
    (checkpoint,) = out.glob("checkpoint-*")
    done = int(checkpoint.name.split("-")[1])
    before = json.loads((checkpoint / "progress.json").read_text())
    assert 0 < done < STEPS and before["curve"]
    assert not (out / "report.json").exists() and not (out / "policy.onnx").exists()
    if algorithm != "ppo":
        worlds = make_worlds(worlds=4)
        loaded = checkpoints.load(load_algorithm(algorithm), worlds, out)
        assert loaded is not None
        buffer = loaded[0].replay_buffer  # type: ignore[attr-defined]
        assert buffer.pos == done / 4
        # What was running when it was killed does not go on: n-step returns stop there, and bootstrap.
        assert buffer.dones[buffer.pos - 1].all() and buffer.timeouts[buffer.pos - 1].all()

    calls = 100
    assert train(algorithm, out, *taught) == 0
    report = json.loads((out / "report.json").read_text())
    assert calls - 100 == (report["steps"] - done) / 4 and report["updates"] > 0
    curve = [record["steps"] for record in report["curve"]]
    assert report["curve"][: len(before["curve"])] == before["curve"] and curve == sorted(curve)
    assert curve[0] == 0 and curve[-1] == report["steps"] >= STEPS
    assert {(e.split, e.domain, e.errors, e.base) for e in evaluations} == {("val", "nominal", "paper", "bc")}
    assert list((out / "tensorboard").iterdir()) and (out / "learning_curve.png").stat().st_size > 0

    (checkpoint,) = out.glob("checkpoint-*")
    model = load_algorithm(algorithm).model.load(checkpoint / "model.zip", device="cpu")
    policy = OnnxResidual(out / "policy.onnx")
    worlds = make_worlds(worlds=4, teacher=teacher, action="correction" if teacher == "none" else "target")
    fields = worlds.observation_layout
    policy.check([f.name for f in fields], fields[-1].stop)
    observation, actions = worlds.reset(), np.zeros(0)
    for _ in range(12):  # what it remembers counts too
        actions, _ = model.predict(observation, deterministic=True)  # type: ignore[arg-type]
        halves = zip(worlds.parts, np.split(actions, 2), strict=True)
        wanted = actions * BOUND if teacher == "none" else np.concatenate([p.correction(a) for p, a in halves])
        np.testing.assert_allclose(policy(observation[:, : fields[-1].stop]), wanted, atol=1e-5)  # type: ignore[call-overload]
        observation, *_ = worlds.step(actions)
    assert np.abs(actions).max() > 1e-4  # it learned something
    worlds.close()

    # A finished training stays as it is.
    files = {file: file.read_bytes() for file in (out / "report.json", out / "policy.onnx")}
    assert train(algorithm, out, *taught, "--threads", "2") == 0
    assert {file: file.read_bytes() for file in files} == files


@pytest.mark.usefixtures("small")
def test_a_folder_in_which_another_process_trains_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(tmp_path / "out"):
        assert train("sac", tmp_path / "out") == 2
    assert f"another process is at work in {tmp_path / 'out'}" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("checkpoint-*"))


@pytest.mark.usefixtures("small")
def test_a_damaged_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("ppo", tmp_path, "--steps", "32") == 0
    (tmp_path / "report.json").unlink()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    (checkpoint / "model.zip").write_bytes((checkpoint / "model.zip").read_bytes()[:1000])
    assert train("ppo", tmp_path, "--steps", "32") == 2
    assert f"{checkpoint} is damaged" in capsys.readouterr().err


def make_worlds(
    task: str = "CloseDrawer", worlds: int = 2, base: Any = "hold", teacher: str = "none", **changes: Any
) -> TrainingWorlds:
    conditions = (("nominal", "paper"), ("nominal", "tracker"))
    settings = replace(
        load_settings("sac", task, "hold"),
        **{"worlds": worlds, "conditions": conditions, "bound": BOUND, "penalty": 0.1, "model": {"gamma": 0.9}}
        | changes,
    )
    return TrainingWorlds(task, base, settings, teacher, threads=1)


def test_corrections_cost_as_much_as_the_settings_say() -> None:
    worlds = make_worlds()
    rewards = []
    for action in (0.0, 1.0):  # the gripper alone, so little that nothing moves
        worlds.seed(3)
        worlds.reset()
        actions = np.zeros((2, 7), np.float32)
        actions[1, 6] = action
        rewards.append(worlds.step(actions)[1])
    worlds.close()
    np.testing.assert_allclose(rewards[0] - rewards[1], [0.0, 0.1 * 0.1 / 7], rtol=1e-4)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_starts_at_the_base_policy(algorithm: str) -> None:
    task = "PegInsert"
    settings = load_settings(algorithm, task, "bc")
    worlds = make_worlds(task)
    model = load_algorithm(algorithm).make(settings, worlds, task, seed=0)
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


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_critics_learn_first_and_the_actor_after_them(algorithm: str) -> None:
    task = "CloseDrawer"
    settings = load_settings(algorithm, task, "bc")
    worlds = make_worlds(task, worlds=4)
    model = load_algorithm(algorithm).make(settings, worlds, task, seed=0)
    observation = worlds.reset()
    acted = []
    for _ in range(40):
        before = model._n_updates
        model.learn(32 if algorithm == "ppo" else 4, reset_num_timesteps=False)
        if model._n_updates > before:
            acted.append((before, model.predict(observation, deterministic=True)[0].any()))  # type: ignore[arg-type]
    worlds.close()
    assert [moved for updates, moved in acted if updates < 2] and not any(moved for n, moved in acted if n < 2)
    assert acted[-1][1]


def test_an_algorithm_is_one_file_and_its_settings() -> None:
    folder = settings_module.FOLDER.parent
    shared = {"__init__", "base", "networks", "teaching"}
    assert {file.stem for file in (folder / "algorithms").glob("*.py")} - shared == set(ALGORITHMS)
    assert {file.stem for file in settings_module.FOLDER.glob("*.toml")} == set(ALGORITHMS)


def test_listing_the_algorithms_imports_no_torch() -> None:
    code = "import sys; from baselines.residual.algorithms import ALGORITHMS; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_training_depends_on_the_code_of_its_own_algorithm(algorithm: str) -> None:
    request = TrainResidualRequest("Lift", "hold", algorithm, seed=0, out=Path("out"), command="")
    settings = load_settings(algorithm, "Lift", "hold")
    code = _identity(request, settings, EvaluationSettings(("Lift",), "hold"))["code"]
    parts = ("algorithms/base", f"algorithms/{algorithm}", "privileged", "worlds")
    assert {f"baselines/residual/{part}.py" for part in parts} <= set(code)
    assert not {f"baselines/residual/algorithms/{other}.py" for other in ALGORITHMS if other != algorithm} & set(code)


def test_every_task_and_base_has_settings(task: str) -> None:
    for algorithm in ALGORITHMS:
        for base in ("bc", "vla"):
            settings = load_settings(algorithm, task, base)
            assert settings.algorithm == algorithm and settings.worlds % len(settings.conditions) == 0


def test_a_teacher_changes_what_the_settings_say_and_nothing_else_does() -> None:
    for algorithm in ("sac", "td3"):
        alone, taught = (load_settings(algorithm, "Lift", "vla", teacher) for teacher in ("none", "planner"))
        assert alone.teaching is None and alone.action == "correction" and max(alone.bound) < 1.0
        assert taught.teaching is not None and taught.action == "target" and set(taught.bound) == {1.0}
        assert taught.teaching.steps == taught.steps > alone.steps  # imitation to the end
    assert load_settings("sac", "PegInsert", "bc").bound[:3] == (0.5, 0.5, 0.35)
    assert load_settings("sac", "PickPlace", "vla").steps == 240_000
    short = load_settings("sac", "Lift", "bc", "planner", steps=1000)
    assert short.steps == 1000 and short.teaching is not None and short.teaching.drive_steps == 200


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
    assert load_settings("ppo", "Lift", "vla-v0") == vla
    assert vla.steps == 7 and vla.model["gamma"] == 0.5 and vla.model["policy_kwargs"]["net_arch"] == [3]


def test_settings_with_an_unknown_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (settings_module.FOLDER / "ppo.toml").read_text()
    monkeypatch.setattr(settings_module, "FOLDER", tmp_path)
    for wrong, message in {"Lift.training]\nstep = 7": "'step'", "Lfit.training]\nsteps = 7": "'Lfit'"}.items():
        (tmp_path / "ppo.toml").write_text(f"{text}\n[task.{wrong}\n")
        with pytest.raises(BaselineError, match=message):
            load_settings("ppo", "Lift", "bc")


def test_worlds_show_the_critics_more_than_the_policy(task: str) -> None:
    """The policy's observation comes first, also in an episode's last one; true state follows."""
    worlds = make_worlds(task)
    cores = [part.envs.core for part in worlds.parts]
    assert [core.tracker.errors.model for core in cores] == [MODELS["paper"], MODELS["tracker"]]
    size, true = worlds.observation_layout[-1].stop, cores[0].world.true
    visible, hidden = size * (2 + len(LAGS)), privileged_size(len(true.poses), len(true.contacts))
    assert worlds.observation_space.shape == (visible + hidden + ADVICE,)
    worlds.seed(3)
    observation = worlds.reset()
    np.testing.assert_array_equal(observation[:, :size], np.concatenate([core.observation for core in cores]))
    cores[0]._judge._max_steps = 2
    actions = np.ones((2, 7), np.float32)
    before = [core.base_target.copy() for core in cores]
    observation, _, dones, _ = worlds.step(actions)
    assert not dones.any()
    moved = compose(before[0], actions[:1] * BOUND, ResidualScales())
    assert np.abs(cores[0].executed_target - moved)[:, :3].max() < 0.03  # the bounded correction, then limited
    ended, reset = [], cores[0].reset

    def watched_reset(*arguments: object) -> None:
        ended.append(privileged(cores[0].world.robot.tcp_pose, cores[0].world.critic_state, len(true.poses)))
        ended.append(cores[0].reward.copy())
        reset(*arguments)  # type: ignore[arg-type]

    cores[0].reset = watched_reset  # type: ignore[method-assign, assignment]
    _, rewards, dones, infos = worlds.step(0 * actions)
    worlds.close()
    assert dones.tolist() == [True, False]
    np.testing.assert_allclose(rewards, 0.1 * np.concatenate([ended[1], cores[1].reward]), rtol=1e-6)
    last = infos[0]["terminal_observation"]
    assert last.shape == observation[0].shape and infos[0]["TimeLimit.truncated"]
    np.testing.assert_allclose(last[visible : visible + hidden], ended[0][0], atol=1e-5)


def test_critics_see_what_the_actor_does_not() -> None:
    task = "PegInsert"
    worlds = make_worlds(task)
    hidden = worlds.observation_space.shape[0] - worlds.hidden  # type: ignore[index]
    for algorithm in ALGORITHMS:
        model = load_algorithm(algorithm).make(load_settings(algorithm, task, "bc"), worlds, task, seed=0)
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
    assert (
        main(["train-residual", "--task", "Lift", "--base", "gr00t://localhost:1", "--out", str(tmp_path / "c")]) == 2
    )
    assert "localhost:1" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert train("ppo", tmp_path / "file") == 2


@pytest.mark.usefixtures("small")
def test_finished_trainings_are_published_with_their_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "published"
    assert train("ppo", first, "--steps", "32") == 0
    assert train("ppo", second, "--steps", "32", "--seed", "1") == 0
    reports = [json.loads((folder / "report.json").read_text()) for folder in (first, second)]
    hashes = [
        {"residual": {"CloseDrawer": report["sha256"]}, "base": {"CloseDrawer": report["base_sha256"]}}
        for report in reports
    ]
    evaluated = [tmp_path / "evaluated-0", tmp_path / "evaluated-1"]
    for folder, name, successes in zip(evaluated, hashes, (40, 30), strict=True):
        cell = {"task": "CloseDrawer", "residual": "FILE.onnx", "domain": "twin", "errors": "tracker", "split": "test"}
        cells = [cell | {"successes": successes, "episodes": 50}]
        write_json(folder / "summary.json", {"cells": cells, "hashes": name})
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
    assert main(["publish", str(first), str(first), "--out", str(out)]) == 2
    assert "same task and seed" in capsys.readouterr().err
    (first / "policy.onnx").write_bytes((second / "policy.onnx").read_bytes())
    assert main(["publish", str(first), "--out", str(out)]) == 2
    assert "is not the file" in capsys.readouterr().err


def test_a_training_stops_for_its_base_policy_and_says_why_though_the_world_has_begun_anew() -> None:
    class Lost(HoldPolicy):
        calls = 0

        def predict(self, view: PolicyView) -> np.ndarray:
            self.calls += 1
            if self.calls == 3:
                raise BasePolicyError("the server went away")
            return super().predict(view)

    worlds = make_worlds("Lift", 1, base=Lost(), conditions=(("nominal", "paper"),))
    worlds.reset()
    worlds.step(np.zeros((1, 7), np.float32))
    with pytest.raises(SettingsError, match="failed: the server went away: in Lift"):
        worlds.step(np.zeros((1, 7), np.float32))
    worlds.close()
