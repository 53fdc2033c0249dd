"""Training of base policies: from demonstration files to ONNX files that act, through a kill and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from demos_replay.demo import Demo
from demos_replay.writers.robomimic import write_demos
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.onnx_policy import OnnxFile
from oc_residual_gym.tasks import TASKS

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [dev]")

from baselines import bc, training  # noqa: E402
from baselines.chunks import moving_rows, samples_of  # noqa: E402
from baselines.cli import main  # noqa: E402

ROWS = 50
DOWN = np.array([1.0, 0.0, 0.0, 0.0])


def demo(task: str, number: int, images: bool) -> Demo:
    """A hand that goes down, rests, closes, waits for its fingers, and goes up again."""
    rng = np.random.default_rng(number)
    height = np.concatenate([np.linspace(0.28, 0.1, 20), np.full(20, 0.1), np.linspace(0.1, 0.2, ROWS - 40)])
    poses = np.zeros((ROWS + 1, 7))
    poses[:, :2], poses[1:, 2], poses[0, 2] = rng.uniform([0.4, -0.1], [0.5, 0.1]), height, 0.28
    poses[:, 3:] = DOWN
    closed = np.arange(ROWS) >= 30
    width = 0.08 - 0.005 * np.clip(np.arange(ROWS + 1) - 30, 0, 8)
    places = {
        o.name: np.tile([0.45, 0.05 * i, 0.02, 0, 0, 0, 1.0], (ROWS + 1, 1)) for i, o in enumerate(TASKS[task].objects)
    }
    zeros = np.zeros((ROWS + 1, 7))
    shape = (ROWS + 1, 128, 128, 3)
    return Demo(
        name=f"{task}/{number}",
        task=task,
        instruction=TASKS[task].instruction,
        success=number != 0,
        failure="no_lift" if number == 0 else None,
        target=np.concatenate([poses[1:], 1.0 - closed[:, None]], axis=1),
        reward=np.zeros(ROWS),
        tcp_pose=poses,
        tcp_velocity=zeros[:, :6],
        joint_positions=zeros,
        joint_velocities=zeros,
        gripper_width=width,
        gripper_closed=np.concatenate([[False], closed]),
        wrench=zeros[:, :6],
        objects=places,
        qpos=zeros,
        images={c: rng.integers(0, 255, shape, dtype=np.uint8) for c in ("shoulder", "wrist")} if images else {},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Demonstrations of two tasks, the first one of each failed, without and with images."""
    folder = tmp_path_factory.mktemp("demos")
    for name, images in (("plain", False), ("visual", True)):
        demos = (demo(task, number, images) for task in ("Lift", "PegInsert") for number in range(4 if images else 18))
        write_demos(folder / f"{name}.hdf5", demos, {})
    return {name: folder / f"{name}.hdf5" for name in ("plain", "visual")}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bc, "NOISE_DRAWS", {"paper": 1, "tracker": 1})
    monkeypatch.setattr(training, "LOG_STEPS", 2)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)


def weights(out: Path, name: str) -> list[np.ndarray]:
    stored = torch.load(out / name / "checkpoint.pt", weights_only=True)
    return [value.numpy() for value in stored["average"].values()]


def test_pauses_are_left_out_but_waiting_for_the_fingers_is_not() -> None:
    kept = moving_rows(demo("Lift", 1, images=False))
    assert not set(range(23, 28)) & set(kept.tolist())
    assert set(range(10, 18)) | set(range(30, 39)) | set(range(45, ROWS)) <= set(kept.tolist())


def test_chunks_are_the_targets_that_followed() -> None:
    shown = demo("Lift", 1, images=False)
    samples = samples_of([shown])
    kept = moving_rows(shown)
    np.testing.assert_allclose(samples.chunk[3], shown.target[kept[3:19]], atol=1e-6)
    np.testing.assert_allclose(samples.chunk[-1], np.tile(shown.target[-1], (16, 1)), atol=1e-6)
    np.testing.assert_allclose(samples.previous_target[5], shown.target[kept[5] - 1], atol=1e-6)


@pytest.mark.parametrize("base", ["bc", "vla"])
def test_training_survives_a_kill_and_its_file_acts(
    base: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baselines import vla

    batches = bc.BcBatches if base == "bc" else vla.VlaBatches
    name = "Lift" if base == "bc" else "vla"
    data = str(files["plain" if base == "bc" else "visual"])
    task = "Lift" if base == "bc" else "all"
    # The visual file has two of the six tasks.
    monkeypatch.setattr("oc_residual_gym.evaluation.evaluator.TASKS", {t: TASKS[t] for t in ("Lift", "PegInsert")})
    monkeypatch.setattr(vla, "SCHEDULE", training.Schedule(steps=8, batch=4, learning_rate=1e-3))

    def command(out: Path) -> list[str]:
        return ["train-base", "--base", base, "--task", task, "--data", data, "--steps", "8", "--out", str(out)]

    assert main(command(tmp_path / "whole")) == 0
    whole_loss = batches.training_loss

    def killed(self: object, model: object, step: int, *rest: int) -> object:
        if step == 5:
            raise KeyboardInterrupt
        return whole_loss(self, model, step, *rest)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(batches, "training_loss", killed)
        assert main(command(tmp_path / "cut")) == 130
    assert not (tmp_path / "cut" / f"{name}.onnx").exists()
    assert main(command(tmp_path / "cut")) == 0
    for a, b in zip(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name), strict=True):
        np.testing.assert_array_equal(a, b)

    path = tmp_path / "cut" / f"{name}.onnx"
    report = json.loads((tmp_path / "cut" / f"{name}.json").read_text())
    assert report["onnx_difference"] < 1e-5
    assert report["failed_replays"]["Lift"] == 1
    metadata = OnnxFile(path).metadata
    assert json.loads(metadata["data"]) == report["data"]
    assert "--seed" not in metadata["command"] and metadata["seed"] == "0"
    assert (tmp_path / "cut" / name / "loss.png").exists()
    assert "Not evaluated yet" in (tmp_path / "cut" / "card.md").read_text()

    several = ResidualWorlds("Lift", 3, base_policy=str(path), split="val")
    several.reset(np.arange(3), [0, 1, 2])
    alone = ResidualWorlds("Lift", 1, base_policy=str(path), split="val")
    alone.reset(np.array([0]), [1])
    for _ in range(18):
        several.step(np.zeros((3, 7)))
        alone.step(np.zeros((1, 7)))
    np.testing.assert_array_equal(alone.base_target[0], several.base_target[1])
    assert np.linalg.norm(alone.base_target[0, :3] - [0.42, 0.0, 0.28]) < 0.2


def test_a_folder_with_another_training_is_refused(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train-base", "--base", "bc", "--task", "Lift", "--data", str(files["plain"]), "--out", str(tmp_path)]
    assert main([*command, "--steps", "2"]) == 0
    assert main([*command, "--steps", "2", "--seed", "1"]) == 2
    assert "seed: 0 there, 1 now" in capsys.readouterr().err
    assert main([*command[:2], "vla", *command[3:]]) == 2
    assert "another kind" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "Lift", "--data", "nowhere.hdf5"], "there is no file nowhere.hdf5"),
        (["--task", "Juggle", "--data", "PLAIN"], "unknown task 'Juggle'"),
        (["--task", "Stack", "--data", "PLAIN"], "no successful demonstration of Stack"),
        (["--task", "Lift", "--data", "TEXT"], "TEXT"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str],
    message: str,
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "TEXT").write_text("no HDF5")
    names = {"PLAIN": str(files["plain"]), "TEXT": str(tmp_path / "TEXT")}
    given = [names.get(argument, argument) for argument in arguments]
    assert main(["train-base", "--base", "bc", "--out", str(tmp_path / "out"), *given]) == 2
    assert message in capsys.readouterr().err


def test_images_are_asked_for(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train-base", "--base", "vla", "--task", "Lift", "--data", str(files["plain"]), "--out", str(tmp_path)]
    assert main(command) == 2
    assert "replay with images" in capsys.readouterr().err


def test_shipped_policies_load_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oc_residual_gym.policies.SHIPPED", tmp_path)
    with pytest.raises(ValueError, match="'bc-v0' has no file for Lift"):
        load_base_policy("bc", TASKS["Lift"])


def test_card_refuses_an_evaluation_of_other_files(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, evaluation = tmp_path / "out", tmp_path / "evaluation"
    command = ["train-base", "--base", "bc", "--task", "Lift", "--data", str(files["plain"]), "--out", str(out)]
    assert main([*command, "--steps", "2"]) == 0
    report = json.loads((out / "Lift.json").read_text())
    cell = {"task": "Lift", "residual": "zero", "domain": "nominal", "errors": "paper", "split": "val", "episodes": 9}
    cell |= {"success_rate": 0.5, "ci_low": 0.25, "ci_high": 0.75}
    evaluation.mkdir()

    def measured(hash_of_base: str) -> int:
        summary = {"cells": [cell], "hashes": {"base": {"Lift": hash_of_base}}}
        (evaluation / "summary.json").write_text(json.dumps(summary))
        return main(["card", str(out), str(evaluation)])

    assert measured(report["sha256"]) == 0
    assert "50.0% (25.0% to 75.0%)" in (out / "card.md").read_text()
    assert measured("0" * 64) == 2
    assert "another Lift policy" in capsys.readouterr().err
