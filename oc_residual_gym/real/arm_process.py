"""The process that alone talks to the arm: it streams targets through franky, and stops the arm when they go wrong.

Run by :class:`oc_residual_gym.real.arm.Arm`, which gives it everything to know as :class:`ArmSettings`: this module
imports nothing that compiles or renders. The robot's own 1 kHz loop runs in franky, without the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections import deque
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import franky
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import RobotStopped, Stop, StopReason
from oc_residual_gym.real.arm_state import HAND_MASS, ArmSettings, ArmState
from oc_residual_gym.real.homing import ALIVE_PERIOD, check_control, move_joints, raise_tool
from oc_residual_gym.robots.kinematics import TCP_FROM_FLANGE, forward_kinematics
from oc_residual_gym.states import Array

STREAM_PERIOD = 0.005
"""Seconds from one interpolated target to the next: a target stepped at 20 Hz would kick by 8 N per 10 mm."""
STATE_LIMIT = 0.1
"""Seconds in which the robot's state must be renewed; the robot itself gives up after 20 ms without commands."""
SLACK_POSITION, SLACK_ROTATION = 0.001, 0.01
"""Metres and radians beyond the rate limit: the first target follows a pose measured a moment before."""
STORED_STEPS = 2.0
"""Steps of the rate limit that may be saved up while no target comes: targets that are late may follow each other."""
STOP_LIMIT = 2.2
"""Seconds in which an arm comes to rest (2 at most, says franky); then control is cut, which the robot's brakes end."""
CUT_LIMIT = 0.4
"""Seconds that this takes; the arm is out of our hands if it takes longer."""
FRAME_LIMIT, FRAME_ERROR = 3.0, 0.001
"""Seconds that the robot is given to compute with a new TCP, and metres within which it then agrees with ours."""
HAND_CENTER = [-0.01, 0.0, 0.03]
HAND_INERTIA = [0.001, 0.0, 0.0, 0.0, 0.0025, 0.0, 0.0, 0.0, 0.0017]
"""Metres from the flange and kg m2 of the Franka Hand, as Desk has them."""


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
        self._stopping, self._stopping_at = False, 0.0
        self._stop: Stop | None = None
        self._lost = False
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._wrenches: list[Array] = []
        self._robot = self._connect()
        self._tcp = self._reference = self._start = self._target = self._read()[1]
        self._target_at = self._poses_at = self._renewed_at = self._alive_at = time.monotonic()
        self._allowance = STORED_STEPS
        self._robot_time = 0

    def _connect(self) -> franky.Robot:
        s = self.settings
        config = franky.RealtimeConfig.Enforce if s.realtime else franky.RealtimeConfig.Ignore
        robot = franky.Robot(s.host, realtime_config=config)
        robot.set_collision_behavior(list(s.torque_thresholds), list(s.force_thresholds))
        if s.set_tcp:
            _set_tcp(robot)
        return robot

    def serve(self) -> None:
        """Until the parent says "close", or is gone."""
        next_tick = time.monotonic()
        while True:
            moving = self._tracker is not None or self._stopping
            if self._waiting or self.connection.poll(max(0.0, next_tick - time.monotonic()) if moving else 0.1):
                try:
                    serial, message, *arguments = self._waiting.popleft() if self._waiting else self.connection.recv()
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
        self._wait_for_rest()

    def _handle(self, serial: int, message: str, arguments: list[Any]) -> None:
        try:
            if message == "target":
                self._take_target(*arguments)
            elif message == "stop":
                self._leave(*arguments)
            elif message == "rest":
                self._rest()
            elif message == "resume":
                self._resume()
            elif message == "home":
                self._home()
            elif message == "recover":
                self._recover()
        except Exception as error:  # franky's exceptions share no base class
            self._fail(error)
        if message not in ("target", "alive"):
            with contextlib.suppress(OSError):  # a parent that is gone is noticed where its messages are awaited
                self.connection.send((serial, self._state()))

    # ---- targets

    def _take_target(self, target: Array, poses_at: float) -> None:
        if self._stop is not None or self._stopping:
            return
        if self._tracker is None:
            self._track()
        now, s = time.monotonic(), self.settings
        self._allowance = min(self._allowance + (now - self._target_at) / s.control_period, STORED_STEPS)
        problem = self._problem(target)
        if problem:
            self._leave(StopReason.TARGET_REFUSED, problem)
            return
        self._allowance -= self._steps_to(target)
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
        slack = max(SLACK_POSITION / s.rate_position, SLACK_ROTATION / s.rate_rotation)
        steps, allowed = self._steps_to(target), min(self._allowance, 1.0)
        if steps > allowed + slack:
            moved, turned = off_segment(target, self._target, self._target)
            what = f"{steps:.1f} steps of the rate limit where {allowed:.1f} were due"
            return f"{where} is {1e3 * moved:.1f} mm and {turned:.3f} rad from the one before it: {what}"
        return ""

    def _steps_to(self, target: Array) -> float:
        """How many steps of the rate limit lead to ``target``; for free are those from the last one towards the TCP.

        The leash draws a target back, faster than the rate limit, to an arm that was pushed away.
        """
        moved, turned = off_segment(target, self._target, self._tcp)
        return max(moved / self.settings.rate_position, turned / self.settings.rate_rotation)

    def _track(self) -> None:
        self._tracker = self._new_tracker()
        self._tcp = self._reference = self._start = self._target = self._read()[1]
        self._wrenches.clear()
        self._allowance = STORED_STEPS
        self._renewed_at = self._target_at = time.monotonic()

    def _new_tracker(self) -> franky.CartesianImpedanceTracker:
        """Take control, with the present pose as the target."""
        s = self.settings
        return franky.CartesianImpedanceTracker(
            self._robot,
            translational_stiffness=s.translational_stiffness,
            rotational_stiffness=s.rotational_stiffness,
            damping=s.damping,
            translational_error_clip=np.full(3, s.position_clip),
            rotational_error_clip=np.full(3, s.rotation_clip),
            posture_task=franky.PostureTask(s.home, s.posture_stiffness, s.posture_damping),
            lower_joint_limits=s.joint_lower,
            upper_joint_limits=s.joint_upper,
        )

    # ---- every 5 ms

    def _tick(self) -> None:
        try:
            if self._stopping:
                self._watch_stop()
                return
            if self._tracker is None:
                return
            check_control(self._robot, self._tracker)
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
        elif not now - self._poses_at <= s.pose_limit:  # NaN counts as never
            self._leave(StopReason.POSES_SILENT, f"no usable object pose for {now - self._poses_at:.2f} s")

    # ---- stopping

    def _leave(self, reason: StopReason, detail: str) -> None:
        """Stop; the first reason stays."""
        now = time.monotonic()
        if self._stop is None:
            self._stop = Stop(reason, detail, now, None if self._tracker or self._stopping else now)
        if self._tracker is not None:
            self._let_go()

    def _fail(self, error: Exception) -> None:
        """Something went wrong, in the robot or here: an arm that is still controlled is stopped.

        Any other has stopped by itself, or is out of reach.
        """
        reason, detail, before = reason_of(error), _first_line(error), self._stop
        if before is None:
            self._stop = Stop(reason, detail, time.monotonic())
        elif before.reason is StopReason.LINK_LATE and reason is StopReason.LINK_LOST:
            # It was late because it never came again.
            self._stop = replace(before, reason=reason, detail=detail)
        elif before.reason is StopReason.TARGETS_STALE:
            # Which alone is no fault between episodes.
            self._stop = replace(before, reason=reason, detail=f"{detail}; before that: {before.detail}")
        self._lost = self._lost or reason is StopReason.LINK_LOST
        if not self._stopping:
            self._let_go()

    def _let_go(self) -> None:
        """Ramp the impedance down, if there is any; :meth:`_watch_stop` sees to the rest. Never raises."""
        self._tracker = None
        self._stopping, self._stopping_at = True, time.monotonic()
        try:
            if self._robot.is_in_control:
                self._robot.move(franky.TorqueStopMotion(), asynchronous=True)
        except Exception:
            self._cut()

    def _cut(self) -> None:
        """End control at once. What comes of it is said by the motion's end."""
        with contextlib.suppress(Exception):
            self._robot.stop()

    def _watch_stop(self) -> None:
        """See whether the arm has come to rest; raises what ended its control otherwise."""
        took = time.monotonic() - self._stopping_at
        if took > STOP_LIMIT + CUT_LIMIT:
            self._stopping = False
        elif self._robot.join_motion(0.0):
            self._stopping = False
            if self._stop is not None and self._stop.stopped_at is None and not self._lost:
                self._stop = replace(self._stop, stopped_at=time.monotonic())
        elif took > STOP_LIMIT:
            self._cut()
        else:
            self._tcp = self._read()[1]

    def _rest(self) -> None:
        """Come to rest, which is no fault."""
        if self._tracker is not None:
            self._let_go()
        self._wait_for_rest()

    def _wait_for_rest(self) -> None:
        while self._stopping:
            time.sleep(STREAM_PERIOD)
            self._tick()

    # ---- at rest

    def _resume(self) -> None:
        """Forget that no targets came, and nothing else."""
        self._rest()
        if self._stop is None or self._stop.reason is not StopReason.TARGETS_STALE:
            return
        self._check_errors()
        self._stop = None

    def _home(self) -> None:
        """Raise the TCP where it is low, then move to the home posture."""
        self._rest()
        if self._stop is not None:
            return
        self._check_errors()
        self._alive_at, cap = time.monotonic(), self.settings.speed_cap
        raise_tool(self._robot, self._new_tracker, lambda: self._read()[1], cap, self._pause)
        move_joints(self._robot, self.settings.home, cap, self._pause)

    def _pause(self, seconds: float) -> None:
        """On the way home: wait, and give up where the parent wants something else, says nothing, or is gone."""
        if self.connection.poll(seconds):
            message = self.connection.recv()
            if message[1] != "alive":
                self._waiting.append(message)
                detail = "stopped on the way to the home posture"
                raise RobotStopped(*(message[2:] if message[1] == "stop" else (StopReason.OPERATOR_STOP, detail)))
            self._alive_at = time.monotonic()
        silent = time.monotonic() - self._alive_at
        if silent > max(self.settings.target_limit, 3.0 * ALIVE_PERIOD) or os.getppid() != self._parent:
            detail = f"the controlling process was silent for {silent:.2f} s on the way to the home posture"
            raise RobotStopped(StopReason.TARGETS_STALE, detail)

    def _check_errors(self) -> None:
        if self._robot.has_errors:
            raise RobotStopped(StopReason.ROBOT_REFLEX, f"the robot reports {self._robot.state.current_errors}")

    def _recover(self) -> None:
        self._rest()
        try:
            if self._lost:
                # The robot serves one client: the old connection must be gone before the new one.
                self.__dict__.pop("_robot", None)
                gc.collect()
                self._robot = self._connect()
            else:
                with contextlib.suppress(Exception):
                    self._robot.join_motion(0.0)  # forgets what ended the last motion
                if self._robot.has_errors and not self._robot.recover_from_errors() and self._robot.has_errors:
                    raise RuntimeError("the robot did not recover; look at Desk")
        except Exception as error:  # franky's exceptions share no base class
            now, detail = time.monotonic(), f"cannot recover: {_first_line(error)}"
            self._stop = Stop(reason_of(error), detail, now, None if self._lost else now)
            return
        self._stop, self._lost = None, False

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
    from_franky = isinstance(error, RuntimeError) or type(error).__module__.startswith("franky")
    return StopReason.ROBOT_REFLEX if from_franky else StopReason.PROGRAM_ERROR


def _first_line(error: Exception) -> str:
    text = error.detail if isinstance(error, RobotStopped) else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def off_segment(pose: Array, start: Array, end: Array) -> tuple[float, float]:
    """Metres and radians from ``pose`` (7,) to the nearest on the way from ``start`` to ``end``."""
    back = Rotation.from_quat(start[3:7]).inv()
    turn, whole = ((back * Rotation.from_quat(p[3:7])).as_rotvec() for p in (pose, end))
    return _beside(pose[:3] - start[:3], end[:3] - start[:3]), _beside(turn, whole)


def _beside(step: Array, whole: Array) -> float:
    square = float(whole @ whole)
    share = min(max(float(step @ whole) / square, 0.0), 1.0) if square > 1e-12 else 0.0
    return float(np.linalg.norm(step - share * whole))


def _set_tcp(robot: franky.Robot) -> None:
    """Tell the robot where the Franka Hand's TCP is, and what the hand weighs if Desk knows of no mass at all."""
    wanted, state = affine(TCP_FROM_FLANGE), robot.state
    robot.set_ee((state.F_T_NE.inverse * wanted).matrix.T.ravel().tolist())
    robot.set_k(np.eye(4).ravel().tolist())
    if state.m_total == 0.0:
        robot.set_load(HAND_MASS, HAND_CENTER, HAND_INERTIA)
    # The next states, and those that wait to be read, are still computed with the old frame.
    deadline = time.monotonic() + FRAME_LIMIT
    while time.monotonic() < deadline:
        state = robot.state
        told = np.abs(state.F_T_EE.matrix - wanted.matrix).max() < 1e-6
        if told and np.linalg.norm(state.O_T_EE.translation - forward_kinematics(np.array(state.q))[:3]) < FRAME_ERROR:
            break


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
