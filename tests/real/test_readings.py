"""What the arm reports must be numbers: no comparison would notice a NaN later."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

import franky

from oc_residual_gym.errors import RobotStopped, StopReason
from oc_residual_gym.real.homing import move_joints
from oc_residual_gym.real.robot_link import ArmReadings, reason_of
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS


def state(**changes: Any) -> Any:
    pose = SimpleNamespace(translation=np.array([0.42, 0.0, 0.28]), quaternion=np.array([1.0, 0.0, 0.0, 0.0]))
    frame = SimpleNamespace(translation=np.zeros(3), quaternion=np.array([0.0, 0.0, 0.0, 1.0]))
    joints = {"q": HOME_JOINT_POSITIONS, "dq": np.zeros(7)}
    values = {"O_T_EE": pose, "EE_T_K": frame, "K_F_ext_hat_K": np.ones(6)} | joints
    time = SimpleNamespace(to_msec=lambda: 7)
    return SimpleNamespace(**values | changes, time=time, m_total=0.73, control_command_success_rate=1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("q", np.full(7, np.nan)),
        ("dq", np.r_[np.zeros(6), np.inf]),
        ("K_F_ext_hat_K", np.r_[np.nan, np.zeros(5)]),
        ("O_T_EE", SimpleNamespace(translation=np.array([0.4, np.nan, 0.3]), quaternion=np.array([1.0, 0, 0, 0]))),
    ],
)
def test_a_reading_that_is_no_number_has_a_reason_and_leaves_no_trace(name: str, value: Any) -> None:
    readings = ArmReadings()
    assert readings.read(SimpleNamespace(state=state()))[0] == 7
    with pytest.raises(RobotStopped, match="reported as") as stopped:
        readings.read(SimpleNamespace(state=state(**{name: value})))
    assert reason_of(stopped.value) is StopReason.READING_INVALID
    report = readings.report(np.zeros(7), None, stopping=False)
    for values in (report.joint_positions, report.joint_velocities, report.tcp_pose, report.wrench):
        assert np.isfinite(values).all()


def test_homing_stops_where_a_joint_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = SimpleNamespace(tick=lambda: 0, set_target=lambda *reference: None, stop=lambda: None)
    monkeypatch.setattr(franky, "JointImpedanceTracker", lambda *arguments, **options: tracker)
    robot = SimpleNamespace(state=state())

    def spoil(seconds: float) -> None:
        robot.state = state(q=np.full(7, np.nan))

    with pytest.raises(RobotStopped, match="joints' positions were reported as"):
        move_joints(robot, HOME_JOINT_POSITIONS + 0.1, 0.1, spoil)
