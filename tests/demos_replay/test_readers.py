"""Opening logs, and the readers of formats that carry a simulator's states."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import log_files
import numpy as np
import pytest
from log_files import HALF_SIZES, WRITERS, motion
from logs import read_logs
from scipy.spatial.transform import Rotation

from demos_replay.inspect import describe, validate
from demos_replay.log import Log, LogError
from demos_replay.readers import READERS, Skipped, open_log, probe, probe_worker
from oc_residual_gym.geometry import norm, pose_multiply, rotation_between

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "robosuite" / "panda_lift.hdf5"
WITH_STATES = ("teleop", "robosuite", "robosuite_1_0", "robomimic", "libero")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.hdf5"


def read(path: Path) -> Log:
    log = next(iter(read_logs(path)))
    assert isinstance(log, Log), log
    return log


def reason(path: Path) -> str:
    """The reason for which the first demonstration is skipped."""
    skipped = next(iter(read_logs(path)))
    assert isinstance(skipped, Skipped)
    return skipped.reason


def assert_poses(poses: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert poses.shape == expected.shape
    assert norm(poses[:, :3] - expected[:, :3]).max() < tolerance
    assert norm(rotation_between(poses[:, 3:], expected[:, 3:])).max() < 5 * tolerance


# Opening


@pytest.mark.parametrize("layout", WRITERS)
def test_a_format_is_found_by_its_structure(layout: str, path: Path) -> None:
    WRITERS[layout](path)
    with open_log(path) as (file, reader):
        assert file.mode == "r"
        assert layout.startswith(reader.NAME)


def test_a_missing_file_a_folder_and_an_empty_file_are_named(path: Path) -> None:
    with pytest.raises(LogError, match="does not exist"), open_log(path):
        pass
    with pytest.raises(LogError, match="is a folder"), open_log(path.parent):
        pass
    path.touch()
    with pytest.raises(LogError, match="is empty"), open_log(path):
        pass


@pytest.mark.parametrize("content", [b"Lift, Stack\n1, 2\n", None])
def test_a_file_that_is_not_hdf5_or_only_in_part_is_refused(content: bytes | None, path: Path) -> None:
    log_files.write_robosuite(path)
    path.write_bytes(content or path.read_bytes()[:-500])
    with pytest.raises(LogError, match="is not HDF5, or cut off or damaged"), open_log(path):
        pass


def test_hdf5_that_is_no_log_is_told_what_was_looked_for(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["weather/temperature"] = np.zeros(3)
    with pytest.raises(LogError) as error, open_log(path):
        pass
    assert all(reader.NAME in str(error.value) and reader.LOOKED_FOR in str(error.value) for reader in READERS)


def external_link(file: h5py.File) -> None:
    file["data/demo_1/other"] = h5py.ExternalLink("other.hdf5", "/data")


def dangling_link(file: h5py.File) -> None:
    file["data/demo_1/other"] = h5py.SoftLink("/nowhere")


def circular_link(file: h5py.File) -> None:
    file["data/demo_1/other"] = h5py.SoftLink("/data/demo_1/other")


def external_data(file: h5py.File) -> None:
    file.create_dataset("data/demo_1/other", (3,), "f8", external=[("other.bin", 0, 24)])


def virtual_data(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "x", (3,))
    file.create_virtual_dataset("data/demo_1/other", layout)


@pytest.mark.parametrize("add", [external_link, dangling_link, circular_link, external_data, virtual_data])
def test_a_file_that_leads_elsewhere_is_refused(add: Callable[[h5py.File], None], path: Path) -> None:
    log_files.write_robosuite(path)
    with h5py.File(path, "a") as file:
        add(file)
    with pytest.raises(LogError, match="/data/demo_1/other"), open_log(path):
        pass


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os, sys; sys.stdin.readline(); os.abort()", "the HDF5 library crashes on it"),
        ("import time; time.sleep(60)", "the HDF5 library is not done with it after 1 s"),
    ],
)
def test_a_file_on_which_the_library_dies_or_hangs_is_refused(
    program: str, message: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_files.write_robosuite(path)
    worker = path.with_name("worker.py")
    worker.write_text(program)
    with monkeypatch.context() as patch:
        patch.setattr(probe_worker, "__file__", str(worker))
        patch.setattr(probe, "PATIENCE", 1.0)
        probe.stop()
        with pytest.raises(LogError, match=message), open_log(path):
            pass
    assert read(path).format == "robosuite"


def test_a_log_without_demonstrations_is_refused(path: Path) -> None:
    log_files.write_robosuite(path, demos=0)
    with pytest.raises(LogError, match="has no demonstrations"):
        list(read_logs(path))


def test_one_bad_demonstration_is_skipped_and_the_others_are_read_in_natural_order(path: Path) -> None:
    log_files.write_robosuite(path, demos=11)
    with h5py.File(path, "a") as file:
        file["data/demo_2/states"][3, 4] = np.nan
    demos = list(read_logs(path))
    assert [demo.name for demo in demos] == [f"demo_{i}" for i in range(1, 12)]
    assert [demo.name for demo in demos if isinstance(demo, Skipped)] == ["demo_2"]
    assert isinstance(demos[1], Skipped) and "states is not finite in 1 of 40 rows, first in row 3" in demos[1].reason


# Every format, on a known motion


@pytest.mark.parametrize("layout", WITH_STATES)
def test_the_motion_comes_out_as_it_was(layout: str, path: Path) -> None:
    m = motion()
    WRITERS[layout](path)
    log = read(path)
    rows = len(log.time)
    assert rows >= len(m.time) - 1
    np.testing.assert_allclose(log.time, m.time[:rows], atol=1e-6)
    assert log.rate == pytest.approx(20.0)
    assert_poses(log.tcp_pose, m.tcp[:rows])
    np.testing.assert_array_equal(log.gripper_closed, m.closed[:rows])
    assert log.gripper_width is not None and log.joint_positions is not None
    np.testing.assert_allclose(log.gripper_width, m.width[:rows], atol=1e-6)
    np.testing.assert_allclose(log.joint_positions, m.joints[:rows], atol=1e-5)
    for name, poses in m.objects.items():
        assert_poses(log.objects[name].poses, poses[:rows])
        assert log.objects[name].tracked
    assert log.facts


@pytest.mark.parametrize("layout", [layout for layout in WITH_STATES if layout != "teleop"])
def test_a_model_tells_sizes_and_the_table(layout: str, path: Path) -> None:
    WRITERS[layout](path)
    log = read(path)
    assert set(log.objects) == {"cube", "can"}  # not the picture of a can that is the goal's mark
    for name, half_size in HALF_SIZES.items():
        np.testing.assert_allclose(log.objects[name].half_size, half_size)
    assert log.table_height == pytest.approx(log_files.TABLE - log_files.BASE[2])
    assert log.target is None
    assert log.lag == pytest.approx(0.1)
    assert any("grip site lies 6.9 mm from the TCP, turned by 90.0 degrees" in fact for fact in log.facts)


@pytest.mark.parametrize(("layout", "first"), [("robomimic_observations", 0), ("libero_observations", 1)])
def test_without_states_the_arm_is_read_from_observations(layout: str, first: int, path: Path) -> None:
    m = motion()
    WRITERS[layout](path)
    log = read(path)
    rows = slice(first, first + len(log.time))
    assert len(log.time) >= len(m.time) - 2
    assert_poses(log.tcp_pose, m.tcp[rows])
    np.testing.assert_array_equal(log.gripper_closed, m.closed[rows])
    np.testing.assert_allclose(log.gripper_width, m.width[rows])
    assert log.table_height == pytest.approx(log_files.TABLE - log_files.BASE[2])
    assert not log.objects and any("objects' poses are unknown" in fact for fact in log.facts)
    assert any("table" in assumption for assumption in log.assumptions)


def test_the_end_effector_alone_is_read_with_an_assumed_base(path: Path) -> None:
    log_files.write_robomimic(path, with_states=False)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/robot0_joint_pos"]
    log = read(path)
    assumed = np.array([-0.56, 0.0, 0.912]) - log_files.BASE
    assert_poses(log.tcp_pose, motion().tcp - np.append(assumed, np.zeros(4)))
    assert log.joint_positions is None
    assert any("base is taken at" in assumption for assumption in log.assumptions)


# Our own schema


def test_the_gripper_keeps_its_state_between_the_thresholds(path: Path) -> None:
    log_files.write_teleop(path)
    with h5py.File(path, "a") as file:
        file["demos/demo_0/target"][:, 7] = np.resize([1.0, 0.5, 0.44, 0.5, 0.54, 0.56, 0.5, 0.46], 40)
    expected = np.resize([False, False, True, True, True, False, False, False], 40)
    np.testing.assert_array_equal(read(path).gripper_closed, expected)


def test_an_unseen_object_stays_where_it_was(path: Path) -> None:
    log_files.write_teleop(path)
    valid = np.ones(40)
    valid[[0, 1, 20, 21]] = 0.0
    with h5py.File(path, "a") as file:
        demo = file["demos/demo_0"]
        demo["objects/cube"][20:22] = np.nan
        demo["objects_valid/cube"], demo["objects_valid/can"] = valid, np.zeros(40)
    log = read(path)
    cube = motion().objects["cube"].copy()
    cube[:2], cube[20:22] = cube[2], cube[19]
    assert_poses(log.objects["cube"].poses, cube)
    assert "can" not in log.objects and any("Never seen, and left out: can" in fact for fact in log.facts)


def test_what_the_schema_leaves_open_is_assumed_and_said(path: Path) -> None:
    log_files.write_teleop(path, task="Cooking", table_height=None)
    log = read(path)
    assert log.task is None and log.table_height == 0.0 and log.synthetic
    assert len(log.assumptions) == 2 and "Cooking" in log.assumptions[1]


def test_a_newer_version_of_the_schema_is_refused(path: Path) -> None:
    log_files.write_teleop(path)
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 2
    assert "version 2" in reason(path)


def test_absolute_targets_and_their_lag(path: Path) -> None:
    log_files.write_teleop(path)
    ahead = np.concatenate([motion().tcp[3:], motion().tcp[[-1] * 3]])
    with h5py.File(path, "a") as file:
        file["demos/demo_0/target"][:, :7] = ahead
    log = read(path)
    assert log.target is not None and log.lag == pytest.approx(0.15)
    assert_poses(log.target, ahead)


# robosuite's files


@pytest.mark.parametrize("place", ["models/model_1.xml", "log.model_1.xml", "model_1.xml"])
def test_a_model_is_found_beside_the_log(place: str, path: Path) -> None:
    log_files.write_robosuite_1_0(path, place=place)
    assert read(path).task == "Lift"


def test_a_model_that_is_missing_or_elsewhere_is_named(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    log = folder / "log.hdf5"
    log_files.write_robosuite_1_0(log)
    shutil.move(folder / "models" / "model_1.xml", tmp_path / "model_1.xml")
    assert str(folder / "models" / "model_1.xml") in reason(log)
    os.symlink(tmp_path / "model_1.xml", folder / "model_1.xml")
    assert "leads out of" in reason(log)
    for model in ("../model_1.xml", str(tmp_path / "model_1.xml")):
        log_files.write_robosuite(log, model_file=model)
        assert "leads out of" in reason(log)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("<worldbody>", '<include file="/etc/passwd"/><worldbody>', "includes other files"),
        ("<mujoco ", '<!DOCTYPE mujoco [<!ENTITY a "b">]><mujoco ', "declares a document type"),
        ("<worldbody>", '<worldbody><replicate count="1000000000"><body/></replicate>', "<replicate>"),
        ("<worldbody>", "<worldbody>" + 200 * "<body>" + 200 * "</body>", "nested more than"),
        ("<worldbody>", "<worldbody>" + 30_000 * "<site/>", "more than 20000 elements"),
        ("</worldbody>", "", "is not XML"),
        ('type="free"', 'type="fee"', "does not compile"),
        ('size="0.025 0.04"', 'size="nan 0.04"', "size='nan 0.04'"),
        ('model="base">', 'model="base"><x/>' + 10_000_000 * " ", "characters"),
    ],
)
def test_a_dangerous_or_broken_model_is_refused(before: str, after: str, message: str, path: Path) -> None:
    model_file = path.with_name("model_1.xml")
    log_files.write_robosuite_1_0(path, place="model_1.xml")
    model_file.write_text(log_files.model().replace(before, after, 1))
    assert message in reason(path) or "larger than any recorded scene" in reason(path)


def test_two_arms_and_no_gripper_are_refused(path: Path) -> None:
    log_files.write_robosuite(path, model_file=log_files.model(2), states=log_files.states(motion(), 2))
    assert "2 grippers; only robots with one arm and one gripper can be replayed" in reason(path)
    log_files.write_robosuite(path, model_file=log_files.model(0), states=log_files.states(motion(), 0))
    assert "0 grippers" in reason(path)


def test_states_that_do_not_fit_their_model_are_refused(path: Path) -> None:
    log_files.write_robosuite(path, states=log_files.states(motion())[:, :-1])
    assert "its states have 44 columns; its model needs 45" in reason(path)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_demonstration_without_rows_is_refused(rows: int, path: Path) -> None:
    log_files.write_robosuite(path, m=motion(), states=np.zeros((rows, 45)), actions=np.zeros((rows, 7)))
    assert f"it has {rows} rows" in reason(path)


def test_time_that_jumps_is_reported_and_time_that_goes_back_refused(path: Path) -> None:
    states = log_files.states(motion())
    states[20:, 0] += 0.1
    log_files.write_robosuite(path, states=states)
    log = read(path)
    assert log.rate == pytest.approx(20.0) and log.time[20] - log.time[19] == pytest.approx(0.15)
    assert any("1 of 39 steps are longer, up to 150 ms" in fact for fact in log.facts)
    states[20:, 0] -= 1.0
    log_files.write_robosuite(path, states=states)
    assert "time does not increase after row 19" in reason(path)


@pytest.mark.parametrize(
    ("env", "expected"),
    [("Lift", "Lift"), ("Stack_D1", "Stack"), ("PickPlaceCan", "PickPlace"), ("StackThree", None), ("Door", None)],
)
def test_the_task_is_taken_from_the_environment(env: str, expected: str | None, path: Path) -> None:
    log_files.write_robosuite(path, env=env)
    assert read(path).task == expected


def test_the_lag_of_a_joint_controller_is_unknown(path: Path) -> None:
    log_files.write_robosuite(path, config={"type": "JOINT_VELOCITY"})
    log = read(path)
    assert log.target is None and log.lag == 0.0 and any("JOINT_VELOCITY" in fact for fact in log.facts)


def test_absolute_actions_of_older_versions_become_targets(path: Path) -> None:
    m = motion()
    site = log_files.in_world(
        pose_multiply(m.tcp, np.array([0.0, 0.0, -0.0069, 0.0, 0.0, -np.sqrt(0.5), np.sqrt(0.5)]))
    )
    actions = np.concatenate(
        [site[:, :3], Rotation.from_quat(site[:, 3:]).as_rotvec(), m.closed[:, None] - 0.5], axis=1
    )
    config = {"type": "OSC_POSE", "control_delta": False}
    log_files.write_robosuite(path, config=config, actions=actions)
    log = read(path)
    assert log.target is not None
    assert_poses(log.target, m.tcp)
    log_files.write_robosuite(path, config=config, actions=log_files.steps(m))
    log = read(path)
    assert log.target is None and any("far from the measured ones" in fact for fact in log.facts)


def test_robomimic_files_of_other_simulators_are_refused(path: Path) -> None:
    log_files.write_robomimic(path, kind=2)
    assert "kind 2" in reason(path)


# Against robosuite itself


def assert_truth(log: Log, truths: list[Any], opening_tolerance: float) -> None:
    """The log agrees with the running simulation that it was recorded from."""
    (truth,) = [t for t in truths if len(t.states) == len(log.time)]
    world = log.tcp_pose[:, :3] + truth.base
    tool = Rotation.from_quat(truth.grip_site[:, 3:]).apply([0.0, 0.0, 1.0])
    np.testing.assert_allclose(world - truth.grip_site[:, :3], 0.0069 * tool, atol=2e-5)
    opening = Rotation.from_quat(log.tcp_pose[:, 3:]).apply([0.0, 1.0, 0.0])
    fingers = truth.fingers / norm(truth.fingers)[:, None]
    assert np.degrees(np.arccos(np.abs((opening * fingers).sum(axis=1)).min())) < opening_tolerance
    for name in set(log.objects) & set(truth.objects):
        body = truth.objects[name][:, :3] - truth.base
        # A can's centre is not quite its body's origin.
        assert norm(log.objects[name].poses[:, :3] - body).max() < 5e-4
        assert norm(rotation_between(log.objects[name].poses[:, 3:], truth.objects[name][:, 3:])).max() < 1e-4


def test_a_lift_that_robosuite_recorded(operator: ModuleType, path: Path) -> None:
    truths = operator.record(path, "Lift")
    logs = [log for log in read_logs(path) if isinstance(log, Log)]
    assert len(logs) == 1
    for log in logs:
        assert_truth(log, truths, opening_tolerance=0.1)
        cube = log.objects["cube"]
        assert cube.half_size is not None and cube.poses[-1, 2] - cube.poses[0, 2] > 0.1
        # Between the fingers there is the cube, whose sides they hold.
        assert log.gripper_width is not None
        assert np.abs(log.gripper_width[-1] - 2 * cube.half_size[:2]).min() < 2e-3
        assert log.table_height == pytest.approx(-0.112) and log.task == "Lift" and not log.assumptions


@pytest.mark.parametrize("frame", ["world", "base"])
def test_absolute_actions_that_robosuite_recorded(frame: str, operator: ModuleType, path: Path) -> None:
    operator.record(path, "Lift", absolute=frame, script=operator.wander)
    log = read(path)
    assert log.target is not None
    ahead = norm(log.target[:, :3] - log.tcp_pose[:, :3])
    assert ahead.max() < 0.06 and np.median(ahead) < 0.03 and log.lag > 0.0


@pytest.mark.parametrize("robot", ["Sawyer", "UR5e"])
def test_other_arms_are_read_by_their_grip_site(robot: str, operator: ModuleType, path: Path) -> None:
    truths = operator.record(path, "Lift", robot=robot, script=operator.wander)
    log = read(path)
    assert_truth(log, truths, opening_tolerance=3.0)
    assert log.joint_positions is None and log.gripper_width is None
    assert any("not Franka's" in assumption for assumption in log.assumptions)


def test_objects_of_meshes_and_bins_that_robosuite_recorded(operator: ModuleType, path: Path) -> None:
    truths = operator.record(path, "PickPlaceCan", script=operator.wander)
    log = read(path)
    assert set(log.objects) == {"Can", "bin1", "bin2"}  # robosuite parks the others far away
    assert_truth(log, truths, opening_tolerance=0.1)
    can = log.objects["Can"]
    np.testing.assert_allclose(can.half_size, [0.025, 0.025, 0.04], atol=1e-4)
    assert log.table_height == pytest.approx(can.poses[0, 2] - 0.04, abs=1e-3)
    assert log.objects["bin2"].poses[0, 1] > log.objects["bin1"].poses[0, 1]


def test_pegs_are_objects_although_they_are_fixed(operator: ModuleType, path: Path) -> None:
    operator.record(path, "NutAssembly", script=operator.wander)
    log = read(path)
    assert set(log.objects) == {"peg1", "peg2", "SquareNut", "RoundNut"}
    np.testing.assert_allclose(log.objects["peg1"].half_size[:2], 0.016)


def test_a_persons_lift_from_robosuite_1_0() -> None:
    if not SAMPLE.exists():
        pytest.skip(f"{SAMPLE} is not there")
    log = read(SAMPLE)
    cube = log.objects["cube"]
    close = int(log.gripper_closed.argmax())
    assert (len(log.time), close, log.task, log.lag) == (412, 349, "Lift", pytest.approx(0.05))
    assert log.table_height == pytest.approx(-0.113)
    assert np.linalg.norm(cube.poses[close, :3] - log.tcp_pose[close, :3]) < 0.011
    assert cube.poses[-1, 2] - cube.poses[0, 2] == pytest.approx(0.085, abs=0.002)
    assert cube.half_size is not None and log.gripper_width is not None
    assert log.gripper_width[-1] < 2 * cube.half_size[:2].max() + 1e-3


# What is printed


@pytest.mark.parametrize("layout", WRITERS)
def test_inspect_says_what_was_understood(layout: str, path: Path) -> None:
    WRITERS[layout](path)
    text = describe(path)
    log = read(path)
    assert log.name in text and f"{len(log.time)} rows" in text and "closes at" in text
    assert all(name in text for name in log.objects)
    assert all(note in text for note in (*log.facts, *log.assumptions))


def test_validate_says_what_is_wrong_with_which(path: Path) -> None:
    log_files.write_robosuite(path, m=replace(motion(), closed=np.zeros(40, dtype=bool)))
    good, text = validate(path)
    assert good and "demo_1: usable, but its gripper never closes" in text
    assert "2 of 2 demonstrations can be used" in text
    with h5py.File(path, "a") as file:
        del file["data/demo_2/actions"]
    good, text = validate(path)
    assert not good and "demo_2: cannot be used: the dataset /data/demo_2/actions is missing" in text
    assert "demo_2\n  cannot be used" in describe(path)
