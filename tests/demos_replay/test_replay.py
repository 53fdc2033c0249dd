"""Replay: the environments' own limits and physics, the task's own rule, and jobs that lose nothing."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from demos_replay import LOGS
from demos_replay.job import ReplaySettings, read_sidecar, replay_files
from demos_replay.log import Log, LogError
from demos_replay.path import make_path
from demos_replay.readers import read_logs
from demos_replay.replay import Replayer
from demos_replay.states import show_states
from demos_replay.transfer import place
from demos_replay.writers.robomimic import read_demos
from oc_residual_gym.envs.actions import RATE_POSITION, RATE_ROTATION
from oc_residual_gym.geometry import norm, rotation_between
from oc_residual_gym.tasks import TASKS

PERSON = Path(__file__).parents[3] / "shared" / "data" / "robosuite" / "panda_lift.hdf5"
HOME = np.array([0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0])


def shipped(task: str, count: int) -> list[Log]:
    with_reasons = list(read_logs(LOGS / f"{task}.hdf5"))
    assert len(with_reasons) == 50
    return [log for log in with_reasons if isinstance(log, Log)][:count]


def few(path: Path, task: str, count: int) -> Path:
    """A log file with the first demonstrations of a shipped one."""
    with h5py.File(LOGS / f"{task}.hdf5") as source, h5py.File(path, "w") as file:
        file.attrs.update(source.attrs)
        for name in sorted(source["demos"])[:count]:
            source.copy(f"demos/{name}", file, name=f"demos/{name}")
    return path


def test_synthetic_logs_say_that_they_are_and_replay_to_success(task):
    logs = shipped(task, 6)
    assert all(log.synthetic and log.task == task for log in logs)
    replayer = Replayer(TASKS[task], 6)
    demos = [demo for _, demo in replayer.run(logs)]
    replayer.close()
    assert sum(not isinstance(demo, LogError) and demo.success for demo in demos) >= 3
    for demo in demos:
        moves = norm(np.diff(demo.target[:, :3], axis=0))
        turns = norm(rotation_between(demo.target[:-1, 3:7], demo.target[1:, 3:7]))
        assert moves.max() < RATE_POSITION + 1e-9 and turns.max() < RATE_ROTATION + 1e-9
        assert len(demo.tcp_pose) == len(demo.target) + 1 == len(demo.reward) + 1
        assert demo.report["tcp_drift_mm"]["mean"] < 20.0


@pytest.mark.skipif(not PERSON.is_file(), reason=f"the recorded log {PERSON} is not here")
def test_a_persons_log_of_another_simulator_succeeds():
    (log,) = read_logs(PERSON)
    assert not log.synthetic and log.table_height == pytest.approx(-0.113, abs=0.002)
    replayer = Replayer(TASKS["Lift"], 1)
    ((_, demo),) = replayer.run([log])
    replayer.close()
    assert demo.success
    assert demo.report["tcp_drift_mm"]["mean"] < 10.0
    assert demo.report["object_drift_mm"]["block"]["end"] < 30.0
    assert any("'cube' stands for our block" in text for text in demo.report["assumptions"])


def test_a_demonstration_does_not_depend_on_those_beside_it():
    logs = shipped("PickPlace", 3)
    alone, together = Replayer(TASKS["PickPlace"], 1), Replayer(TASKS["PickPlace"], 3)
    first = {log.name: demo for log, demo in alone.run(logs)}
    second = {log.name: demo for log, demo in together.run(logs)}
    alone.close()
    together.close()
    for name, demo in first.items():
        np.testing.assert_array_equal(demo.qpos, second[name].qpos)


def test_an_object_that_is_elsewhere_is_not_lifted():
    log = shipped("Lift", 1)[0]
    block = log.objects["block"]
    aside = replace(block, poses=block.poses + 0.12 * np.eye(7)[1])
    replayer = Replayer(TASKS["Lift"], 1)
    ((_, demo),) = replayer.run([replace(log, objects={"block": aside})])
    replayer.close()
    assert not demo.success and demo.failure == "no_reach"


def test_a_log_that_is_too_fast_is_stretched():
    log = shipped("Lift", 1)[0]
    shift = np.zeros((len(log.time), 3))
    usual, fast = make_path(log, shift, HOME), make_path(replace(log, time=log.time / 3), shift, HOME)
    assert usual.stretched < 0.1 < fast.stretched
    assert norm(np.diff(fast.targets[:, :3], axis=0)).max() < 1.02 * RATE_POSITION
    np.testing.assert_allclose(fast.targets[-1], usual.targets[-1], atol=1e-9)
    assert np.all(np.diff(fast.rows) >= 0.0)


def test_fingers_get_the_time_they_need():
    log = shipped("Lift", 1)[0]
    rows = np.arange(40)
    pose = np.tile(HOME, (40, 1))
    pose[:, 2] += 0.005 * np.maximum(rows - 20, 0)
    hasty = replace(
        log, time=rows / 20, tcp_pose=pose, target=pose, gripper_closed=rows >= 20, objects={}, gripper_width=None
    )
    path = make_path(hasty, np.zeros((40, 3)), HOME)
    closed_and_low = (path.targets[:, 7] < 0.5) & (path.targets[:, 2] < HOME[2] + 0.006)
    assert closed_and_low.sum() >= 16


@pytest.mark.parametrize("name", ["Lift", "PickPlace", "Stack", "PegInsert"])
def test_places_are_inferred_from_the_hand_and_marked(name):
    log = shipped(name, 1)[0]
    known, inferred = place(log, TASKS[name]), place(replace(log, objects={}), TASKS[name])
    for body, pose in known.start.poses.items():
        assert np.linalg.norm(pose[:2] - inferred.start.poses[body][:2]) < (0.06 if name == "PickPlace" else 0.045)
        assert pose[2] == pytest.approx(inferred.start.poses[body][2])
    assert any("estimated" in text for text in inferred.assumptions)
    assert not any("estimated" in text for text in known.assumptions)


@pytest.mark.parametrize("name", ["CloseDrawer", "StandCup"])
def test_what_the_hand_does_not_tell_is_asked_for(name):
    log = replace(shipped(name, 1)[0], objects={})
    with pytest.raises(LogError, match="sidecar"):
        place(log, TASKS[name])


def test_a_gripper_that_never_closes_is_a_reason():
    log = shipped("Lift", 1)[0]
    with pytest.raises(LogError, match="never closes"):
        place(replace(log, objects={}, gripper_closed=np.zeros(len(log.time), bool)), TASKS["Lift"])


def test_start_poses_from_a_sidecar_file(tmp_path):
    log = shipped("PickPlace", 1)[0]
    poses = {name: item.poses[0].tolist() for name, item in log.objects.items()}
    file = tmp_path / "poses.json"
    file.write_text(json.dumps({log.name: poses}))
    placed = place(replace(log, objects={}), TASKS["PickPlace"], read_sidecar(file)[log.name])
    known = place(log, TASKS["PickPlace"])
    for name, pose in known.start.poses.items():
        np.testing.assert_allclose(placed.start.poses[name], pose)
    with pytest.raises(LogError, match="plate"):
        place(log, TASKS["PickPlace"], {"block": np.array(poses["block"])})
    for content in ("no json", "[]", '{"demo": {"block": [1, 2]}}', '{"demo": {"block": [0, 0, 0, 0, 0, 0, 5]}}'):
        file.write_text(content)
        with pytest.raises(LogError, match=r"poses\.json"):
            read_sidecar(file)


def test_a_job_keeps_failures_and_reasons_apart(tmp_path):
    file = few(tmp_path / "lift.hdf5", "Lift", 4)
    with h5py.File(file, "a") as content:
        demos = content["demos"]
        demos["demo_0001/target"][3] = np.nan
        demos["demo_0002/objects/block"][:, 1] += 0.12
    out = tmp_path / "out" / "demos.hdf5"
    report = replay_files(ReplaySettings((file,), out))["Lift"]
    assert [entry["status"] for entry in report["demos"]] == ["success", "skipped", "failed", "success"]
    assert "not finite" in report["demos"][1]["reason"] and report["demos"][2]["reason"] == "no_reach"
    assert [demo.name for demo in read_demos(out)] == ["lift/demo_0000", "lift/demo_0003"]
    assert [demo.name for demo in read_demos(out.with_suffix(".failed.hdf5"))] == ["lift/demo_0002"]
    assert json.loads(out.with_suffix(".report.json").read_text())["demos"] == report["demos"]
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "demos.failed.hdf5",
        "demos.hdf5",
        "demos.report.json",
    ]
    with pytest.raises(LogError, match="exists already"):
        replay_files(ReplaySettings((file,), out))


def test_an_interrupted_job_goes_on_where_it_stopped(tmp_path, monkeypatch):
    file = few(tmp_path / "lift.hdf5", "Lift", 3)
    whole, broken = tmp_path / "whole.hdf5", tmp_path / "broken.hdf5"
    replay_files(ReplaySettings((file,), whole))
    run = Replayer.run
    replayed = []

    def until_interrupted(self, logs, poses=None):
        for result in run(self, logs, poses):
            replayed.append(result[0].name)
            yield result
            raise KeyboardInterrupt

    monkeypatch.setattr("demos_replay.job.Replayer.run", until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        replay_files(ReplaySettings((file,), broken))
    assert not broken.exists()
    with pytest.raises(LogError, match="another replay"):
        replay_files(ReplaySettings((file,), broken, domain="twin"))
    again = []

    def counting(self, logs, poses=None):
        for result in run(self, logs, poses):
            again.append(result[0].name)
            yield result

    monkeypatch.setattr("demos_replay.job.Replayer.run", counting)
    replay_files(ReplaySettings((file,), broken))
    assert len(again) == 2 and not set(again) & set(replayed)
    for one, other in zip(read_demos(whole), read_demos(broken), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.qpos, other.qpos)


def test_a_job_names_what_is_wrong_with_the_request(tmp_path):
    file = few(tmp_path / "lift.hdf5", "Lift", 1)
    other = few(tmp_path / "stack.hdf5", "Stack", 1)
    with pytest.raises(LogError, match="folder"):
        replay_files(ReplaySettings((file, other), tmp_path / "both.hdf5"))
    with pytest.raises(LogError, match="choose one of Lift"):
        replay_files(ReplaySettings((file,), tmp_path / "out.hdf5", task="Juggle"))
    with pytest.raises(LogError, match=r"\.csv"):
        replay_files(ReplaySettings((file,), tmp_path / "out.csv"))
    with h5py.File(tmp_path / "other.hdf5", "w") as content:
        content["numbers"] = np.arange(3)
    with pytest.raises(LogError, match="Looked for"):
        replay_files(ReplaySettings((tmp_path / "other.hdf5",), tmp_path / "out.hdf5", task="Lift"))
    assert not (tmp_path / "out.hdf5").exists()


def test_several_tasks_go_into_one_folder(tmp_path):
    files = tuple(few(tmp_path / f"{task}.hdf5", task, 1) for task in ("Lift", "CloseDrawer"))
    replay_files(ReplaySettings(files, tmp_path / "demos"))
    for task in ("Lift", "CloseDrawer"):
        (demo,) = read_demos(tmp_path / "demos" / f"{task}.hdf5")
        assert demo.task == task


def test_images_are_what_the_cameras_saw(tmp_path):
    file = few(tmp_path / "lift.hdf5", "Lift", 1)
    replay_files(ReplaySettings((file,), tmp_path / "demos.hdf5", images=True))
    (demo,) = read_demos(tmp_path / "demos.hdf5")
    assert set(demo.images) == {"shoulder", "wrist"}
    for pictures in demo.images.values():
        assert pictures.shape == (len(demo.tcp_pose), 128, 128, 3) and pictures.dtype == np.uint8
        assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 1.0


def test_states_are_shown_and_never_judged(tmp_path):
    log = shipped("Lift", 1)[0]
    short = replace(log, time=log.time[:10], tcp_pose=log.tcp_pose[:10])
    video = tmp_path / "states.mp4"
    assert show_states(short, TASKS["Lift"], video) == 9
    assert video.stat().st_size > 1000
    with pytest.raises(LogError, match="joint positions"):
        show_states(replace(log, joint_positions=None), TASKS["Lift"], video)


def test_logs_are_small_enough_to_ship():
    assert sum(file.stat().st_size for file in LOGS.glob("*.hdf5")) < 15e6
