"""Files from outside may be anything, and disks may be full, read-only or without locks."""

from __future__ import annotations

import ast
import errno
import fcntl
import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from disks import full_disk

from demos_replay.log import LogError
from demos_replay.readers import open_log
from oc_residual_gym import files, hdf5, parsing
from oc_residual_gym.errors import FileError, SettingsError
from oc_residual_gym.perception.calibration import load_calibration
from oc_residual_gym.policies.onnx_policy import load_onnx
from oc_residual_gym.real.cell import load_cell

ROOT = Path(__file__).parents[1]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


# Text, YAML and JSON

BAD_YAML = {
    "name: lab\nname: other\n": "'name' is there twice",
    "robot: {host: 10.0.0.2, host: 10.0.0.3}": "'host' is there twice",
    "robot: &one {host: 10.0.0.2}\nposes: *one": "anchors and aliases",
    "a: &a [1]": "anchors and aliases",
    "poses: *nothing": "anchors and aliases",
    5000 * "[": "nested too deeply",
    20000 * "{a: " + "1" + 20000 * "}": "nested too deeply",
    "date: 2026-13-45": "not a YAML file",
    "a: [": "not a YAML file",
    "a: !!python/object/apply:os.system [exit]": "not a YAML file",
    "? {a: 1}\n: b": "not a YAML file",
    "a: \x00": "not a YAML file",
    LFS: "git lfs pull",
    "": "is empty",
    "#" * (parsing.MOST_YAML + 1): "more than",
}


@pytest.mark.parametrize(("text", "problem"), BAD_YAML.items(), ids=range(len(BAD_YAML)))
@pytest.mark.parametrize("load", [parsing.read_yaml, load_cell, load_calibration])
def test_yaml_that_says_two_things_or_too_much_is_refused(
    load: Callable[[Path], object], text: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=problem) as error:
        load(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("load", [parsing.read_yaml, load_cell, load_calibration])
def test_bad_bytes_are_not_text(load: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "cell.yaml"
    path.write_bytes("name: Küche".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"not text in UTF-8.* at byte 7"):
        load(path)
    with pytest.raises(SettingsError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(SettingsError, match="does not exist"):
        load(tmp_path / "none.yaml")


def test_plain_yaml_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text("a: {b: [1, 2.5, x, null, true], c: {}}\nd: 'é'\n")
    assert parsing.read_yaml(path) == {"a": {"b": [1, 2.5, "x", None, True], "c": {}}, "d": "é"}
    assert load_cell(ROOT / "examples" / "cell.yaml").robot.host


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "not finite"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        (100000 * "[", "nested too deeply"),
        ('{"a": ', "cut off"),
        (LFS, "git lfs pull"),
        ("", "is empty"),
    ],
)
def test_json_that_parsers_read_differently_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(FileError, match=problem) as error:
        parsing.read_json(path)
    assert str(path) in str(error.value)


def test_a_policy_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    path = tmp_path / "Lift.onnx"
    path.write_text(LFS)
    with pytest.raises(ValueError, match=r"Lift\.onnx is a Git LFS pointer.*git lfs pull"):
        load_onnx(path)


# HDF5


def test_an_unwritten_dataset_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "small.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("demos/demo_0/time", (100_000, 10_000), "f8", chunks=(1000, 1000))
    assert path.stat().st_size < 20_000
    with (
        pytest.raises(FileError, match=r"8,000 MB.*can hold.*/demos/demo_0/time.*\(100000, 10000\)"),
        hdf5.opened(path),
    ):
        pass
    with pytest.raises(LogError, match=r"8,000 MB.*/demos/demo_0/time"), open_log(path):
        pass


def test_many_datasets_that_are_large_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "many.hdf5"
    with h5py.File(path, "w") as file:
        for name in "abcdefghijklmnop":
            file.create_dataset(name, (5_000_000,), "i1", chunks=(5_000_000,))  # 40 MB each when read as float64
    with pytest.raises(FileError, match="640 MB"), hdf5.opened(path):
        pass


def test_one_dataset_that_is_too_large_is_named(tmp_path: Path) -> None:
    path = tmp_path / "large.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (20_000_000,), "i1", chunks=(1_000_000,))
        file["small"] = np.arange(3, dtype=np.int16)
    with hdf5.opened(path) as file:
        assert hdf5.read(file["small"]).dtype == np.float64
        with pytest.raises(FileError, match=r"large\.hdf5: /x has shape \(20000000,\), 160 MB; at most 134 MB"):
            hdf5.read(file["x"])


def test_what_compresses_well_is_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "zeros.hdf5"
    with h5py.File(path, "w") as file:
        zeros = file.create_dataset("x", (40_000_000,), "f8", chunks=(1_000_000,), compression="gzip")
        chunk = zlib.compress(bytes(8_000_000))
        for row in range(0, len(zeros), 1_000_000):
            zeros.id.write_direct_chunk((row,), chunk)
    with hdf5.opened(path) as file:
        assert file["x"].shape == (40_000_000,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(LFS.encode(), "git lfs pull"), (b"", "is empty"), (b"text", "is not HDF5"), (None, "exist")],
)
def test_what_is_not_hdf5_is_named(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "log.hdf5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=problem), hdf5.opened(path):
        pass
    with pytest.raises(LogError, match=problem), open_log(path):
        pass


def test_no_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "demos.hdf5"
    with hdf5.written(path) as file:
        file["x"] = np.arange(3)
        with open(path, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(path, "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with hdf5.opened(path) as file:
            assert hdf5.read(file["x"]).tolist() == [0, 1, 2]


def test_hdf5_files_are_opened_in_one_place_only() -> None:
    packages = ("oc_residual_gym", "demos_replay", "baselines", "leaderboard")
    openers = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("h5py.File", "File")
    }
    assert openers == {"oc_residual_gym/hdf5.py", "demos_replay/readers/probe_worker.py"}


@pytest.mark.parametrize("size", [0, 3000, 100_000])
def test_a_full_disk_is_an_error_that_names_the_file(size: int, tmp_path: Path) -> None:
    path = tmp_path / "demos.hdf5"

    def write() -> None:
        with full_disk(size), hdf5.written(path) as file:
            for i in range(200):
                group = file.create_group(f"demo_{i}")
                group.attrs["text"] = "x" * 500
                group.create_dataset("y", data=np.random.default_rng(i).random(100), compression="gzip")

    with pytest.raises(OSError, match="too large") as error:
        write()
    assert error.value.filename == str(path)


def test_a_file_in_memory_is_changed_in_memory() -> None:
    content = io.BytesIO()
    for i in range(2):
        with hdf5.changed(content) as file:
            file[f"x{i}"] = i
    with hdf5.changed(content) as file:
        assert sorted(file) == ["x0", "x1"]


# Folders


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_usable(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def without(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    with files.alone(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()
    assert str(tmp_path / "out") in caplog.text


def test_a_pipe_or_device_is_written_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_json(path, {"a": 1})
        assert json.loads(os.read(reader, 1000)) == {"a": 1}
    finally:
        os.close(reader)
    assert path.is_fifo()


def test_another_run_is_told_apart_in_words(tmp_path: Path) -> None:
    there = {
        "tasks": ("Lift", "Stack"),
        "episodes": 50,
        "hashes": {"base": {"Lift": "a" * 64}, "residual": {"Lift": None}, "simulation": "1" * 64},
        "versions": {"numpy": "1.26.4", "mujoco": "3.9.0"},
        "cell": {"robot": {"speed_cap": 0.1}},
    }
    now = {
        "tasks": ("Lift",),
        "episodes": 20,
        "hashes": {"base": {"Lift": "b" * 64}, "residual": {"Lift": "c" * 64}, "simulation": "2" * 64},
        "versions": {"numpy": "2.4.6", "mujoco": "3.9.0"},
        "cell": {"robot": {"speed_cap": 0.2}},
    }
    files.claim(tmp_path, "settings.json", there)
    files.claim(tmp_path, "settings.json", there)
    with pytest.raises(SettingsError) as error:
        files.claim(tmp_path, "settings.json", now)
    assert str(error.value).split("\n  ")[1:] == [
        "tasks: [Lift, Stack] there, [Lift] now",
        "episodes per task: 50 there, 20 now",
        "base policy, Lift: another content there than now",
        "residual policy, Lift: none there, a file now",
        "physics and code of the simulation: another content there than now",
        "version of numpy: 1.26.4 there, 2.4.6 now",
        "cell, robot, speed_cap: 0.1 there, 0.2 now",
    ]
    assert "a" * 64 not in str(error.value)


def test_settings_that_are_damaged_are_named(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"tasks": ["Li')
    with pytest.raises(SettingsError, match=r"settings\.json is not JSON, or cut off"):
        files.claim(tmp_path, "settings.json", {})
