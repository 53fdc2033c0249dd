"""Replay jobs: every demonstration has a name, an outcome and a reason; nothing is lost or overwritten."""

import json
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic_demo import make_demo

from demos_replay import LOGS, disk, job
from demos_replay.job import ReplaySettings, replay_files
from demos_replay.log import LogError
from demos_replay.replay import Replayer
from demos_replay.report import table
from demos_replay.sources import by_task, find_sources, read_start_poses
from demos_replay.writers.robomimic import read_demos


def few(path: Path, task: str, count: int) -> Path:
    """A log file with the first demonstrations of a shipped one."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(LOGS / f"{task}.hdf5") as source, h5py.File(path, "w") as file:
        file.attrs.update(source.attrs)
        for name in sorted(source["demos"])[:count]:
            source.copy(f"demos/{name}", file, name=f"demos/{name}")
    return path


def spoil(file: Path, *demos: str) -> None:
    with h5py.File(file, "a") as content:
        for demo in demos:
            content[f"demos/{demo}/target"][3] = np.nan


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def never_simulate(monkeypatch: pytest.MonkeyPatch, demo=lambda name: make_demo(name=name, task="Lift")) -> None:
    """Make every replay return ``demo`` without simulating."""
    monkeypatch.setattr(Replayer, "__init__", lambda *arguments, **options: None)
    monkeypatch.setattr(Replayer, "close", lambda self: None)
    monkeypatch.setattr(Replayer, "run", lambda self, logs, poses=None: ((name, demo(name)) for name, _ in logs))


# What a job makes


def test_a_job_keeps_failures_and_reasons_apart(tmp_path):
    file = few(tmp_path / "lift.hdf5", "Lift", 4)
    spoil(file, "demo_0001")
    with h5py.File(file, "a") as content:
        content["demos/demo_0002/objects/block"][:, 1] += 0.12
    out = tmp_path / "out" / "demos.hdf5"
    report = replay_files(ReplaySettings((file,), out))["Lift"]
    assert [entry["status"] for entry in report["demos"]] == ["success", "skipped", "failed", "success"]
    assert "not finite" in report["demos"][1]["reason"] and report["demos"][2]["reason"] == "no_reach"
    assert [demo.name for demo in read_demos(out)] == ["lift/demo_0000", "lift/demo_0003"]
    assert [demo.name for demo in read_demos(out.with_suffix(".failed.hdf5"))] == ["lift/demo_0002"]
    assert json.loads(out.with_suffix(".report.json").read_text())["demos"] == report["demos"]
    assert names(out.parent) == ["demos.failed.hdf5", "demos.hdf5", "demos.report.json"]
    with pytest.raises(LogError, match="exists already"):
        replay_files(ReplaySettings((file,), out))


def test_several_tasks_go_into_one_folder(tmp_path):
    files = tuple(few(tmp_path / f"{task}.hdf5", task, 2) for task in ("Lift", "CloseDrawer"))
    spoil(files[0], "demo_0001")
    reports = replay_files(ReplaySettings(files, tmp_path / "demos"))
    assert names(tmp_path / "demos") == [
        "CloseDrawer.hdf5", "CloseDrawer.report.json", "Lift.hdf5", "Lift.report.json",
    ]  # fmt: skip
    for task in ("Lift", "CloseDrawer"):
        assert {demo.task for demo in read_demos(tmp_path / "demos" / f"{task}.hdf5")} == {task}
        assert list(reports[task]["files"]) == [str(tmp_path / f"{task}.hdf5")]
        assert [entry["name"] for entry in reports[task]["demos"]] == [f"{task}/demo_000{i}" for i in range(2)]


def test_images_are_what_the_cameras_saw(tmp_path):
    file = few(tmp_path / "lift.hdf5", "Lift", 1)
    replay_files(ReplaySettings((file,), tmp_path / "demos.hdf5", images=True))
    (demo,) = read_demos(tmp_path / "demos.hdf5")
    assert set(demo.images) == {"shoulder", "wrist"}
    for pictures in demo.images.values():
        assert pictures.shape == (len(demo.tcp_pose), 128, 128, 3) and pictures.dtype == np.uint8
        assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 1.0


def test_start_poses_reach_the_demonstration_that_they_name(tmp_path):
    files = tuple(few(tmp_path / folder / "trajectory.hdf5", "Lift", 1) for folder in ("a", "b"))
    with h5py.File(files[1]) as content:
        block = content["demos/demo_0000/objects/block"][0].astype(float)
    sidecar = tmp_path / "poses.json"
    aside = block + 0.12 * np.eye(7)[1]
    sidecar.write_text(json.dumps({"b/trajectory/demo_0000": {"block": aside.tolist()}}))
    report = replay_files(ReplaySettings(files, tmp_path / "demos.hdf5", objects=sidecar))["Lift"]
    assert [(entry["name"], entry["status"]) for entry in report["demos"]] == [
        ("a/trajectory/demo_0000", "success"),
        ("b/trajectory/demo_0000", "failed"),
    ]
    assert [entry["file"] for entry in report["demos"]] == [str(file) for file in files]


def test_a_demonstration_that_cannot_be_written_is_skipped(tmp_path, monkeypatch):
    file = few(tmp_path / "lift.hdf5", "Lift", 2)

    def diverges_once(name):
        demo = make_demo(name=name, task="Lift")
        return replace(demo, qpos=np.full_like(demo.qpos, np.nan)) if name.endswith("0") else demo

    never_simulate(monkeypatch, diverges_once)
    report = replay_files(ReplaySettings((file,), tmp_path / "demos.hdf5"))["Lift"]
    assert [entry["status"] for entry in report["demos"]] == ["skipped", "success"]
    assert "not finite" in report["demos"][0]["reason"]


@pytest.mark.parametrize(
    ("away", "images", "most"), [(0.9, False, "limit is 600 s"), (0.2, True, "limit with images is 120 s")]
)
def test_a_log_that_takes_too_long_is_skipped(tmp_path, away, images, most):
    """Its rows are so far apart that the robot takes many steps for each."""
    file = few(tmp_path / "lift.hdf5", "Lift", 2)
    with h5py.File(file, "a") as content:
        target = content["demos/demo_0000/target"]
        target[::2, 1], target[1::2, 1] = away, -away
    report = replay_files(ReplaySettings((file,), tmp_path / "demos.hdf5", images=images))["Lift"]
    assert [entry["status"] for entry in report["demos"]] == ["skipped", "success"]
    assert most in report["demos"][0]["reason"]


def test_long_commands_and_many_files_do_not_break_the_data_set(tmp_path, monkeypatch):
    file = few(tmp_path / "lift.hdf5", "Lift", 1)
    never_simulate(monkeypatch)
    command = "demos-replay replay " + 5000 * "some/folder/trajectory.h5 "
    assert replay_files(ReplaySettings((file,), tmp_path / "demos.hdf5"), command)["Lift"]["command"] == command
    assert [demo.name for demo in read_demos(tmp_path / "demos.hdf5")] == ["lift/demo_0000"]


def test_the_table_counts_what_came_too_late():
    entry = {"name": "lift/demo_0", "status": "success", "within_time_limit": True, "tcp_drift_mm": {}}
    demos = [entry, entry | {"within_time_limit": False}, {"name": "x", "status": "skipped", "reason": "it is empty"}]
    text = table({"task": "Lift", "demos": demos})
    assert "2 of 3 succeed (1 of them after the task's time limit of 300 steps), 0 fail, 1 skipped" in text
    assert "x           skipped    it is empty" in text


# Names, and files that cannot be used


def test_logs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    files = [few(tmp_path / folder / "demo.hdf5", "Lift", 1) for folder in ("monday", "tuesday")]
    files.append(few(tmp_path / "other.hdf5", "Lift", 1))
    assert [source.name for source in find_sources(files, "Lift")] == [
        "monday/demo/demo_0000",
        "tuesday/demo/demo_0000",
        "other/demo_0000",
    ]
    files = [few(tmp_path / name, "Lift", 1) for name in ("log.h5", "log.hdf5")]
    assert [source.name for source in find_sources(files, "Lift")] == ["log.h5/demo_0000", "log.hdf5/demo_0000"]
    with pytest.raises(LogError, match=r"log\.h5 is given twice"):
        find_sources([files[0], tmp_path / "monday" / ".." / "log.h5"], "Lift")


def test_a_file_that_cannot_be_used_is_skipped_beside_others(tmp_path, monkeypatch):
    good, broken = few(tmp_path / "good.hdf5", "Lift", 1), tmp_path / "broken.hdf5"
    broken.write_bytes(good.read_bytes()[:5000])
    never_simulate(monkeypatch)
    for i, task in enumerate(("Lift", None)):
        files = (broken, tmp_path / "missing.hdf5", good)
        entries = replay_files(ReplaySettings(files, tmp_path / f"{i}.hdf5", task))["Lift"]["demos"]
        assert [(entry["name"], entry["demo"], entry["status"]) for entry in entries] == [
            ("broken", "", "skipped"),
            ("missing", "", "skipped"),
            ("good/demo_0000", "demo_0000", "success"),
        ]
        assert "cut off" in entries[0]["reason"] and "does not exist" in entries[1]["reason"]
    with pytest.raises(LogError, match=r"(?s)broken\.hdf5 is not HDF5.*missing\.hdf5 does not exist"):
        replay_files(ReplaySettings((broken, tmp_path / "missing.hdf5"), tmp_path / "none.hdf5", "Lift"))


def test_where_no_log_can_be_used_every_reason_is_given(tmp_path):
    file = few(tmp_path / "lift.hdf5", "Lift", 3)
    spoil(file, "demo_0002")
    with h5py.File(file, "a") as content:
        for demo in ("demo_0000", "demo_0001"):
            del content[f"demos/{demo}"].attrs["task"]
    with pytest.raises(LogError, match=r"(?s)demo_0000 and 1 more: .*give --task.*demo_0002: .*not finite"):
        find_sources([file], None)


def test_what_cannot_be_read_belongs_to_the_tasks_of_its_file(tmp_path):
    lift, stack = few(tmp_path / "lift.hdf5", "Lift", 2), few(tmp_path / "stack.hdf5", "Stack", 1)
    spoil(lift, "demo_0001")
    tasks = by_task(find_sources([lift, stack, tmp_path / "missing.hdf5"], None))
    assert [source.name for source in tasks["Lift"]] == ["lift/demo_0000", "lift/demo_0001", "missing"]
    assert [source.name for source in tasks["Stack"]] == ["stack/demo_0000", "missing"]


# The sidecar file


BLOCK = [0.4, 0.0, 0.02, 0.0, 0.0, 0.0, 1.0]


@pytest.fixture
def two_files(tmp_path):
    """A file with two demonstrations and a file with one; only the name demo_0001 is unique."""
    return find_sources([few(tmp_path / f"{name}.hdf5", "Lift", count) for name, count in (("a", 2), ("b", 1))], None)


def test_start_poses_go_by_as_much_of_a_name_as_is_unique(tmp_path, two_files):
    file = tmp_path / "poses.json"
    file.write_text(json.dumps({"b/demo_0000": {"block": BLOCK}, "demo_0001": {}}))
    poses = read_start_poses(file, two_files)
    assert set(poses) == {"b/demo_0000", "a/demo_0001"}
    np.testing.assert_array_equal(poses["b/demo_0000"]["block"], BLOCK)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "Expecting value"),
        ("[]", "holds no start poses"),
        ({"demo_0000": {"block": BLOCK}}, "'demo_0000' may be any of a/demo_0000, b/demo_0000"),
        ({"demo_0007": {"block": BLOCK}}, "'demo_0007' is not a demo.* a/demo_0000, a/demo_0001, b/demo_0000"),
        ({"demo_0001": {"brick": BLOCK}}, "'demo_0001' has 'brick', but Lift has block"),
        ({"demo_0001": {"block": BLOCK}, "a/demo_0001": {}}, "'a/demo_0001' is a/demo_0001, which has its poses"),
        ({"demo_0001": [1, 2]}, "'demo_0001' must have"),
        ({"demo_0001": {"block": [1, 2]}}, "'block' of 'demo_0001' is not a pose"),
        ({"demo_0001": {"block": "here"}}, "'block' of 'demo_0001' is not a pose"),
        ({"demo_0001": {"block": [0, 0, 0, 0, 0, 0, 5]}}, "'block' of 'demo_0001' is not a pose"),
    ],
)
def test_a_wrong_entry_of_a_sidecar_file_is_named(tmp_path, two_files, content, message):
    file = tmp_path / "poses.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(LogError, match=rf"(?s)poses\.json.*{message}"):
        read_start_poses(file, two_files)


# Interruptions, and what is there already


def test_an_interrupted_job_goes_on_where_it_stopped(tmp_path, monkeypatch):
    file = few(tmp_path / "lift.hdf5", "Lift", 3)
    whole, broken = tmp_path / "whole.hdf5", tmp_path / "broken.hdf5"
    replay_files(ReplaySettings((file,), whole))
    run = Replayer.run
    replayed = []

    def until_interrupted(self, logs, poses=None):
        for name, demo in run(self, logs, poses):
            if replayed:
                raise KeyboardInterrupt
            replayed.append(name)
            yield name, demo

    monkeypatch.setattr(Replayer, "run", until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        replay_files(ReplaySettings((file,), broken))
    assert not broken.exists()
    with pytest.raises(LogError, match="another replay"):
        replay_files(ReplaySettings((file,), broken, domain="twin"))
    again = []

    def counting(self, logs, poses=None):
        for name, demo in run(self, logs, poses):
            again.append(name)
            yield name, demo

    monkeypatch.setattr(Replayer, "run", counting)
    replay_files(ReplaySettings((file,), broken))
    assert len(again) == 2 and not set(again) & set(replayed)
    for one, other in zip(read_demos(whole), read_demos(broken), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.qpos, other.qpos)


@pytest.mark.parametrize("stops_at", [1, 2, 3])
def test_a_job_that_was_interrupted_while_writing_goes_on(tmp_path, monkeypatch, stops_at):
    file = few(tmp_path / "lift.hdf5", "Lift", 2)
    out = tmp_path / "out" / "demos.hdf5"
    never_simulate(monkeypatch, lambda name: make_demo(name=name, task="Lift", success=name.endswith("0"), failure="x"))
    writes = 0

    def interrupted(write):
        def wrapped(*arguments):
            nonlocal writes
            writes += 1
            if writes == stops_at:
                raise KeyboardInterrupt
            return write(*arguments)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(job, "assemble", interrupted(job.assemble))
        patch.setattr(job.shutil, "rmtree", interrupted(job.shutil.rmtree))
        with pytest.raises(KeyboardInterrupt):
            replay_files(ReplaySettings((file,), out))
    assert "demos.hdf5.parts" in names(out.parent)
    replay_files(ReplaySettings((file,), out))
    assert names(out.parent) == ["demos.failed.hdf5", "demos.hdf5", "demos.report.json"]


@pytest.mark.parametrize("name", ["demos.hdf5", "demos.failed.hdf5", "demos.report.json", "demos.hdf5.parts/notes"])
def test_what_is_there_already_is_left_alone(tmp_path, name):
    file = few(tmp_path / "lift.hdf5", "Lift", 1)
    taken = tmp_path / name
    taken.parent.mkdir(exist_ok=True)
    taken.write_text("mine")
    before = names(tmp_path)
    with pytest.raises(LogError, match=r"demos.*remove it"):
        replay_files(ReplaySettings((file,), tmp_path / "demos.hdf5"))
    assert taken.read_text() == "mine" and names(tmp_path) == before


def test_the_logs_themselves_are_never_overwritten(tmp_path):
    file = few(tmp_path / "Lift.hdf5", "Lift", 1)
    before = file.read_bytes()
    with pytest.raises(LogError, match="exists already"):
        replay_files(ReplaySettings((file,), tmp_path / "not_there_yet" / ".."))
    assert file.read_bytes() == before


def test_a_full_disk_ends_a_job_that_can_go_on_later(tmp_path, monkeypatch):
    file = few(tmp_path / "lift.hdf5", "Lift", 1)
    out = tmp_path / "out" / "demos.hdf5"
    never_simulate(monkeypatch)
    with monkeypatch.context() as patch:
        usage = namedtuple("usage", "total used free")(10, 10, 0)
        patch.setattr(disk.shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(OSError, match="No space left"):
            replay_files(ReplaySettings((file,), out))
    replay_files(ReplaySettings((file,), out))
    assert names(out.parent) == ["demos.hdf5", "demos.report.json"]


def test_a_job_names_what_is_wrong_with_the_request(tmp_path):
    file, other = few(tmp_path / "lift.hdf5", "Lift", 1), few(tmp_path / "stack.hdf5", "Stack", 1)
    nonsense = tmp_path / "numbers.hdf5"
    with h5py.File(nonsense, "w") as content:
        content["numbers"] = np.arange(3)
    before = names(tmp_path)
    for files, out, task, message in [
        ((file, other), "both.hdf5", None, "give a folder"),
        ((file,), "out.hdf5", "Juggle", "choose one of Lift"),
        ((file,), "out.csv", None, r"\.csv"),
        ((nonsense,), "out.hdf5", "Lift", "Looked for"),
    ]:
        with pytest.raises(LogError, match=message):
            replay_files(ReplaySettings(files, tmp_path / out, task))
    assert names(tmp_path) == before
