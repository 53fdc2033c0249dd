"""Readers of real robots' logs, on files with an exactly known motion, and on files that must be rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from log_files_real import (
    ROBOTIQ_JOINT7,
    Motion,
    euler,
    expected_tcp,
    motion,
    write_act_end_effector,
    write_act_joints,
    write_droid,
)

from demos_replay.log import Log, LogError
from demos_replay.readers import open_log, read_demo
from demos_replay.readers.arms import FRANKA_HAND, ROBOTIQ_2F85
from oc_residual_gym.geometry import norm, rotation_between
from oc_residual_gym.robots.kinematics import flange_pose

STATE = "observation/robot_state/"
STAMPS = "observation/timestamp/robot_state/"
ENABLED = "observation/controller_info/movement_enabled"
END_EFFECTOR, JOINTS = write_act_end_effector, write_act_joints


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.h5"


def read(path: Path) -> Log:
    with open_log(path) as (file, reader):
        [name] = reader.demos(file)
        log = read_demo(file, reader, name)
    assert log.format == reader.NAME
    return log


def check_poses(found: np.ndarray | None, expected: np.ndarray) -> None:
    """Check poses to a tenth of a millimetre and of a milliradian."""
    assert found is not None
    assert norm(found[:, :3] - expected[:, :3]).max() < 1e-4
    assert norm(rotation_between(expected[:, 3:], found[:, 3:])).max() < 1e-4


def says(sentences: tuple[str, ...], *parts: str) -> bool:
    return any(all(part in sentence for part in parts) for sentence in sentences)


# DROID


@pytest.mark.parametrize(
    ("gripper", "joint7"), [(ROBOTIQ_2F85, ROBOTIQ_JOINT7), (FRANKA_HAND, 0.0)], ids=["robotiq", "franka_hand"]
)
@pytest.mark.parametrize("lag", [0, 3, 8])
def test_droid(path: Path, gripper: Any, joint7: float, lag: int) -> None:
    m = motion(lag=lag, joint7=joint7)
    write_droid(path, m)
    log = read(path)
    check_poses(log.tcp_pose, expected_tcp(m.joints, gripper.tcp))
    check_poses(log.target, expected_tcp(m.commanded, gripper.tcp))
    np.testing.assert_array_equal(log.gripper_closed, m.closes)
    np.testing.assert_allclose(log.gripper_width, m.opening * gripper.max_width)
    np.testing.assert_array_equal(log.joint_positions, m.joints)
    np.testing.assert_allclose(log.time, m.time, atol=1e-3)
    assert log.lag == pytest.approx(lag / 15.0)
    assert log.rate == 15.0
    assert log.instruction == "Lift the block"
    assert not log.objects
    assert says(log.facts, "judged it a success")
    assert says(log.assumptions, gripper.description)


def test_droid_gripper_named_in_the_file(path: Path) -> None:
    m = motion(joint7=ROBOTIQ_JOINT7)
    write_droid(path, m, {"gripper": "franka_hand"})
    log = read(path)
    check_poses(log.tcp_pose, expected_tcp(m.joints, FRANKA_HAND.tcp))
    assert not says(log.assumptions, "The gripper is")
    write_droid(path, m, {"gripper": "robotiq"})
    with pytest.raises(LogError, match="known are franka_hand, robotiq_2f85"):
        read(path)


def test_droid_lag_is_found_despite_noise_and_offset(path: Path) -> None:
    m = motion(150, lag=4, joint7=ROBOTIQ_JOINT7)
    noisy = flange_pose(m.commanded)
    noisy[:, :3] += np.random.default_rng(0).normal((0.004, -0.003, 0.0), 0.003, (150, 3))
    write_droid(path, m, **{"action/cartesian_position": euler(noisy)})
    assert read(path).lag == pytest.approx(4 / 15.0)


def test_droid_without_joints_takes_the_flange_from_the_file(path: Path) -> None:
    m = motion(joint7=ROBOTIQ_JOINT7)
    write_droid(path, m, **{STATE + "joint_positions": None})
    log = read(path)
    check_poses(log.tcp_pose, expected_tcp(m.joints, ROBOTIQ_2F85.tcp))
    assert log.joint_positions is None
    assert says(log.assumptions, "no joint positions")


def test_droid_drops_rows_in_which_movement_was_disabled(path: Path) -> None:
    m = motion(joint7=ROBOTIQ_JOINT7)
    enabled = np.ones(60, dtype=bool)
    enabled[:5] = enabled[20:30] = False
    write_droid(path, m, **{ENABLED: enabled})
    log = read(path)
    check_poses(log.tcp_pose, expected_tcp(m.joints[enabled], ROBOTIQ_2F85.tcp))
    np.testing.assert_array_equal(log.gripper_closed, m.closes[enabled])
    np.testing.assert_allclose(np.diff(log.time), 1 / 15.0, atol=2e-3)
    assert log.time[0] == 0.0
    assert says(log.facts, "15 of 60 rows are dropped")


def test_droid_clocks(path: Path) -> None:
    m = motion(joint7=ROBOTIQ_JOINT7)
    nanoseconds = np.round(1e9 * m.time).astype(np.int64)
    robot = {
        STAMPS + "robot_timestamp_seconds": 1_700_000_000 + nanoseconds // 1_000_000_000,
        STAMPS + "robot_timestamp_nanos": nanoseconds % 1_000_000_000,
    }
    write_droid(path, m, **{STAMPS + "read_start": None}, **robot)
    log = read(path)
    np.testing.assert_allclose(log.time, m.time, atol=1e-6)
    write_droid(path, m, **{STAMPS + "read_start": None})
    log = read(path)
    np.testing.assert_allclose(log.time, m.time)
    assert says(log.assumptions, "15 rows per second")
    write_droid(path, m, **{STAMPS + "read_start": 50 * np.arange(60)})
    assert read(path).rate == 20.0


def test_droid_commands_that_are_not_the_flanges_are_not_used(path: Path) -> None:
    """Commands of the TCP instead of the flange, in another frame, or as velocities only."""
    m = motion(joint7=ROBOTIQ_JOINT7)
    elsewhere = expected_tcp(m.commanded, ROBOTIQ_2F85.tcp)
    write_droid(path, m, **{"action/cartesian_position": euler(elsewhere)})
    log = read(path)
    assert log.target is None and log.lag == 0.0
    assert says(log.assumptions, "measured poses stand for action/cartesian_position", "mm from them")
    write_droid(path, m, **{"action/cartesian_position": None, "action/joint_position": None})
    log = read(path)
    assert log.target is None
    assert says(log.assumptions, "velocities only")


def test_droid_joint_commands(path: Path) -> None:
    m = motion(joint7=ROBOTIQ_JOINT7)
    write_droid(path, m, **{"action/cartesian_position": None})
    log = read(path)
    check_poses(log.target, expected_tcp(m.commanded, ROBOTIQ_2F85.tcp))
    assert log.lag == pytest.approx(3 / 15.0)


def wide_object() -> tuple[Motion, np.ndarray, np.ndarray, np.ndarray]:
    """Fingers that stop on a wide object at a closure of 0.3; with commands as velocities and as positions."""
    m = motion(90, joint7=ROBOTIQ_JOINT7)
    closure = np.zeros(90)
    for row in range(1, 90):
        closure[row] = np.clip(closure[row - 1] + (0.04 if m.closes[row - 1] else -0.04), 0.0, 0.3)
    velocity = np.clip(3.0 * (1.5 * m.closes - closure), -1.0, 1.0)
    return m, closure, velocity, np.clip(closure + 0.25 * velocity, 0.0, 1.0)


@pytest.mark.parametrize("source", ["gripper_position", "gripper_velocity", "gripper_delta"])
def test_droid_gripper_on_a_wide_object(path: Path, source: str) -> None:
    m, closure, velocity, position = wide_object()
    changed: dict[str, Any] = {"action/gripper_position": None, "action/gripper_velocity": None}
    changed["action/" + source] = position if source == "gripper_position" else velocity
    write_droid(path, m, **{STATE + "gripper_position": closure}, **changed)
    closed = read(path).gripper_closed
    # Closed from when the fingers reach the object, for as long as they press it, and only once.
    assert closed[40:74].all() and not closed[:30].any() and not closed[77:].any()
    assert np.count_nonzero(np.diff(closed.astype(int)) == 1) == 1


def test_droid_gripper_by_the_trigger_or_measured_only(path: Path) -> None:
    m, closure, _, _ = wide_object()
    none = {"action/gripper_position": None, "action/gripper_velocity": None}
    write_droid(path, m, **{STATE + "gripper_position": closure, "action/target_gripper_position": 1.0 * m.closes})
    np.testing.assert_array_equal(read(path).gripper_closed, m.closes)
    write_droid(path, m, **none, **{STATE + "gripper_position": 2.0 * closure})
    log = read(path)
    assert log.gripper_closed[45] and not log.gripper_closed[0]
    assert says(log.assumptions, "no command of the gripper")


# ACT, end-effector poses


@pytest.mark.parametrize("layout", ["euler", "xyzw", "wxyz"])
def test_act_end_effector(path: Path, layout: str) -> None:
    m = motion(100, 50.0, lag=4)
    write_act_end_effector(path, m, layout)
    log = read(path)
    check_poses(log.tcp_pose, expected_tcp(m.joints, FRANKA_HAND.tcp))
    check_poses(log.target, expected_tcp(m.commanded, FRANKA_HAND.tcp))
    np.testing.assert_array_equal(log.gripper_closed, m.closes)
    np.testing.assert_allclose(log.gripper_width, 0.08 * m.opening)
    assert log.lag == pytest.approx(4 / 50.0)
    assert log.rate == 50.0
    assert says(log.assumptions, "50 rows per second")
    assert says(log.assumptions, "xyz Euler" if layout == "euler" else f"ordered {layout}")


def test_act_commanded_poses_alone(path: Path) -> None:
    m = motion(100, 50.0, lag=4)
    write_act_end_effector(path, m, **{"observations/qpos": None, "observations/qvel": None})
    log = read(path)
    check_poses(log.tcp_pose, expected_tcp(m.commanded, FRANKA_HAND.tcp))
    np.testing.assert_array_equal(log.gripper_closed, m.closes)
    assert log.target is None and log.lag == 0.0
    assert says(log.assumptions, "commanded poses stand for the measured")


def test_act_measured_poses_alone(path: Path) -> None:
    """On an object of 40 mm, the fingers stop half closed."""
    m = motion(100, 50.0)
    write_act_end_effector(path, m, action=None)
    log = read(path)
    assert log.target is None
    # The measured width takes a few rows to follow.
    assert np.count_nonzero(log.gripper_closed != m.closes) <= 6
    assert np.count_nonzero(np.diff(log.gripper_closed.astype(int)) == 1) == 1


def test_act_commands_without_a_gripper(path: Path) -> None:
    """The last column of the commands is constant while the fingers move."""
    write_act_end_effector(path)
    with h5py.File(path, "r+") as file:
        file["action"][:, 6] = 0.0
    log = read(path)
    assert log.gripper_closed[50] and not log.gripper_closed[0]
    assert log.target is not None
    assert says(log.assumptions, "inferred from observations/qpos")


def test_act_relative_commands_give_only_the_gripper(path: Path) -> None:
    m = motion(100, 50.0)
    steps = np.zeros((100, 7))
    steps[:, :3] = 0.002
    steps[:, 6] = np.where(m.closes, 1.0, -1.0)
    write_act_end_effector(path, m, action=steps)
    log = read(path)
    assert log.target is None
    np.testing.assert_array_equal(log.gripper_closed, m.closes)
    assert says(log.assumptions, "measured poses stand for action", "relative")


@pytest.mark.parametrize("closed_value", [0.0, 1.0])
@pytest.mark.parametrize("scale", [(0.0, 1.0), (-1.0, 2.0), (0.0, 255.0)])
def test_act_gripper_polarity_follows_from_the_start(
    path: Path, closed_value: float, scale: tuple[float, float]
) -> None:
    m = motion(100, 50.0)
    write_act_end_effector(path, m)
    with h5py.File(path, "r+") as file:
        shares = np.where(m.closes, closed_value, 1.0 - closed_value)
        file["action"][:, 6] = scale[0] + scale[1] * shares
    log = read(path)
    np.testing.assert_array_equal(log.gripper_closed, m.closes)
    assert says(log.assumptions, "closed" if closed_value else "open", "start with open fingers")


def test_act_width_in_metres_of_one_finger(path: Path) -> None:
    m = motion(100, 50.0)
    write_act_end_effector(path, m)
    with h5py.File(path, "r+") as file:
        file["observations/qpos"][:, 6] = 0.04 * m.opening
    np.testing.assert_allclose(read(path).gripper_width, 0.08 * m.opening)


# ACT, joint positions


@pytest.mark.parametrize(("layout", "rate"), [("puppet", 30.0), ("qpos", 50.0)])
def test_act_joints(path: Path, layout: str, rate: float) -> None:
    m = motion(60, rate, lag=2)
    write_act_joints(path, m, layout)
    log = read(path)
    check_poses(log.tcp_pose, expected_tcp(m.joints, FRANKA_HAND.tcp))
    check_poses(log.target, expected_tcp(m.commanded, FRANKA_HAND.tcp))
    np.testing.assert_array_equal(log.gripper_closed, m.closes)
    np.testing.assert_allclose(log.gripper_width, 0.08 * m.opening)
    np.testing.assert_array_equal(log.joint_positions, m.joints)
    assert log.lag == pytest.approx(2 / rate)
    assert log.rate == rate
    if layout == "puppet":
        assert says(log.facts, "puppet/end_effector lies 0 mm from the TCP and 103 mm from the flange")


@pytest.mark.parametrize("write", [END_EFFECTOR, JOINTS])
def test_act_rate_as_the_file_says(path: Path, write: Callable[..., None]) -> None:
    write(path, attributes={"fps": 25})
    log = read(path)
    assert log.rate == 25.0
    assert log.time[1] == pytest.approx(0.04)
    assert says(log.facts, "25 rows per second") and not says(log.assumptions, "rows per second")
    rows = len(log.time)
    write(path, timestamp=1e9 * np.arange(rows) / 10.0)
    log = read(path)
    assert log.rate == 10.0
    assert says(log.facts, "timestamp in ns")


# What must be refused, and why

T = 60
IN_DROID: dict[str, tuple[dict[str, Any], str]] = {
    "no rows": ({STATE + "joint_positions": np.zeros((0, 7))}, "0 rows"),
    "one row": ({STATE + "joint_positions": np.zeros((1, 7))}, "1 rows"),
    "six joints": ({STATE + "joint_positions": np.zeros((T, 6))}, "shape"),
    "another arm's joints": ({STATE + "joint_positions": np.full((T, 7), 1.0)}, "joint 4 at 1 rad"),
    "degrees": ({STATE + "joint_positions": np.full((T, 7), 90.0)}, "out of the range of a Franka arm"),
    "shorter commands": ({"action/cartesian_position": np.zeros((T - 1, 6))}, "shape"),
    "no finite number": ({"action/cartesian_position": np.full((T, 6), np.nan)}, "not finite in 60 of 60 rows"),
    "millimetres": ({"action/cartesian_position": np.full((T, 6), 500.0)}, "not in metres"),
    "angles in degrees": ({"action/cartesian_position": np.tile([0.5, 0, 0.3, 180, 0, 0], (T, 1))}, "not in rad"),
    "time that stands": ({STAMPS + "read_start": np.zeros(T)}, "does not increase after row 0"),
    "time that goes back": ({STAMPS + "read_start": 66 * np.abs(np.arange(T) - 30)}, "does not increase after row"),
    "time without a rate": ({STAMPS + "read_start": 1e-15 * np.arange(T)}, "no plausible rate"),
    "movement never enabled": ({ENABLED: np.zeros(T, dtype=bool)}, "nothing was demonstrated"),
    "gripper in mm": ({STATE + "gripper_position": np.linspace(0.0, 85.0, T)}, "from 0 to 85"),
    "gripper's command in mm": ({"action/gripper_position": np.linspace(0.0, 85.0, T)}, "from 0 to 85"),
    "texts": ({STATE + "joint_positions": np.full((T, 7), b"x")}, "holds no numbers"),
}


@pytest.mark.parametrize(("changed", "reason"), IN_DROID.values(), ids=IN_DROID)
def test_droid_refuses(path: Path, changed: dict[str, Any], reason: str) -> None:
    write_droid(path, **changed)
    with pytest.raises(LogError, match=reason):
        read(path)


def test_droid_refuses_an_unknown_action_space(path: Path) -> None:
    none = ("cartesian_position", "cartesian_velocity", "joint_position", "joint_velocity")
    write_droid(path, **{f"action/{name}": None for name in none}, **{"action/torque": np.zeros((T, 7))})
    with pytest.raises(LogError, match=r"action space is unknown.*torque"):
        read(path)


def test_droid_refuses_a_file_without_any_gripper(path: Path) -> None:
    none = ("action/gripper_position", "action/gripper_velocity", STATE + "gripper_position")
    write_droid(path, **dict.fromkeys(none))
    with pytest.raises(LogError, match="what the gripper did"):
        read(path)


def with_row(values: np.ndarray, row: int, value: float) -> np.ndarray:
    values = values.copy()
    values[row] = value
    return values


HOME = np.array([0.0, -0.3, 0.0, -2.5, 0.0, 2.2, 0.8, 1.0])
POSE = np.array([0.45, 0.0, 0.2, 1.0, 0.0, 0.0, 0.0, 1.0])
IN_ACT: dict[str, tuple[dict[str, Any], str]] = {
    "ALOHA": ({"observations/qpos": np.zeros((T, 14)), "action": np.zeros((T, 14))}, "two arms"),
    "two arms of 8": ({"observations/qpos": np.zeros((T, 16)), "action": np.zeros((T, 16))}, "two arms"),
    "AgileX": (
        {"puppet/joint_position_left": np.zeros((T, 7)), "puppet/joint_position_right": np.zeros((T, 7))},
        "two",
    ),
    "no gripper": ({"observations/qpos": np.zeros((T, 6))}, "6 wide, which is no known layout"),
    "unknown commands": ({"observations/qpos": np.tile(HOME, (T, 1)), "action": np.zeros((T, 5))}, "no known layout"),
    "joints alone": ({"observations/qpos": np.tile(HOME[:7], (T, 1))}, "not in front of the robot"),
    "another arm": ({"observations/qpos": np.full((T, 8), 0.3)}, "neither a pose.*nor joint positions.*joint 4"),
    "no quaternion in a row": (
        {"observations/qpos": with_row(np.tile(POSE, (T, 1)), 7, 0.0)},
        "lengths of 0 to 1",
    ),
    "millimetres": ({"observations/qpos": np.tile(POSE * [1e3, 1, 1e3, 1, 1, 1, 1, 1], (T, 1))}, "not in metres"),
    "no rows": ({"observations/qpos": np.zeros((0, 8))}, "0 rows"),
    "no finite number": ({"observations/qpos": with_row(np.tile(HOME, (T, 1)), 5, np.inf)}, "first in row 5"),
    "one number a row": ({"observations/qpos": np.zeros(T)}, "shape"),
    "shorter commands": ({"observations/qpos": np.tile(HOME, (T, 1)), "action": np.zeros((T - 1, 8))}, "shape"),
    "no gripper's unit": ({"observations/qpos": np.tile([*HOME[:7], 9e3], (T, 1))}, "9000: no known unit"),
    "time that goes back": (
        {"observations/qpos": np.tile(HOME, (T, 1)), "timestamp": 0.02 * np.abs(np.arange(T) - 30)},
        "does not increase",
    ),
    "poses in puppet": ({"puppet/joint_position": np.tile(POSE, (T, 1))}, "holds no joint positions"),
    "a six-joint arm in puppet": ({"puppet/joint_position": np.tile([0.5, *HOME[1:7]], (T, 1))}, "no joint positions"),
    "a master without puppet": ({"master/joint_position": np.tile(HOME, (T, 1))}, "puppet/joint_position is missing"),
}


@pytest.mark.parametrize(("datasets", "reason"), IN_ACT.values(), ids=IN_ACT)
def test_act_refuses(path: Path, datasets: dict[str, Any], reason: str) -> None:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
    with pytest.raises(LogError, match=reason):
        read(path)


def test_act_refuses_an_impossible_rate(path: Path) -> None:
    write_act_joints(path, attributes={"fps": 0})
    with pytest.raises(LogError, match="'fps' is 0"):
        read(path)
