"""The arm process's use of franky: connection, impedance controller, readings, and the meaning of its errors."""

from __future__ import annotations

import time

import franky
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import RobotStopped, Stop, StopReason
from oc_residual_gym.real.arm_state import HAND_MASS, ArmSettings, ArmState, finite
from oc_residual_gym.robots.kinematics import TCP_FROM_FLANGE, forward_kinematics
from oc_residual_gym.states import Array

FRAME_LIMIT, FRAME_ERROR = 3.0, 0.001
"""Seconds for the robot to apply a new TCP, and metres within which its pose must then agree with ours."""
HAND_CENTER = [-0.01, 0.0, 0.03]
HAND_INERTIA = [0.001, 0.0, 0.0, 0.0, 0.0025, 0.0, 0.0, 0.0, 0.0017]
"""Centre of mass (metres from the flange) and inertia (kg m2) of the Franka Hand, as in Desk."""


def pose_array(affine: franky.Affine) -> Array:
    """Convert franky's pose to (7,): position and quaternion xyzw."""
    return np.concatenate([affine.translation, affine.quaternion])


def affine(pose: Array) -> franky.Affine:
    """Convert a pose (7,) to franky's."""
    return franky.Affine(pose[:3], pose[3:] / np.linalg.norm(pose[3:]))


def connect(settings: ArmSettings) -> franky.Robot:
    """Connect; set the collision thresholds and, with ``set_tcp``, the TCP. Raises franky's exceptions."""
    config = franky.RealtimeConfig.Enforce if settings.realtime else franky.RealtimeConfig.Ignore
    robot = franky.Robot(settings.host, realtime_config=config)
    robot.set_collision_behavior(list(settings.torque_thresholds), list(settings.force_thresholds))
    if settings.set_tcp:
        _set_tcp(robot)
    return robot


def _set_tcp(robot: franky.Robot) -> None:
    """Set the Franka Hand's TCP in the robot, and the hand's mass if none is configured in Desk."""
    wanted, state = affine(TCP_FROM_FLANGE), robot.state
    robot.set_ee((state.F_T_NE.inverse * wanted).matrix.T.ravel().tolist())
    robot.set_k(np.eye(4).ravel().tolist())
    if state.m_total == 0.0:
        robot.set_load(HAND_MASS, HAND_CENTER, HAND_INERTIA)
    # The next states, and those already queued, still use the old frame.
    deadline = time.monotonic() + FRAME_LIMIT
    while time.monotonic() < deadline:
        state = robot.state
        told = np.abs(state.F_T_EE.matrix - wanted.matrix).max() < 1e-6
        if told and np.linalg.norm(state.O_T_EE.translation - forward_kinematics(np.array(state.q))[:3]) < FRAME_ERROR:
            break


def take_control(robot: franky.Robot, settings: ArmSettings) -> franky.CartesianImpedanceTracker:
    """Start an impedance controller with the present pose as its target."""
    s = settings
    return franky.CartesianImpedanceTracker(
        robot,
        translational_stiffness=s.translational_stiffness,
        rotational_stiffness=s.rotational_stiffness,
        damping=s.damping,
        translational_error_clip=np.full(3, s.position_clip),
        rotational_error_clip=np.full(3, s.rotation_clip),
        posture_task=franky.PostureTask(s.home, s.posture_stiffness, s.posture_damping),
        lower_joint_limits=s.joint_lower,
        upper_joint_limits=s.joint_upper,
    )


class ArmReadings:
    """Reads the robot's state, and averages the wrench between reports."""

    def __init__(self) -> None:
        self._wrenches: list[Array] = []
        self._last: franky.RobotState | None = None

    def read(self, robot: franky.Robot) -> tuple[int, Array]:
        """Read the state; return the robot's clock in ms and the TCP pose (7,).

        Raises:
            RobotStopped: a value is not finite. The last state and the average stay as they were.
        """
        state = robot.state
        tcp = finite("the TCP's pose was", pose_array(state.O_T_EE))
        finite("the joints' positions and velocities were", [state.q, state.dq])
        wrench = finite("the external wrench was", state.K_F_ext_hat_K)
        turn = (Rotation.from_quat(tcp[3:]) * Rotation.from_quat(state.EE_T_K.quaternion)).as_matrix()
        # The robot estimates the wrench that it exerts on its surroundings, in the stiffness frame K.
        self._wrenches.append(-np.concatenate([turn @ wrench[:3], turn @ wrench[3:]]))
        self._last = state
        return state.time.to_msec(), tcp

    def forget_wrench(self) -> None:
        """Restart the average."""
        self._wrenches.clear()

    def report(self, reference: Array, stop: Stop | None, stopping: bool) -> ArmState:
        """The last state read, with the averaged wrench; restarts the average."""
        state = self._last
        assert state is not None
        wrench = np.mean(self._wrenches or [np.zeros(6)], axis=0)
        self.forget_wrench()
        frame = state.EE_T_K
        angle = Rotation.from_quat(frame.quaternion).magnitude()
        return ArmState(
            stamp=time.monotonic(),
            joint_positions=np.array(state.q),
            joint_velocities=np.array(state.dq),
            tcp_pose=pose_array(state.O_T_EE),
            wrench=wrench,
            reference=reference.copy(),
            stiffness_frame_offset=max(float(np.linalg.norm(frame.translation)), angle),
            mass=state.m_total,
            success_rate=state.control_command_success_rate,
            stop=stop,
            stopping=stopping,
        )


def reason_of(error: Exception) -> StopReason:
    """The stop reason that an exception stands for."""
    if isinstance(error, RobotStopped):
        return error.reason
    text = str(error)
    if "communication_constraints_violation" in text:
        return StopReason.LINK_LATE
    if isinstance(error, (franky.NetworkException, franky.ProtocolException)) or "Net Exception" in text:
        return StopReason.LINK_LOST
    from_franky = isinstance(error, RuntimeError) or type(error).__module__.startswith("franky")
    return StopReason.ROBOT_REFLEX if from_franky else StopReason.PROGRAM_ERROR


def first_line(error: Exception) -> str:
    """First line of the error's message."""
    text = error.detail if isinstance(error, RobotStopped) else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__
