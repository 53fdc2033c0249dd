"""The process that alone talks to the arm: it streams targets through franky, and stops the arm when they go wrong.

Run by :class:`oc_residual_gym.real.arm.Arm`, which gives it everything to know as :class:`ArmSettings`: this module
imports nothing that compiles or renders. The robot's own 1 kHz loop runs in franky, without the interpreter's lock.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import franky
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.real.stops import RobotStopped, StopReason
from oc_residual_gym.robots.constants import Array
from oc_residual_gym.robots.kinematics import TCP_FROM_FLANGE

STREAM_PERIOD = 0.005
"""Seconds from one interpolated target to the next: a target stepped at 20 Hz would kick by 8 N per 10 mm."""
STATE_LIMIT = 0.1
"""Seconds in which the robot's state must be renewed; the robot itself gives up after 20 ms without commands."""
SLACK_POSITION, SLACK_ROTATION = 0.001, 0.01
"""Metres and radians beyond the rate limit: the first target follows a pose measured a moment before."""
RETREAT = 0.04
"""Metres that the hand draws back before it is raised."""
RAISED = 0.25
"""Metres above the table up to which the TCP is raised before the arm moves to its home posture."""
HOMING_STIFFNESS = np.array([600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0])
HOMING_DAMPING = np.array([50.0, 50.0, 50.0, 50.0, 30.0, 25.0, 15.0])
"""Nm/rad and Nm s/rad of each joint on the way home, from libfranka's example ``joint_impedance_control``. Compliant,
and indifferent to a late command, where a joint motion ends in a reflex."""
HOMING_REACH = 0.8
"""Metres from the TCP to the axes that move it farthest: turns the speed cap into one for joints."""
HOMING_SETTLE = 0.5
"""Seconds at the home posture before the arm is let go."""


@dataclass(frozen=True)
class ArmSettings:
    """Everything that the process has to know."""

    host: str
    realtime: bool
    set_tcp: bool
    speed_cap: float
    control_period: float
    """Seconds over which a target is approached."""
    target_limit: float
    """Seconds without a new target after which the arm stops; until then it holds the last one."""
    pose_limit: float
    """Seconds without a usable object pose after which it stops."""
    rate_position: float
    rate_rotation: float
    """Metres and radians that a target may be away from the one before it."""
    workspace_low: Array
    workspace_high: Array
    home: Array
    """(7,) joint positions."""
    joint_lower: Array
    joint_upper: Array
    translational_stiffness: float
    rotational_stiffness: float
    damping: Array
    """(6,)."""
    posture_stiffness: float
    posture_damping: float
    position_clip: float
    rotation_clip: float
    """Metres and radians of error, along each axis, that the impedance acts on at most."""
    torque_thresholds: tuple[float, ...]
    force_thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Stop:
    """A stop by itself, or on request. Times are ``time.monotonic()`` seconds."""

    reason: StopReason
    detail: str
    seen_at: float
    """When the fault was noticed."""
    stopped_at: float | None = None
    """When the arm had come to rest; ``None`` while it is coming to rest, or where nothing can be measured any more."""


@dataclass(frozen=True)
class ArmState:
    """What the arm measures; base frame, SI units."""

    stamp: float
    """``time.monotonic()`` of the reading."""
    joint_positions: Array
    joint_velocities: Array
    tcp_pose: Array
    """(7,)."""
    wrench: Array
    """(6,) external wrench on the tool about the TCP, averaged since the last reading."""
    reference: Array
    """(7,) pose that the impedance draws the TCP to; the TCP itself where nothing does."""
    stiffness_frame_offset: float
    """Metres from the TCP to the frame whose wrench the robot estimates, and radians between the two."""
    mass: float
    """kg on the flange, as the robot was told."""
    success_rate: float
    """Of the last 100 commands, those that reached the robot in time."""
    stop: Stop | None


def pose_array(affine: franky.Affine) -> Array:
    """(7,) position and quaternion xyzw."""
    return np.concatenate([affine.translation, affine.quaternion])


def affine(pose: Array) -> franky.Affine:
    """franky's form of a pose (7,)."""
    return franky.Affine(pose[:3], pose[3:] / np.linalg.norm(pose[3:]))


class ArmProcess:
    """Serves one parent over ``connection`` until it says "close", or is gone."""

    def __init__(self, connection: Connection, settings: ArmSettings):
        self.connection, self.settings = connection, settings
        self._parent = os.getppid()
        self._tracker: franky.CartesianImpedanceTracker | None = None
        self._stopping = False
        self._stop: Stop | None = None
        self._lost = False
        self._wrenches: list[Array] = []
        self._robot = self._connect()
        self._tcp = self._reference = self._start = self._target = self._read()[1]
        self._target_at = self._poses_at = self._renewed_at = time.monotonic()
        self._robot_time = 0

    def _connect(self) -> franky.Robot:
        s = self.settings
        config = franky.RealtimeConfig.Enforce if s.realtime else franky.RealtimeConfig.Ignore
        robot = franky.Robot(s.host, realtime_config=config)
        robot.set_collision_behavior(list(s.torque_thresholds), list(s.force_thresholds))
        if s.set_tcp:
            wanted = affine(TCP_FROM_FLANGE)
            nominal = robot.state.F_T_NE
            robot.set_ee((nominal.inverse * wanted).matrix.T.ravel().tolist())
            robot.set_k(np.eye(4).ravel().tolist())
            # The next state or two are still computed with the old frame.
            deadline = time.monotonic() + 1.0
            while np.abs(robot.state.F_T_EE.matrix - wanted.matrix).max() > 1e-6 and time.monotonic() < deadline:
                pass
            for _ in range(3):
                robot.state  # noqa: B018 (receives one)
        return robot

    def serve(self) -> None:
        """Until the parent says "close", or is gone."""
        next_tick = time.monotonic()
        while True:
            moving = self._tracker is not None or self._stopping
            if self.connection.poll(max(0.0, next_tick - time.monotonic()) if moving else 0.1):
                try:
                    serial, message, *arguments = self.connection.recv()
                except (EOFError, OSError):
                    break
                if message == "close":
                    break
                self._handle(serial, message, arguments)
            if os.getppid() != self._parent:
                break
            if moving and time.monotonic() >= next_tick:
                self._tick()
                next_tick = max(next_tick + STREAM_PERIOD, time.monotonic() - STREAM_PERIOD)
            elif not moving:
                next_tick = time.monotonic()
        self._leave(StopReason.TARGETS_STALE, "the controlling process is gone")
        while self._stopping:
            time.sleep(STREAM_PERIOD)
            self._tick()

    def _handle(self, serial: int, message: str, arguments: list[Any]) -> None:
        if message == "target":
            self._take_target(*arguments)
            return
        try:
            if message == "stop":
                self._leave(*arguments)
            elif message == "rest":
                self._rest()
            elif message == "home":
                self._home()
            elif message == "recover":
                self._recover()
        except RobotStopped as error:
            now = time.monotonic()
            self._stop = self._stop or Stop(error.reason, error.detail, now, now)
        self.connection.send((serial, self._state()))

    # ---- targets

    def _take_target(self, target: Array, poses_at: float) -> None:
        now = time.monotonic()
        if self._stop is not None or self._stopping:
            return
        if self._tracker is None:
            try:
                self._track()
            except Exception as error:  # franky's exceptions share no base class
                self._fail(error)
                return
        problem = self._problem(target)
        if problem:
            self._leave(StopReason.TARGET_REFUSED, problem)
            return
        self._start, self._target = self._reference, target[:7].copy()
        if self._start[3:] @ self._target[3:] < 0.0:
            self._target[3:] *= -1.0
        self._target_at, self._poses_at = now, poses_at

    def _problem(self, target: Array) -> str:
        """Why ``target`` must not be executed, or ""."""
        s, where = self.settings, f"target {np.round(target[:7], 4).tolist()}"
        if not np.isfinite(target).all() or abs(np.linalg.norm(target[3:7]) - 1.0) > 1e-3:
            return f"{where} is not finite, or its quaternion not of length 1"
        if (target[:3] < s.workspace_low - 1e-6).any() or (target[:3] > s.workspace_high + 1e-6).any():
            return f"{where} is outside the workspace {s.workspace_low.tolist()} to {s.workspace_high.tolist()} m"
        moved, turned = _distance(target, self._target)
        if moved > s.rate_position + SLACK_POSITION or turned > s.rate_rotation + SLACK_ROTATION:
            # The leash draws a target back, faster than that, to an arm that was pushed away.
            now, before = _distance(target, self._tcp), _distance(self._target, self._tcp)
            if now[0] < before[0] + SLACK_POSITION and now[1] < before[1] + SLACK_ROTATION:
                return ""
            return f"{where} is {1e3 * moved:.1f} mm and {turned:.3f} rad from the one before it"
        return ""

    def _track(self) -> None:
        s = self.settings
        posture = franky.PostureTask(s.home, s.posture_stiffness, s.posture_damping)
        self._tracker = franky.CartesianImpedanceTracker(
            self._robot,
            translational_stiffness=s.translational_stiffness,
            rotational_stiffness=s.rotational_stiffness,
            damping=s.damping,
            translational_error_clip=np.full(3, s.position_clip),
            rotational_error_clip=np.full(3, s.rotation_clip),
            posture_task=posture,
            lower_joint_limits=s.joint_lower,
            upper_joint_limits=s.joint_upper,
        )
        self._tcp = self._reference = self._start = self._target = self._read()[1]
        self._wrenches.clear()
        self._renewed_at = self._target_at = time.monotonic()

    # ---- every 5 ms

    def _tick(self) -> None:
        try:
            if self._stopping:
                if self._robot.join_motion(0.0):
                    self._rested()
                else:
                    self._tcp = self._read()[1]
                return
            if self._tracker is None:
                return
            if self._tracker.tick() is None:
                self._robot.join_motion(1.5)
                raise RuntimeError("control ended without a reason")
            now, (robot_time, self._tcp) = time.monotonic(), self._read()
            if robot_time != self._robot_time:
                self._robot_time, self._renewed_at = robot_time, now
            self._watch(now)
            if self._tracker is not None:
                fraction = min((now - self._target_at) / self.settings.control_period, 1.0)
                self._reference = self._start + fraction * (self._target - self._start)
                self._tracker.set_target(affine(self._reference))
        except Exception as error:  # franky's exceptions share no base class
            self._fail(error)

    def _watch(self, now: float) -> None:
        """The heartbeat: a target is held once reached; the arm stops when none follows in time."""
        s = self.settings
        if now - self._renewed_at > STATE_LIMIT:
            age = 1e3 * (now - self._renewed_at)
            self._leave(StopReason.LINK_LATE, f"no state from the robot for {age:.0f} ms")
        elif now - self._target_at > s.target_limit:
            self._leave(StopReason.TARGETS_STALE, f"no target for {now - self._target_at:.2f} s")
        elif now - self._poses_at > s.pose_limit:
            self._leave(StopReason.POSES_SILENT, f"no usable object pose for {now - self._poses_at:.2f} s")

    # ---- stopping

    def _leave(self, reason: StopReason, detail: str) -> None:
        """Ramp the impedance down and let the arm come to rest; its first reason stays."""
        now = time.monotonic()
        if self._stop is None:
            self._stop = Stop(reason, detail, now, None if self._tracker or self._stopping else now)
        self._end_tracking()

    def _rest(self) -> None:
        """As :meth:`_leave`, without a fault."""
        self._end_tracking()
        while self._stopping:
            time.sleep(STREAM_PERIOD)
            self._tick()

    def _end_tracking(self) -> None:
        if self._tracker is None:
            return
        self._tracker, self._stopping = None, True
        try:
            if self._robot.is_in_control:
                self._robot.move(franky.TorqueStopMotion(), asynchronous=True)
        except Exception as error:  # franky's exceptions share no base class
            self._fail(error)

    def _rested(self) -> None:
        self._stopping = False
        if self._stop is not None and self._stop.stopped_at is None:
            self._stop = replace(self._stop, stopped_at=time.monotonic())

    def _fail(self, error: Exception) -> None:
        """Control is lost: the robot has stopped by itself, or is out of reach."""
        self._tracker = None
        reason = reason_of(error)
        now, before = time.monotonic(), self._stop
        if before is None:
            self._stop = Stop(reason, _first_line(error), now, now if reason is not StopReason.LINK_LOST else None)
        elif before.reason is StopReason.LINK_LATE and reason is StopReason.LINK_LOST:
            # It was late because it never came again.
            self._stop = replace(before, reason=reason, detail=_first_line(error))
        self._lost = reason is StopReason.LINK_LOST
        self._stopping = False
        if not self._lost:
            self._rested()

    # ---- at rest

    def _home(self) -> None:
        """Raise the TCP where it is low, then move to the home posture."""
        if self._stop is not None or self._lost:
            raise RobotStopped(StopReason.ROBOT_REFLEX, "the arm is stopped; recover it first")
        self._rest()
        try:
            if self._robot.has_errors:
                raise RobotStopped(StopReason.ROBOT_REFLEX, f"the robot reports {self._robot.state.current_errors}")
            self._raise()
            self._move_joints(self.settings.home)
        except RobotStopped:
            raise
        except Exception as error:
            self._lost = reason_of(error) is StopReason.LINK_LOST
            raise RobotStopped(reason_of(error), f"on the way to the home posture: {_first_line(error)}") from error

    def _raise(self) -> None:
        """Back out of what the hand may touch, against the direction that it points in, and up."""
        start = self._read()[1]
        if start[2] >= RAISED:
            return
        back = start.copy()
        back[:3] -= RETREAT * Rotation.from_quat(start[3:]).as_matrix()[:, 2]
        up = back.copy()
        up[2] = max(RAISED, back[2])
        self._track()
        assert self._tracker is not None
        for origin, goal in ((start, back), (back, up)):
            seconds, begun, share = _distance(origin, goal)[0] / self.settings.speed_cap, time.monotonic(), 0.0
            while share < 1.0 and not self.connection.poll(STREAM_PERIOD):
                if self._tracker.tick() is None:
                    self._robot.join_motion(1.5)
                share = min((time.monotonic() - begun) / max(seconds, STREAM_PERIOD), 1.0)
                self._tracker.set_target(affine(origin + share * (goal - origin)))
        self._rest()

    def _move_joints(self, goal: Array) -> None:
        start, begun = np.array(self._robot.state.q), time.monotonic()
        # The blend below is 1.5 times as fast in its middle as on average.
        duration = 1.5 * float(np.abs(goal - start).max()) * HOMING_REACH / self.settings.speed_cap
        tracker = franky.JointImpedanceTracker(self._robot, stiffness=HOMING_STIFFNESS, damping=HOMING_DAMPING)
        while (elapsed := time.monotonic() - begun) < duration + HOMING_SETTLE:
            if self.connection.poll(STREAM_PERIOD) or os.getppid() != self._parent:
                tracker.stop()
                raise RobotStopped(StopReason.OPERATOR_STOP, "stopped on the way to the home posture")
            if tracker.tick() is None:
                self._robot.join_motion(1.5)
                raise RuntimeError("control ended without a reason")
            share = min(elapsed / max(duration, STREAM_PERIOD), 1.0)
            tracker.set_target(start + share * share * (3.0 - 2.0 * share) * (goal - start))
        tracker.stop()

    def _recover(self) -> None:
        try:
            if self._lost:
                self._robot = self._connect()
            elif self._robot.has_errors and not self._robot.recover_from_errors() and self._robot.has_errors:
                raise RuntimeError("the robot did not recover; look at Desk")
        except Exception as error:
            raise RobotStopped(reason_of(error), f"cannot recover: {_first_line(error)}") from error
        self._stop, self._lost, self._stopping, self._tracker = None, False, False, None

    # ---- state

    def _read(self) -> tuple[int, Array]:
        """The robot's clock in ms, and the TCP's pose; the wrench is kept for the average."""
        state = self._last = self._robot.state
        tcp = pose_array(state.O_T_EE)
        turn = (Rotation.from_quat(tcp[3:]) * Rotation.from_quat(state.EE_T_K.quaternion)).as_matrix()
        # The robot's estimate is what it does to its surroundings, about and along the stiffness frame K.
        self._wrenches.append(-np.concatenate([turn @ state.K_F_ext_hat_K[:3], turn @ state.K_F_ext_hat_K[3:]]))
        return state.time.to_msec(), tcp

    def _state(self) -> ArmState:
        if self._tracker is None and not self._stopping and not self._lost:
            try:
                self._tcp = self._reference = self._read()[1]
            except Exception as error:  # franky's exceptions share no base class
                self._fail(error)
        state = self._last
        wrench = np.mean(self._wrenches or [np.zeros(6)], axis=0)
        self._wrenches.clear()
        frame = state.EE_T_K
        angle = Rotation.from_quat(frame.quaternion).magnitude()
        return ArmState(
            stamp=time.monotonic(),
            joint_positions=np.array(state.q),
            joint_velocities=np.array(state.dq),
            tcp_pose=pose_array(state.O_T_EE),
            wrench=wrench,
            reference=self._reference.copy(),
            stiffness_frame_offset=max(float(np.linalg.norm(frame.translation)), angle),
            mass=state.m_total,
            success_rate=state.control_command_success_rate,
            stop=self._stop,
        )


def reason_of(error: Exception) -> StopReason:
    """What an exception of franky says about the arm."""
    if isinstance(error, RobotStopped):
        return error.reason
    text = str(error)
    if "communication_constraints_violation" in text:
        return StopReason.LINK_LATE
    if isinstance(error, (franky.NetworkException, franky.ProtocolException)) or "Net Exception" in text:
        return StopReason.LINK_LOST
    return StopReason.ROBOT_REFLEX


def _first_line(error: Exception) -> str:
    text = error.detail if isinstance(error, RobotStopped) else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def _distance(a: Array, b: Array) -> tuple[float, float]:
    """Metres and radians between two poses (7,)."""
    angle = 2.0 * np.arccos(min(abs(float(a[3:7] @ b[3:7])), 1.0))
    return float(np.linalg.norm(a[:3] - b[:3])), float(angle)


def main() -> None:
    """The process's program; its argument is the file descriptor of the connection to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    settings: ArmSettings = connection.recv()
    try:
        process = ArmProcess(connection, settings)
    except Exception as error:  # franky's exceptions share no base class
        connection.send((0, (reason_of(error), _first_line(error))))
        return
    connection.send((0, None))
    process.serve()
