"""The arm process: the only one that talks to the arm. It streams targets through franky, and stops the arm on a fault.

:class:`oc_residual_gym.real.arm.FR3Arm` starts it and sends it :class:`ArmSettings`; this module therefore imports
nothing that compiles or renders. The robot's 1 kHz loop runs inside franky, without the interpreter's lock.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import franky

from oc_residual_gym.errors import RobotStopped, Stop, StopReason
from oc_residual_gym.real.arm_phases import Phase, follow
from oc_residual_gym.real.arm_state import ArmSettings, ArmState, with_fault
from oc_residual_gym.real.homing import check_control, move_joints, raise_tool
from oc_residual_gym.real.parent import Parent
from oc_residual_gym.real.robot_link import ArmReadings, affine, connect, first_line, reason_of, take_control
from oc_residual_gym.real.target_check import TargetCheck, overdue
from oc_residual_gym.states import Array

STREAM_PERIOD = 0.005
"""Seconds between interpolated targets; steps at 20 Hz would jerk the arm by 8 N per 10 mm."""
STOP_LIMIT = 2.2
"""Seconds for the arm to come to rest (franky needs at most 2); after that, control is cut and the robot brakes."""
CUT_LIMIT = 0.4
"""Seconds for cutting control; after that, the arm counts as out of reach."""


class ArmProcess:
    """Serves one parent process over ``connection`` until it sends "close" or is gone.

    Its phases and their transitions are those of :mod:`oc_residual_gym.real.arm_phases`. ``_stop`` says why the arm is
    stopped or stopping; otherwise it is ``None``.
    """

    def __init__(self, connection: Connection, settings: ArmSettings):
        self.settings, self._parent = settings, Parent(connection, settings.target_limit)
        self._phase = Phase.REST
        self._tracker: franky.CartesianImpedanceTracker | None = None
        self._stopping_at = 0.0
        self._stop: Stop | None = None
        self._lost = False
        self._readings = ArmReadings()
        self._robot = connect(settings)
        self._tcp = self._reference = self._start = self._target = self._read()[1]
        self._poses_at = self._renewed_at = time.monotonic()
        self._check = TargetCheck(settings, self._tcp, self._renewed_at)
        self._robot_time = 0

    def serve(self) -> None:
        """Handle messages until the parent sends "close" or is gone; then bring the arm to rest."""
        next_tick = time.monotonic()
        while True:
            moving = self._phase in (Phase.TRACKING, Phase.STOPPING)
            try:
                received = self._parent.next_message(max(0.0, next_tick - time.monotonic()) if moving else 0.1)
            except (EOFError, OSError):
                break
            if received is not None:
                serial, message, *arguments = received
                if message == "close":
                    break
                self._handle(serial, message, arguments)
            if self._parent.is_gone:
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
            if message in self._ANSWERS:
                self._ANSWERS[message](self, *arguments)
        except Exception as error:  # franky's exceptions share no base class
            self._fail(error)
        if message not in ("target", "alive"):
            self._parent.answer(serial, self._state())

    def _enter(self, phase: Phase) -> None:
        self._phase = follow(self._phase, phase)

    # ---- targets

    def _take_target(self, target: Array, poses_at: float) -> None:
        if self._phase not in (Phase.REST, Phase.TRACKING):
            return
        if self._phase is Phase.REST:
            self._track()
        problem = self._check.take(target, self._tcp, time.monotonic())
        if problem:
            self._leave(StopReason.TARGET_REFUSED, problem)
            return
        self._start, self._target = self._reference, self._check.target.copy()
        if self._start[3:] @ self._target[3:] < 0.0:
            self._target[3:] *= -1.0
        self._poses_at = poses_at

    def _track(self) -> None:
        """Take control of the arm, with its present pose as the target."""
        self._tracker = take_control(self._robot, self.settings)
        self._enter(Phase.TRACKING)
        self._tcp = self._reference = self._start = self._target = self._read()[1]
        self._readings.forget_wrench()
        self._renewed_at = time.monotonic()
        self._check = TargetCheck(self.settings, self._tcp, self._renewed_at)

    # ---- every 5 ms

    def _tick(self) -> None:
        try:
            if self._phase is Phase.STOPPING:
                self._watch_stop()
            elif self._phase is Phase.TRACKING:
                self._follow_target()
        except Exception as error:  # franky's exceptions share no base class
            self._fail(error)

    def _follow_target(self) -> None:
        """Move the reference towards the target, and hold it there; stop if anything is overdue."""
        assert self._tracker is not None
        check_control(self._robot, self._tracker)
        now, (robot_time, self._tcp) = time.monotonic(), self._read()
        if robot_time != self._robot_time:
            self._robot_time, self._renewed_at = robot_time, now
        fault = overdue(self.settings, now, self._renewed_at, self._check.taken_at, self._poses_at)
        if fault is not None:
            self._leave(*fault)
            return
        fraction = min((now - self._check.taken_at) / self.settings.control_period, 1.0)
        self._reference = self._start + fraction * (self._target - self._start)
        self._tracker.set_target(affine(self._reference))

    # ---- stopping

    def _leave(self, reason: StopReason, detail: str) -> None:
        """Stop the arm; the first reason is kept."""
        now = time.monotonic()
        if self._stop is None:
            self._stop = Stop(reason, detail, now, now if self._phase is Phase.REST else None)
        if self._phase is Phase.TRACKING:
            self._let_go()
        elif self._phase is Phase.REST:
            self._enter(Phase.STOPPED)

    def _fail(self, error: Exception) -> None:
        """Record an error of the robot or of this program, and stop the arm if it is still controlled.

        Otherwise it has stopped by itself, or is out of reach.
        """
        reason = reason_of(error)
        self._stop = with_fault(self._stop, Stop(reason, first_line(error), time.monotonic()))
        self._lost = self._lost or reason is StopReason.LINK_LOST
        if self._phase is not Phase.STOPPING:
            self._let_go()

    def _let_go(self) -> None:
        """Ramp down the impedance, if it is active; :meth:`_watch_stop` does the rest. Never raises."""
        self._enter(Phase.STOPPING)  # legal from every phase
        self._tracker = None
        self._stopping_at = time.monotonic()
        try:
            if self._robot.is_in_control:
                self._robot.move(franky.TorqueStopMotion(), asynchronous=True)
        except Exception:
            self._cut()

    def _cut(self) -> None:
        """End control immediately. The result shows when the motion ends."""
        with contextlib.suppress(Exception):
            self._robot.stop()

    def _watch_stop(self) -> None:
        """Check whether the arm has come to rest; raises the error that ended its control, if any."""
        took = time.monotonic() - self._stopping_at
        if took > STOP_LIMIT + CUT_LIMIT:
            self._enter_rest()
        elif self._robot.join_motion(0.0):
            if self._stop is not None and self._stop.stopped_at is None and not self._lost:
                self._stop = replace(self._stop, stopped_at=time.monotonic())
            self._enter_rest()
        elif took > STOP_LIMIT:
            self._cut()
        else:
            self._tcp = self._read()[1]

    def _enter_rest(self) -> None:
        self._enter(Phase.REST if self._stop is None else Phase.STOPPED)

    def _rest(self) -> None:
        """Bring the arm to rest. This is not a fault."""
        if self._phase is Phase.TRACKING:
            self._let_go()
        self._wait_for_rest()

    def _wait_for_rest(self) -> None:
        while self._phase is Phase.STOPPING:
            time.sleep(STREAM_PERIOD)
            self._tick()

    # ---- at rest

    def _resume(self) -> None:
        """Clear a stop because of missing targets, and no other stop."""
        self._rest()
        if self._stop is None or self._stop.reason is not StopReason.TARGETS_STALE:
            return
        self._check_errors()
        self._stop = None
        self._enter(Phase.REST)

    def _home(self) -> None:
        """Raise the TCP if it is low, then move to the home posture."""
        self._rest()
        if self._stop is not None:
            return
        self._check_errors()
        robot, settings, pause = self._robot, self.settings, self._parent.pause
        self._parent.expect_life()
        self._enter(Phase.HOMING)
        raise_tool(robot, partial(take_control, robot, settings), lambda: self._read()[1], settings.speed_cap, pause)
        move_joints(robot, settings.home, settings.speed_cap, pause)
        self._enter(Phase.REST)

    def _check_errors(self) -> None:
        if self._robot.has_errors:
            raise RobotStopped(StopReason.ROBOT_REFLEX, f"the robot reports {self._robot.state.current_errors}")

    def _recover(self) -> None:
        self._rest()
        try:
            if self._lost:
                # The robot serves one client: close the old connection before opening a new one.
                self.__dict__.pop("_robot", None)
                gc.collect()
                self._robot = connect(self.settings)
            else:
                with contextlib.suppress(Exception):
                    self._robot.join_motion(0.0)  # clears the error that ended the last motion
                if self._robot.has_errors and not self._robot.recover_from_errors() and self._robot.has_errors:
                    raise RuntimeError("the robot did not recover; look at Desk")
        except Exception as error:  # franky's exceptions share no base class
            now, detail = time.monotonic(), f"cannot recover: {first_line(error)}"
            self._stop = Stop(reason_of(error), detail, now, None if self._lost else now)
            self._enter(Phase.STOPPED)
            return
        self._stop, self._lost = None, False
        self._enter(Phase.REST)

    # ---- state

    def _read(self) -> tuple[int, Array]:
        return self._readings.read(self._robot)

    def _state(self) -> ArmState:
        if self._phase in (Phase.REST, Phase.STOPPED) and not self._lost:
            try:
                self._tcp = self._reference = self._read()[1]
            except Exception as error:  # franky's exceptions share no base class
                self._fail(error)
        return self._readings.report(self._reference, self._stop, self._phase is Phase.STOPPING)

    # Handler of each message; any other message only asks for the state. Plain functions, not bound methods: a
    # reference cycle would keep the robot's only connection open too long.
    _ANSWERS: ClassVar[Mapping[str, Callable[..., None]]] = {
        "target": _take_target,
        "stop": _leave,
        "rest": _rest,
        "resume": _resume,
        "home": _home,
        "recover": _recover,
    }


def main() -> None:
    """Entry point of the arm process; its argument is the file descriptor of the connection to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    settings: ArmSettings = connection.recv()
    try:
        process = ArmProcess(connection, settings)
    except Exception as error:  # franky's exceptions share no base class
        connection.send((0, (reason_of(error), first_line(error))))
        return
    connection.send((0, None))
    process.serve()
