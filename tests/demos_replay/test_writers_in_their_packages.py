"""Datasets, read by the packages that they are made for: Minari; LeRobot and robomimic in a separate environment.

``OC_RESIDUAL_TEST_CONSUMERS=1 pytest tests/demos_replay/test_writers_in_their_packages.py`` makes that environment,
once: some minutes and 7 GB (less where pip finds PyTorch without CUDA) in ``~/.cache/oc-residual-gym-tests``. Without
it, those tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_demo import make_demo

from demos_replay.demo import Demo
from demos_replay.writers.lerobot import write_lerobot
from demos_replay.writers.minari import ACTION_SPACE, write_minari
from demos_replay.writers.robomimic import write_demos

CAMERAS = ("shoulder", "wrist")
PACKAGES = ("lerobot==0.3.3", "robomimic==0.3.0")
CREATE = "OC_RESIDUAL_TEST_CONSUMERS"
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def consumers() -> Path:
    """Python interpreter of the environment with ``PACKAGES``, which need other versions than this package."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oc-residual-gym-tests"
    folder = cache / "-".join([*PACKAGES, f"python{sys.version_info.major}.{sys.version_info.minor}"])
    python = folder / "bin/python"
    if python.exists():
        return python
    if os.environ.get(CREATE) != "1":
        pytest.skip(f"there is no environment with {' and '.join(PACKAGES)}; {CREATE}=1 makes it (7 GB)")
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        subprocess.run([sys.executable, "-m", "venv", unfinished], check=True, capture_output=True, text=True)
        install = [unfinished / "bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", *PACKAGES]
        subprocess.run(install, check=True, capture_output=True, text=True)
        unfinished.rename(folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{' and '.join(PACKAGES)} cannot be installed here: {error.stderr.strip().splitlines()[-1:]}")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return python


def read_by(python: Path, script: str, dataset: Path) -> dict[str, np.ndarray]:
    """Output of ``script`` for ``dataset``, without network and GPU."""
    out = dataset.parent / "read.npz"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(dataset.parent / "hf"), "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [python, HERE / script, dataset, out], env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    with np.load(out) as content:
        return dict(content)


def test_lerobot_reads_every_row_and_trains(tmp_path: Path, consumers: Path) -> None:
    demos = [
        make_demo(0, steps=15, cameras=CAMERAS),
        make_demo(1, steps=6, cameras=CAMERAS, instruction="close the drawer"),
        make_demo(2, steps=9, cameras=CAMERAS),
    ]
    pytest.importorskip("pyarrow")
    write_lerobot(demos, tmp_path / "demos")
    read = read_by(consumers, "reads_with_lerobot.py", tmp_path / "demos")

    def joined(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)

    action = joined(*(demo.target for demo in demos))
    np.testing.assert_allclose(read["action"][:, :3], action[:, :3], atol=1e-6)
    np.testing.assert_allclose(read["action"][:, 9:13], action[:, 3:7], atol=1e-6)
    np.testing.assert_allclose(read["action"][:, 20], action[:, 7], atol=1e-6)
    np.testing.assert_allclose(read["mean"], read["action"].mean(0), atol=1e-5)
    state = joined(*(demo.tcp_pose[:-1, :3] for demo in demos))
    np.testing.assert_allclose(read["observation.state"][:, :3], state, atol=1e-6)
    joints = joined(*(demo.joint_positions[:-1] for demo in demos))
    np.testing.assert_allclose(read["observation.state"][:, 13:20], joints, atol=1e-6)
    np.testing.assert_allclose(read["next.reward"], joined(*(demo.reward for demo in demos)), atol=1e-6)
    np.testing.assert_allclose(read["timestamp"], joined(*(np.arange(len(demo.target)) for demo in demos)) / 20)
    assert read["task"].tolist() == [demo.instruction for demo in demos for _ in demo.target]
    for camera in CAMERAS:
        pictures = joined(*(demo.images[camera][:-1] for demo in demos)).transpose(0, 3, 1, 2) / 255.0
        shown = read[f"observation.images.{camera}"]
        assert shown.shape == pictures.shape
        assert np.abs(shown - pictures).mean(axis=(1, 2, 3)).max() < 0.012
    assert np.isfinite(read["loss"])


def test_robomimic_accepts_the_file_and_trains(tmp_path: Path, consumers: Path) -> None:
    demos = [make_demo(i, steps=8, cameras=CAMERAS) for i in range(4)]
    path = tmp_path / "demos.hdf5"
    write_demos(path, demos, {"synthetic": True})
    find = "import robomimic, pathlib; print(pathlib.Path(robomimic.__file__).parent)"
    package = subprocess.run([consumers, "-c", find], capture_output=True, text=True, check=True).stdout.split()[-1]
    check = [consumers, f"{package}/scripts/get_dataset_info.py", "--dataset", path, "--verbose"]
    info = subprocess.run(check, capture_output=True, text=True, check=False)
    assert info.returncode == 0, info.stdout + info.stderr
    assert "total transitions: 32" in info.stdout
    read = read_by(consumers, "reads_with_robomimic.py", path)
    assert read["demos"].tolist() == ["demo_0", "demo_1", "demo_2"]
    assert str(read["env_name"]) == "OCResidual-PickPlace-v0"
    demo = demos[0]
    np.testing.assert_allclose(read["actions"], demo.target, atol=1e-6)
    np.testing.assert_allclose(read["rewards"], demo.reward, atol=1e-6)
    np.testing.assert_allclose(read["obs/robot0_eef_pos"], demo.tcp_pose[:-1, :3], atol=1e-6)
    np.testing.assert_allclose(read["next_obs/robot0_eef_pos"], demo.tcp_pose[1:, :3], atol=1e-6)
    objects = np.concatenate([demo.objects["plate"], demo.objects["block"]], axis=1)
    np.testing.assert_allclose(read["obs/object"], objects[:-1], atol=1e-6)
    np.testing.assert_array_equal(read["obs/wrist_image"], demo.images["wrist"][:-1])
    np.testing.assert_array_equal(read["next_obs/wrist_image"], demo.images["wrist"][1:])
    assert np.isfinite(read["loss"])


def test_minari_reads_every_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    demos = [make_demo(0, cameras=CAMERAS), make_demo(1, steps=5, cameras=CAMERAS, success=False)]
    write_minari(demos, "pick-place/twin-v0", tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert list(minari.list_local_datasets()) == ["pick-place/twin-v0"]
    dataset = minari.load_dataset("pick-place/twin-v0")
    assert dataset.action_space == ACTION_SPACE
    assert dataset.total_steps == 17
    for demo, episode, metadata in zip(demos, dataset, dataset.storage.get_episode_metadata(range(2)), strict=True):
        assert_episode_is(demo, episode)
        assert dataset.action_space.contains(episode.actions[0])
        row = {name: values[0] for name, values in episode.observations.items() if not isinstance(values, dict)}
        row |= {kind: {n: v[0] for n, v in episode.observations[kind].items()} for kind in ("object", "image")}
        assert dataset.observation_space.contains(row)
        assert (metadata["name"], metadata["success"]) == (demo.name, demo.success)


def assert_episode_is(demo: Demo, episode: object) -> None:
    observations = episode.observations
    np.testing.assert_allclose(episode.actions, demo.target, atol=1e-6)
    np.testing.assert_allclose(episode.rewards, demo.reward)
    np.testing.assert_allclose(observations["eef_pos"], demo.tcp_pose[:, :3], atol=1e-6)
    np.testing.assert_allclose(observations["joint_pos"], demo.joint_positions, atol=1e-6)
    for name, poses in demo.objects.items():
        np.testing.assert_allclose(observations["object"][name], poses, atol=1e-6)
    for camera, pictures in demo.images.items():
        assert np.abs(observations["image"][camera] - pictures.astype(float)).mean() < 3.0
    ended = [False] * (len(demo.target) - 1)
    assert episode.terminations.tolist() == [*ended, demo.success]
    assert episode.truncations.tolist() == [*ended, not demo.success]
