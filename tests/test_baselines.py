"""Training of base policies: from demonstration files to ONNX files that act, through a kill and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from demos_replay.demo import Demo
from demos_replay.writers.robomimic import write_demos
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.files import write_json
from oc_residual_gym.policies.onnx_policy import load_onnx
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import ObservedObject
from oc_residual_gym.tasks.symmetry import SYMMETRIES

torch = pytest.importorskip("torch", reason="needs the extra [train]")
pytest.importorskip("onnx", reason="needs the extra [train]")

from baselines import bc, train_base, training  # noqa: E402
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
        counts = {"Lift": 3 if images else 18, "PegInsert": 3 if images else 2}
        demos = (demo(task, number, images) for task, count in counts.items() for number in range(count))
        write_demos(folder / f"{name}.hdf5", demos, {})
    return {name: folder / f"{name}.hdf5" for name in ("plain", "visual")}


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name, recipe in bc.RECIPES.items():
            quick = replace(recipe, noise_draws=dict.fromkeys(recipe.noise_draws, 1))
            patched.setitem(bc.RECIPES, name, quick)
        patched.setattr(training, "LOG_STEPS", 2)
        patched.setattr(training, "CHECKPOINT_SECONDS", 0.0)
        patched.setattr(train_base, "EXAMPLES", 6)
        yield


@pytest.fixture(scope="module")
def trained(short: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ "bc" of one task, from 3 logs of which 2 succeeded; the data file lies in it as data/Lift.hdf5."""
    out = tmp_path_factory.mktemp("trained")
    file = out / "data" / "Lift.hdf5"
    file.parent.mkdir()
    write_demos(file, (demo("Lift", number, images=False) for number in (1, 2)), {})
    entries = [{"status": "success"}, {"status": "success"}, {"status": "failed", "reason": "no_lift"}]
    report = {"task": "Lift", "command": "demos-replay replay logs.hdf5", "files": {"logs.hdf5": "a" * 64}}
    file.with_suffix(".report.json").write_text(json.dumps(report | {"demos": entries}))
    assert main([*lift(out, file), "--steps", "2"]) == 0
    return out


def lift(out: Path, file: Path) -> list[str]:
    return ["train-base", "--base", "bc", "--task", "Lift", "--data", str(file), "--out", str(out)]


def weights(out: Path, name: str) -> list[np.ndarray]:
    stored = torch.load(out / name / "checkpoint.pt", weights_only=True)
    return [value.numpy() for value in stored["average"].values()]


def test_pauses_are_left_out_but_waiting_for_the_fingers_is_not() -> None:
    kept = moving_rows(demo("Lift", 1, images=False))
    assert not set(range(23, 28)) & set(kept.tolist())
    assert set(range(10, 18)) | set(range(30, 39)) | set(range(45, ROWS)) <= set(kept.tolist())


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_features_are_the_same_for_poses_that_look_alike(symmetry: str) -> None:
    policy = bc.BcPolicy([ObservedObject("object", symmetry)], bc.RECIPES["bc"])
    body = Rotation.from_euler("zyx", [0.4, 0.1, -0.2])
    alike = (body * Rotation.from_quat(SYMMETRIES[symmetry].members())).as_quat()
    rows = len(alike)
    tool = torch.tensor([0.4, 0.0, 0.2, *DOWN, 1.0]).tile(rows, 1)
    poses = torch.from_numpy(np.concatenate([np.tile([0.5, 0.1, 0.02], (rows, 1)), alike], axis=1)).float()
    features = policy.features(torch.full((rows, 1), 0.08), torch.zeros(rows, 1), tool, poses)
    np.testing.assert_allclose(features, features[:1].expand(rows, -1), atol=1e-5)
    # And they differ once the object is turned.
    other = poses.clone()
    other[:, 3:] = torch.from_numpy((Rotation.from_euler("y", 0.3) * Rotation.from_quat(alike)).as_quat())
    assert (
        policy.features(torch.full((rows, 1), 0.08), torch.zeros(rows, 1), tool, other) - features
    ).abs().max() > 0.1


def test_chunks_are_the_targets_that_followed() -> None:
    shown = demo("Lift", 1, images=False)
    samples = samples_of([shown])
    kept = moving_rows(shown)
    np.testing.assert_allclose(samples.chunk[3], shown.target[kept[3:19]], atol=1e-6)
    np.testing.assert_allclose(samples.chunk[-1], np.tile(shown.target[-1], (16, 1)), atol=1e-6)
    np.testing.assert_allclose(samples.previous_target[5], shown.target[kept[5] - 1], atol=1e-6)


@pytest.mark.parametrize("base", ["bc", "bc-few", "vla"])
def test_training_survives_a_kill_and_its_file_acts(
    base: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baselines import vla

    batches = bc.BcBatches if base != "vla" else vla.VlaBatches
    name = "Lift" if base != "vla" else "vla"
    data = str(files["plain" if base != "vla" else "visual"])
    task = "Lift" if base != "vla" else "all"
    # The visual file has two of the six tasks.
    monkeypatch.setattr("oc_residual_gym.evaluation.settings.TASKS", {t: TASKS[t] for t in ("Lift", "PegInsert")})
    monkeypatch.setattr(vla, "SCHEDULE", training.Schedule(steps=4, batch=4, learning_rate=1e-3))

    def command(out: Path) -> list[str]:
        return ["train-base", "--base", base, "--task", task, "--data", data, "--steps", "4", "--out", str(out)]

    assert main(command(tmp_path / "whole")) == 0
    whole_loss = batches.training_loss

    def killed(self: object, model: object, step: int, *rest: int) -> object:
        if step == 3:
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
    assert report["demonstrations"]["Lift"] == {"bc": 17, "bc-few": bc.RECIPES["bc-few"].demonstrations, "vla": 2}[base]
    metadata = load_onnx(path).metadata
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


def test_a_folder_with_another_training_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*lift(trained, trained / "data" / "Lift.hdf5"), "--steps", "2"]
    assert main([*command, "--seed", "1"]) == 2
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


def evaluation(
    folder: Path, policy: Path, changes: dict[str, Any] | None = None, tasks: tuple[str, ...] = ("Lift",)
) -> str:
    """Folder of a finished evaluation of ``policy``: 5 of 10 episodes succeed in each task."""
    scenario = {"base": "bc", "residual": "zero", "domain": "nominal", "errors": "paper", "split": "test"}
    counts = {"episodes": 10, "successes": 5, "failures": {"no_lift": 4, "not_held": 1}}
    rate = {"success_rate": 0.5, "ci_low": 0.25, "ci_high": 0.75}
    report = json.loads(policy.with_suffix(".json").read_text())
    summary = {
        "cells": [{"task": task} | scenario | counts | rate | (changes or {}) for task in tasks],
        "hashes": {"base": dict.fromkeys(tasks, report["sha256"]), "simulation": "b" * 64},
        "commit": "c" * 40,
        "command": f"oc-residual evaluate --out {folder.name}",
    }
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder)


def test_card_holds_every_evaluation_and_keeps_its_notes(trained: Path, tmp_path: Path) -> None:
    alone = evaluation(tmp_path / "alone", trained / "Lift.onnx")
    more = {"residual": "oracle", "domain": "twin", "successes": 10, "success_rate": 1.0, "failures": {}}
    oracle = evaluation(tmp_path / "oracle", trained / "Lift.onnx", more | {"ci_low": 0.72, "ci_high": 1.0})
    (tmp_path / "NOTES").write_text("It succeeds too often.\n")
    assert main(["card", str(trained), alone, oracle, "--notes", str(tmp_path / "NOTES")]) == 0
    assert main(["card", str(trained), alone, oracle]) == 0
    card = (trained / "card.md").read_text()
    assert "| task | nominal, paper, test, alone | twin, paper, test, oracle |" in card
    assert "| Lift | 5 of 10: 50.0 % [25.0, 75.0] | 10 of 10: 100.0 % [72.0, 100.0] |" in card
    assert "| Lift | no_lift 4, not_held 1 | none |" in card
    assert "| mean of the paper's five tasks | not measured | not measured |" in card
    assert "## Notes\n\nIt succeeds too often.\n" in card
    assert "oc-residual evaluate --out oracle" in card


def test_card_has_the_mean_over_the_papers_tasks(tmp_path: Path, trained: Path) -> None:
    tasks = ("Lift", "PickPlace", "Stack", "CloseDrawer", "StandCup", "PegInsert")
    report = json.loads((trained / "Lift.json").read_text())
    write_json(tmp_path / "out" / "vla.json", report | {"tasks": tasks})
    everything = evaluation(tmp_path / "all", tmp_path / "out" / "vla.onnx", tasks=tasks)
    summary = json.loads((tmp_path / "all" / "summary.json").read_text())
    for cell, successes in zip(summary["cells"], (10, 9, 8, 7, 6, 0), strict=True):
        cell["successes"] = successes
    write_json(tmp_path / "all" / "summary.json", summary)
    assert main(["card", str(tmp_path / "out"), everything]) == 0
    assert "| mean of the paper's five tasks | 80.0 % [" in (tmp_path / "out" / "card.md").read_text()


def test_card_says_what_the_data_were_made_from(trained: Path, tmp_path: Path) -> None:
    def card(folder: Path) -> str:
        return (folder / "card.md").read_text()

    assert main(["card", str(trained)]) == 0
    assert "| Lift | 2 of 3 | no_lift 1 | 100 |" in card(trained)
    assert f"- logs.hdf5 `{'a' * 64}`" in card(trained)
    assert "    demos-replay replay logs.hdf5\n" in card(trained)
    # Policies that were trained when their reports did not hold it yet.
    report = json.loads((trained / "Lift.json").read_text())
    del report["replays"]
    write_json(tmp_path / "Lift.json", report)
    assert main(["card", str(tmp_path)]) == 0
    assert "| Lift | 2 of 2 | none | 100 |" in card(tmp_path)
    assert main(["card", str(tmp_path), "--data", str(trained / "data" / "Lift.hdf5")]) == 0
    assert "| Lift | 2 of 3 | no_lift 1 | 100 |" in card(tmp_path)


def test_card_refuses_what_is_not_of_these_files(
    trained: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "other.json", {"sha256": "0" * 64})
    ours = evaluation(tmp_path / "ours", trained / "Lift.onnx")
    again = evaluation(tmp_path / "again", trained / "Lift.onnx")
    theirs = evaluation(tmp_path / "theirs", tmp_path / "other.onnx")
    for arguments, message in (
        ([theirs], "another Lift policy"),
        ([ours, again], "once more in nominal, paper, test, alone"),
        ([str(tmp_path)], "no finished evaluation"),
        (["--data", str(files["plain"])], "these differ: Lift.hdf5, plain.hdf5"),
    ):
        assert main(["card", str(trained), *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("{", "not a report by demos-replay"),
        ('{"task": "Lift"}', "not a report by demos-replay"),
        ('{"task": "Lift", "command": "", "files": {}, "demos": []}', "tells of 0 successful replays"),
    ],
)
def test_reports_that_are_not_of_the_data_are_refused(
    report: str, message: str, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "Lift.hdf5"
    shutil.copy(files["plain"], file)
    file.with_suffix(".report.json").write_text(report)
    assert main([*lift(tmp_path / "out", file), "--steps", "2"]) == 2
    assert message in capsys.readouterr().err
