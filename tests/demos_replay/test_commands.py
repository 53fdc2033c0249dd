"""The command ``demos-replay``: its output, its files and its error messages; and that its files are installed."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from log_files import motion, write_robosuite, write_teleop
from log_files_real import write_act_end_effector
from logs import read_logs
from synthetic_demo import make_demo

import demos_replay
import oc_residual_gym
from demos_replay.cli import main
from demos_replay.log import Log
from demos_replay.readers import probe, probe_worker
from demos_replay.replay import Replayer
from demos_replay.writers.robomimic import read_demos, write_demos
from oc_residual_gym.tasks import TASKS

COMMANDS = ("logs", "inspect", "validate", "replay", "record", "convert")


def one_demonstration(path: Path, task: str) -> Path:
    with h5py.File(demos_replay.LOGS / f"{task}.hdf5") as source, h5py.File(path, "w") as file:
        file.attrs.update(source.attrs)
        source.copy("demos/demo_0000", file, name="demos/demo_0000")
    return path


@pytest.fixture
def lift(tmp_path):
    """A log whose replay succeeds."""
    return one_demonstration(tmp_path / "lift.hdf5", "Lift")


@pytest.fixture
def data_set(tmp_path):
    path = tmp_path / "demos.hdf5"
    write_demos(path, [make_demo(0), make_demo(1)], {})
    return path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_help_lists_the_commands_without_loading_the_simulator():
    program = """
import sys
from demos_replay.cli import main
try:
    main(["--help"])
except SystemExit:
    print([name for name in ("mujoco", "robosuite", "h5py", "scipy") if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(command in output for command in COMMANDS)
    assert output.splitlines()[-1] == "[]"


def test_everything_that_comes_with_the_packages_is_installed(monkeypatch):
    """Check a regular installation: an editable one finds every file in the folders."""
    setuptools = pytest.importorskip("setuptools", reason="only setuptools knows what it would install")
    root = Path(oc_residual_gym.__file__).parents[1]
    if not (root / "setup.cfg").is_file():
        pytest.skip("this is not the source tree")
    monkeypatch.chdir(root)
    project = setuptools.Distribution()
    project.parse_config_files(["setup.cfg"])
    build = project.get_command_obj("build_py")
    build.ensure_finalized()
    installed = {root / source / name for _, source, _, names in build.data_files for name in names}
    there = {
        path
        for package in ("oc_residual_gym", "demos_replay")
        for path in (root / package).rglob("*")
        if path.suffix in (".onnx", ".hdf5", ".json", ".md", ".png", ".typed")
    }
    assert {root / "demos_replay" / "logs" / f"{task}.hdf5" for task in TASKS} <= installed
    assert any(path.suffix == ".onnx" for path in installed)
    assert installed == there


def test_logs_are_listed(capsys):
    code, output, _ = run(capsys, "logs")
    assert code == 0
    assert [Path(line).stem for line in output.splitlines()] == sorted(TASKS)
    assert all(Path(line).is_file() for line in output.splitlines())


# inspect and validate


def test_inspect_tells_what_was_understood_and_assumed(capsys, tmp_path):
    write_robosuite(tmp_path / "log.hdf5")
    code, output, _ = run(capsys, "inspect", tmp_path / "log.hdf5")
    assert code == 0
    assert "robosuite, 2 demonstrations" in output and "closes at 0.75 s, opens at 1.50 s" in output
    assert "Understood:" in output and "The environment is Lift." in output
    write_act_end_effector(tmp_path / "episode_0.hdf5")
    output = run(capsys, "inspect", tmp_path / "episode_0.hdf5")[1]
    assert "Assumed:" in output and "There are 50 rows per second (ALOHA's rate)" in output


def test_texts_of_a_log_are_printed_without_control_characters(capsys, tmp_path):
    file, loud = tmp_path / "log.hdf5", "\x1b[2J\x1b[31mloud\x07\x1b]0;title\x07 \u202e"
    write_teleop(file, task=f"Lift{loud}", instruction=f"lift it\n{loud}")
    with h5py.File(file, "r+") as log:
        log.move("demos/demo_0", f"demos/{loud}")
        log.move(f"demos/{loud}/objects/cube", f"demos/{loud}/objects/{loud}")
        del log["demos/demo_1/target"]
        log.move("demos/demo_1", f"demos/{loud}{'1' * 900}")
    for command in ("inspect", "validate"):
        _, output, _ = run(capsys, command, file)
        assert "loud?" in output
        assert all(line.isprintable() and len(line) < 2500 for line in output.split("\n"))
    _, _, error = run(capsys, "replay", file, "--task", "Lift", "--mode", "states", "--demo", "none", "--out", "x.mp4")
    assert "loud?" in error and error.strip().isprintable()


def test_a_commanded_opening_is_not_taken_for_a_measured_one(capsys, tmp_path):
    write_act_end_effector(tmp_path / "both.hdf5")
    write_act_end_effector(tmp_path / "commands.hdf5", **{"observations/qpos": None, "observations/qvel": None})
    assert "mm between the fingers" in run(capsys, "inspect", tmp_path / "both.hdf5")[1]
    assert "mm between the fingers" not in run(capsys, "inspect", tmp_path / "commands.hdf5")[1]


def test_validate_says_what_is_wrong_with_which_demonstration(capsys, tmp_path):
    file = tmp_path / "log.hdf5"
    write_robosuite(file)
    assert run(capsys, "validate", file)[0] == 0
    with h5py.File(file, "a") as content:
        content["data/demo_2/states"][3, 4] = np.nan
    code, output, _ = run(capsys, "validate", file)
    assert code == 1
    assert "demo_2: cannot be used" in output and "1 of 2 demonstrations can be used" in output


@pytest.mark.parametrize(
    ("unit", "rate", "message"),
    [
        (1e3, 20.0, "its rows are 50 apart in time, but at its rate of 20 Hz 0.05 s"),
        (1e9, 20.0, "give time in seconds"),
        (1.0, 100.0, "but at its rate of 100 Hz 0.01 s"),
        (20.0, 1.0, None),
    ],
)
def test_time_must_be_in_seconds_and_fit_the_rate(capsys, tmp_path, unit, rate, message):
    m = motion()
    m.time[:] *= unit
    write_teleop(tmp_path / "log.hdf5", m, rate=rate)
    code, output, _ = run(capsys, "validate", tmp_path / "log.hdf5")
    assert code == (0 if message is None else 1)
    assert message is None or message in output


def test_a_log_of_more_than_an_hour_is_rejected(capsys, tmp_path):
    m = motion()
    m.time[20:] += 3600.0
    write_teleop(tmp_path / "log.hdf5", m)
    code, output, _ = run(capsys, "validate", tmp_path / "log.hdf5")
    assert code == 1 and "3600 s at most" in output


@pytest.mark.parametrize("command", ["inspect", "validate"])
def test_a_file_that_is_not_a_log_is_an_error(capsys, tmp_path, command):
    (tmp_path / "notes.txt").write_text("notes")
    for path, message in [("notes.txt", "not HDF5"), ("missing.hdf5", "does not exist"), (".", "is a folder")]:
        code, _, error = run(capsys, command, tmp_path / path)
        assert code == 2 and error.startswith(f"demos-replay {command}: ") and message in error


def test_a_large_file_may_take_longer_to_read(capsys, tmp_path, monkeypatch):
    write_robosuite(tmp_path / "log.hdf5")
    slow = tmp_path / "slow.py"
    slow.write_text("import sys, time\nfor line in sys.stdin:\n    time.sleep(1)\n    print('null', flush=True)\n")
    with monkeypatch.context() as patch:
        patch.setattr(probe_worker, "__file__", str(slow))
        patch.setattr(probe, "PATIENCE", 0.1)
        probe.stop()
        code, _, error = run(capsys, "validate", tmp_path / "log.hdf5")
        assert code == 2 and "took too long to read" in error and "try again" in error
        patch.setattr(probe, "SLOWEST", 100.0)
        assert run(capsys, "validate", tmp_path / "log.hdf5")[0] == 0
        probe.stop()


# replay


def test_replay_prints_a_table_and_the_assumptions(capsys, tmp_path, lift):
    out = tmp_path / "out" / "demos.hdf5"
    code, output, _ = run(capsys, "replay", lift, "--out", out)
    assert code == 0
    assert "lift/demo_0000 success" in output and "Lift: 1 of 1 succeed" in output and "Assumptions:" in output
    assert [demo.name for demo in read_demos(out)] == ["lift/demo_0000"]
    assert json.loads(out.with_suffix(".report.json").read_text())["command"].startswith("demos-replay replay ")


def test_replay_without_any_success_says_so_by_its_exit_code(capsys, tmp_path, lift):
    with h5py.File(lift, "a") as content:
        content["demos/demo_0000/time"][3] = 0.0
    code, output, _ = run(capsys, "replay", lift, "--task", "Lift", "--out", tmp_path / "demos.hdf5")
    assert code == 1
    assert "time does not increase" in output and "0 of 1 succeed, 0 fail, 1 skipped" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demos.report.json", "lift.hdf5"]


LOG, OUT, BELOW = "lift.hdf5", "new/demos.hdf5", "notes.txt/demos.hdf5"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.hdf5", "--out", OUT], "missing.hdf5 does not exist"),
        (["notes.txt", "--out", OUT], "notes.txt is not HDF5"),
        ([LOG, LOG, "--out", OUT], "given twice"),
        ([LOG, "--task", "Juggle", "--out", OUT], "choose one of Lift"),
        ([LOG, "--out", "demos.csv"], "ends in .csv"),
        ([LOG, "--out", BELOW], "cannot read or write: Not a directory"),
        ([LOG, "--out", "notes.txt/folder"], "Not a directory"),
        ([LOG, "--out", "lift.hdf5"], "exists already"),
        ([LOG, "--out", OUT, "--objects", "missing.json"], "cannot read start poses: missing.json does not exist"),
        ([LOG, "--out", OUT, "--objects", "notes.txt"], "cannot read start poses: notes.txt is not JSON"),
        ([LOG, "--out", OUT, "--objects", "poses.json"], "poses.json: 'demo_7' is not a demonstration"),
        ([LOG, "--out", OUT, "--demo", "demo_0000"], "--mode states"),
        ([LOG, "--mode", "states", "--out", OUT], "must end in .mp4"),
        ([LOG, LOG, "--mode", "states", "--out", "new/a.mp4"], "shows one file"),
        ([LOG, "--mode", "states", "--images", "--out", "new/a.mp4"], "without --images"),
        ([LOG, "--mode", "states", "--domain", "twin", "--out", "new/a.mp4"], "without --images and --domain"),
        ([LOG, "--mode", "states", "--demo", "demo_7", "--out", "new/a.mp4"], "it has demo_0000"),
        ([LOG, "--mode", "states", "--task", "Juggle", "--out", "new/a.mp4"], "choose one of Lift"),
        ([LOG, "--mode", "states", "--objects", "poses.json", "--out", "new/a.mp4"], "'demo_7' is not a demonstration"),
        ([LOG, "--mode", "states", "--out", "notes.txt/a.mp4"], "cannot read or write"),
    ],
)
def test_a_mistake_is_explained_and_leaves_nothing_behind(capsys, tmp_path, monkeypatch, lift, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "poses.json").write_text('{"demo_7": {}}')
    before = contents(tmp_path)
    code, _, error = run(capsys, "replay", *arguments)
    assert code == 2
    assert error.startswith("demos-replay replay: ") and message in error and "Traceback" not in error
    assert contents(tmp_path) == before


def test_the_current_folder_can_be_the_output(capsys, tmp_path, monkeypatch, lift):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert run(capsys, "replay", lift, "--out", ".")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["Lift.hdf5", "Lift.report.json"]


def test_an_interrupted_replay_says_how_to_go_on(capsys, tmp_path, monkeypatch, lift):
    def interrupted(self, logs, poses=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(Replayer, "run", interrupted)
    code, _, error = run(capsys, "replay", lift, "--out", tmp_path / "demos.hdf5")
    assert code == 130 and "run the same command again" in error


def test_states_are_shown_from_the_start_poses_given(capsys, tmp_path):
    log = one_demonstration(tmp_path / "log.hdf5", "CloseDrawer")
    with h5py.File(log, "a") as content:
        demo = content["demos/demo_0000"]
        poses = {name: values[0].astype(float).tolist() for name, values in demo["objects"].items()}
        del demo["objects"]
        for name, values in list(demo.items()):
            short = values[:6]
            del demo[name]
            demo[name] = short
    video = tmp_path / "states.mp4"
    show = ["replay", log, "--mode", "states", "--out", video]
    code, _, error = run(capsys, *show)
    assert code == 2 and not video.exists() and "--objects" in error
    (tmp_path / "poses.json").write_text(json.dumps({"demo_0000": poses}))
    code, output, error = run(capsys, *show, "--objects", tmp_path / "poses.json")
    assert code == 0 and "frames of demo_0000" in output, error
    assert video.stat().st_size > 1000


# record


def test_record_says_what_it_did(capsys, tmp_path):
    file = tmp_path / "new" / "log.hdf5"
    code, output, _ = run(
        capsys, "record", "--task", "CloseDrawer", "--operator", "scripted", "--demos", "1", "--out", file
    )
    assert code == 0 and "1 demonstrations, 1 new" in output
    (log,) = read_logs(file)
    assert isinstance(log, Log) and log.task == "CloseDrawer"
    assert [path.name for path in file.parent.iterdir()] == ["log.hdf5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "Juggle", "--out", "log.hdf5"], "choose one of Lift"),
        (["--task", "Lift", "--out", "notes.txt"], "is not a log of Lift"),
        (["--task", "Lift", "--out", "notes.txt/log.hdf5"], "cannot read or write"),
        (["--task", "Lift", "--out", "."], "give another --out"),
    ],
)
def test_a_mistake_in_record_shows_before_the_first_demonstration(capsys, tmp_path, monkeypatch, arguments, message):
    def never(*arguments):
        raise AssertionError("somebody's work would be lost")

    monkeypatch.setattr("demos_replay.record._run", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    before = contents(tmp_path)
    code, _, error = run(capsys, "record", "--operator", "scripted", *arguments)
    assert code == 2 and message in error
    assert contents(tmp_path) == before


# convert


@pytest.mark.parametrize(("target", "package"), [("lerobot", "pyarrow"), ("minari", "minari")])
def test_convert(capsys, tmp_path, monkeypatch, data_set, target, package):
    pytest.importorskip(package, reason=f"converting to {target} needs the extra datasets")
    monkeypatch.chdir(tmp_path)
    code, output, error = run(capsys, "convert", data_set.name, "--to", target, "--out", "converted")
    assert code == 0 and "2 demonstrations" in output, error
    assert len(contents(tmp_path / "converted")) > 3
    if target == "lerobot":  # newer LeRobot refuses v2.1 and wants it converted
        assert "v2.1, which LeRobot below 0.4" in output
        assert f"convert_dataset_v21_to_v30 --push-to-hub false --repo-id converted --root {tmp_path}" in output
    code, _, error = run(capsys, "convert", data_set.name, "--to", target, "--out", "converted")
    assert code == 2 and "exists already" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.hdf5", "--to", "lerobot", "--out", "new"], "does not exist"),
        (["notes.txt", "--to", "lerobot", "--out", "new"], "not HDF5"),
        (["lift.hdf5", "--to", "lerobot", "--out", "new"], "was not written by demos-replay"),
        (["demos.hdf5", "--to", "lerobot", "--out", "notes.txt"], "exists already"),
        (["demos.hdf5", "--to", "lerobot", "--out", "notes.txt/new"], "cannot read or write"),
        (["demos.hdf5", "--to", "minari", "--out", "new", "--dataset-id", "no id"], "'no id' is not an id"),
    ],
)
def test_a_mistake_in_convert_leaves_nothing_behind(capsys, tmp_path, monkeypatch, lift, data_set, arguments, message):
    pytest.importorskip("pyarrow", reason="converting needs the extra datasets")
    pytest.importorskip("minari", reason="converting needs the extra datasets")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("notes")
    before = contents(tmp_path)
    code, _, error = run(capsys, "convert", *arguments)
    assert code == 2
    assert error.startswith("demos-replay convert: ") and message in error
    assert contents(tmp_path) == before


@pytest.mark.parametrize("arguments", [[], ["replay"], ["replay", "a.hdf5"], ["convert", "a", "--to", "csv"], ["play"]])
def test_wrong_usage_is_answered_with_the_right_one(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage: demos-replay" in capsys.readouterr().err
