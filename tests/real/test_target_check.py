"""The checks of targets and the phases of the arm's process, without a robot or its library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.envs.actions import RATE_POSITION, RATE_ROTATION, WORKSPACE_HIGH, WORKSPACE_LOW
from oc_residual_gym.errors import Stop, StopReason
from oc_residual_gym.real.arm import arm_settings
from oc_residual_gym.real.arm_state import with_fault
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.target_check import REHEARSED_STATE_LIMIT, STATE_LIMIT, TargetCheck, overdue

START = np.array([0.45, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0])
SETTINGS = arm_settings(Cell("test", robot=Robot(host="127.0.0.1", speed_cap=0.2), poses=Poses("tcp://127.0.0.1:1")))
PERIOD = SETTINGS.control_period


def target(*offset: float, turn: float = 0.0) -> np.ndarray:
    """(8,) START moved by ``offset`` metres and turned by ``turn`` radians about z."""
    pose = np.append(START, 1.0)
    pose[: len(offset)] += offset
    pose[3:7] = (Rotation.from_rotvec([0.0, 0.0, turn]) * Rotation.from_quat(START[3:])).as_quat()
    return pose


def new_check() -> TargetCheck:
    return TargetCheck(SETTINGS, START, now=0.0)


def changed(index: int, value: float) -> np.ndarray:
    pose = target()
    pose[index] = value
    return pose


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (changed(0, np.nan), "not finite"),
        (changed(7, np.inf), "not finite"),
        (changed(3, 0.99), "not of length 1"),
        (changed(0, WORKSPACE_LOW[0] - 1e-3), "outside the workspace"),
        (changed(2, WORKSPACE_HIGH[2] + 1e-3), "outside the workspace"),
        (target(0.0, 0.05), "50.0 mm and 0.000 rad from the one before it: 5.0 steps"),
        (target(turn=0.1), "0.0 mm and 0.100 rad"),
    ],
)
def test_a_bad_target_is_refused_and_changes_nothing(wrong: np.ndarray, message: str) -> None:
    check = new_check()
    assert message in check.take(wrong, START, PERIOD)
    np.testing.assert_array_equal(check.target, START)
    assert check.taken_at == 0.0
    assert check.take(target(0.0, 0.008), START, PERIOD) == ""


def test_targets_at_the_rate_limit_are_taken_in_time_and_no_sooner() -> None:
    check = new_check()
    for step in range(1, 20):
        pose = target(0.0, step * RATE_POSITION * 0.99, turn=step * RATE_ROTATION * 0.99)
        assert check.take(pose, START, step * PERIOD) == ""
        np.testing.assert_array_equal(check.target, pose[:7])
    check = new_check()
    taken = [check.take(target(0.0, step * RATE_POSITION), START, 1e-3 * step) == "" for step in range(1, 5)]
    assert taken[:2] == [True, True] and not taken[3]  # what is stored is used up


def test_waiting_does_not_allow_a_longer_way_at_once() -> None:
    assert new_check().take(target(0.0, 2.5 * RATE_POSITION), START, 100.0)


def test_a_target_with_the_opposite_quaternion_is_the_same_one() -> None:
    pose = target(0.0, 0.005)
    pose[3:7] *= -1.0
    assert new_check().take(pose, START, PERIOD) == ""


def test_a_target_may_be_drawn_back_to_the_arm_but_no_further() -> None:
    pushed_away = target(0.0, -0.04)[:7]
    for offset, taken in {-0.03: True, 0.009: True, 0.025: False, -0.078: False}.items():
        # the leash; a step ahead; too far, though nearer to where the arm was; beyond the arm
        assert (new_check().take(target(0.0, offset), pushed_away, PERIOD) == "") == taken


def test_what_is_overdue_stops_the_arm() -> None:
    late = {
        None: {},
        StopReason.LINK_LATE: {"state_at": 10.0 - 1.1 * STATE_LIMIT},
        StopReason.TARGETS_STALE: {"target_at": 10.0 - 1.1 * SETTINGS.target_limit},
        StopReason.POSES_SILENT: {"poses_at": 10.0 - 1.1 * SETTINGS.pose_limit},
    }
    for reason, times in late.items():
        fault = overdue(SETTINGS, 10.0, **({"state_at": 10.0, "target_at": 10.0, "poses_at": 10.0} | times))
        assert (fault and fault[0]) == reason
    rig = arm_settings(Cell("test", robot=Robot("127.0.0.1", realtime=False), poses=Poses("tcp://127.0.0.1:1")))
    assert overdue(rig, 10.0, 10.0 - 4.0 * STATE_LIMIT, 10.0, 10.0) is None  # a busy machine
    assert overdue(rig, 10.0, 10.0 - 1.1 * REHEARSED_STATE_LIMIT, 10.0, 10.0) is not None
    never = overdue(SETTINGS, 10.0, 10.0, 10.0, np.nan)
    assert never is not None and never[0] is StopReason.POSES_SILENT


@pytest.mark.parametrize(
    ("host", "realtime", "limit"),
    [
        ("127.0.0.1", False, REHEARSED_STATE_LIMIT),
        ("127.77.3.4", False, REHEARSED_STATE_LIMIT),
        ("::1", False, REHEARSED_STATE_LIMIT),
        ("localhost", False, REHEARSED_STATE_LIMIT),
        ("127.0.0.1", True, STATE_LIMIT),
        ("172.16.0.2", False, STATE_LIMIT),
        ("127.0.0.1.lab", False, STATE_LIMIT),
        ("robot", False, STATE_LIMIT),
    ],
)
def test_only_a_rehearsals_rig_may_be_silent_for_longer(host: str, realtime: bool, limit: float) -> None:
    cell = Cell("test", robot=Robot(host, realtime=realtime), poses=Poses("tcp://127.0.0.1:1"))
    assert arm_settings(cell).state_limit == limit


def test_the_first_cause_of_a_stop_stays_unless_a_later_one_explains_it() -> None:
    def stop(reason: StopReason) -> Stop:
        return Stop(reason, f"it was {reason}", 1.0)

    lost, late, stale, reflex = map(
        stop, (StopReason.LINK_LOST, StopReason.LINK_LATE, StopReason.TARGETS_STALE, StopReason.ROBOT_REFLEX)
    )
    assert with_fault(None, reflex) is reflex
    assert with_fault(reflex, lost) is reflex
    assert with_fault(late, lost).reason is StopReason.LINK_LOST
    worse = with_fault(stale, reflex)
    assert worse.reason is StopReason.ROBOT_REFLEX and worse.detail == f"{reflex.detail}; before that: {stale.detail}"


def test_the_check_needs_no_robot_library() -> None:
    code = """
import sys
from oc_residual_gym.real import arm_phases, target_check
sys.exit(bool({"franky", "mujoco", "torch", "numba"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
