"""The main process's client of the FR3 arm: it sends targets and receives states. A second process drives the robot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np

from oc_residual_gym.envs.actions import RATE_POSITION, RATE_ROTATION, WORKSPACE_HIGH, WORKSPACE_LOW
from oc_residual_gym.errors import RobotStopped, Stop, StopReason
from oc_residual_gym.real.arm_state import ArmSettings, ArmState
from oc_residual_gym.real.cell import Cell
from oc_residual_gym.real.homing import homing_limit
from oc_residual_gym.real.parent import ALIVE_PERIOD
from oc_residual_gym.real.target_check import REHEARSED_STATE_LIMIT, STATE_LIMIT
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS, JOINT_LOWER, JOINT_UPPER
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.states import CONTROL_FREQUENCY, Array
from oc_residual_gym.worlds.impedance import (
    POSTURE_DAMPING,
    POSTURE_STIFFNESS,
    ROTATIONAL_STIFFNESS,
    TRANSLATIONAL_STIFFNESS,
    damping_of,
)

POSITION_CLIP, ROTATION_CLIP = 0.04, 0.25
"""Metres and radians per axis: largest error that the impedance acts on (32 N, 12.5 Nm). No shorter than the leash."""
JOINT_MARGIN = 0.1
"""Radians before the joint limits at which franky begins to push back."""
START_LIMIT, ANSWER_LIMIT = 30.0, 3.0
"""Seconds to wait for the arm process: while it connects, and for any other answer (a lost link blocks it for 1 s)."""
HINT = "is its address right, the robot unlocked, and FCI activated in Desk?"
_PROGRAM = "from oc_residual_gym.real.arm_process import main; main()"


class Arm(Protocol):
    """An arm that tracks targets."""

    def home(self, should_stop: Callable[[], bool] | None = None) -> ArmState:
        """Raise the TCP if it is low, then move to the home posture.

        Args:
            should_stop: called about every 0.1 s on the way; true if the operator wants the arm to stop.

        Raises:
            RobotStopped: the arm cannot get home, or was stopped.
        """

    def send(self, target: Array, poses_at: float) -> None:
        """Approach ``target`` (8,) over the next control step.

        Args:
            target: TCP pose in the base frame, and opening.
            poses_at: time of the newest object pose, in seconds of ``time.monotonic()``.
        """

    def state(self) -> ArmState:
        """The present state of the arm."""

    def stop(self, reason: StopReason, detail: str) -> ArmState:
        """Stop the arm; only :meth:`recover` lets it move again."""

    def rest(self) -> ArmState:
        """Come to rest between episodes. This is not a fault."""

    def resume(self) -> ArmState:
        """Come to rest, and clear a stop whose only reason was missing targets. Raises ``RobotStopped`` otherwise."""

    def recover(self) -> ArmState:
        """Clear the fault, at the operator's request. Raises ``RobotStopped`` if it persists."""

    def close(self) -> None:
        """Stop and disconnect."""


def speed_fraction(speed_cap: float) -> float:
    """Factor on the rate limit of targets, 0 to 1, for a speed cap in m/s."""
    return min(speed_cap / (RATE_POSITION * CONTROL_FREQUENCY), 1.0)


def arm_settings(cell: Cell) -> ArmSettings:
    """Settings of the arm process: the simulation's controller gains, and the cell's limits."""
    robot, fraction = cell.robot, speed_fraction(cell.robot.speed_cap)
    damping = [damping_of(TRANSLATIONAL_STIFFNESS)] * 3 + [damping_of(ROTATIONAL_STIFFNESS)] * 3
    return ArmSettings(
        host=robot.host,
        realtime=robot.realtime,
        set_tcp=robot.set_tcp,
        speed_cap=robot.speed_cap,
        control_period=1.0 / CONTROL_FREQUENCY,
        state_limit=REHEARSED_STATE_LIMIT if robot.is_rehearsed else STATE_LIMIT,
        target_limit=robot.target_limit,
        pose_limit=cell.poses.silence_limit,
        rate_position=fraction * RATE_POSITION,
        rate_rotation=fraction * RATE_ROTATION,
        workspace_low=WORKSPACE_LOW,
        workspace_high=WORKSPACE_HIGH,
        home=HOME_JOINT_POSITIONS,
        joint_lower=JOINT_LOWER + JOINT_MARGIN,
        joint_upper=JOINT_UPPER - JOINT_MARGIN,
        translational_stiffness=TRANSLATIONAL_STIFFNESS,
        rotational_stiffness=ROTATIONAL_STIFFNESS,
        damping=np.array(damping),
        posture_stiffness=POSTURE_STIFFNESS,
        posture_damping=POSTURE_DAMPING,
        position_clip=POSITION_CLIP,
        rotation_clip=ROTATION_CLIP,
        torque_thresholds=tuple(robot.reflex.torques.tolist()),
        force_thresholds=tuple(robot.reflex.wrench.tolist()),
    )


class FR3Arm:
    """A real (or network-simulated) FR3, driven by a separate process that stops the arm if this one freezes or ends.

    Args:
        cell: addresses and limits.

    Raises:
        RobotStopped: there is no connection, or the robot refuses the settings.
    """

    def __init__(self, cell: Cell):
        settings, (ours, theirs) = arm_settings(cell), socket.socketpair()
        # In its own session, so that Ctrl+C and a closed terminal reach only this process. Not multiprocessing, which
        # would run the main script again.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._connection = Connection(ours.detach())
        self._serial = 0
        self._speed_cap = cell.robot.speed_cap
        try:
            self._connection.send(settings)
            failed = self._receive(START_LIMIT)
            if failed is not None:
                raise RobotStopped(*failed)
        except RobotStopped as stopped:
            self.close()
            detail = f"cannot use the robot at {cell.robot.host}: {stopped.detail}; {HINT}"
            raise RobotStopped(stopped.reason, detail) from stopped
        except BaseException:
            self.close()
            raise

    def home(self, should_stop: Callable[[], bool] | None = None) -> ArmState:
        def go_on() -> None:
            if should_stop is not None and should_stop():
                self._send("stop", StopReason.OPERATOR_STOP, "on the way to the home posture")
            else:
                self._send("alive")

        return self._checked(self._ask("home", limit=homing_limit(self._speed_cap), meanwhile=go_on))

    def send(self, target: Array, poses_at: float) -> None:
        self._send("target", np.array(target, np.float64), poses_at)

    def state(self) -> ArmState:
        return self._ask("state")

    def stop(self, reason: StopReason, detail: str) -> ArmState:
        return self._ask("stop", reason, detail)

    def rest(self) -> ArmState:
        return self._ask("rest")

    def resume(self) -> ArmState:
        return self._checked(self._ask("resume"))

    def recover(self) -> ArmState:
        return self._checked(self._ask("recover", limit=START_LIMIT))

    def close(self) -> None:
        try:
            self._connection.send((0, "close"))
            self._process.wait(5.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._connection.close()

    def _checked(self, state: ArmState) -> ArmState:
        if state.stop is not None:
            raise RobotStopped(state.stop.reason, state.stop.detail)
        return state

    def _ask(self, *message: Any, limit: float = ANSWER_LIMIT, meanwhile: Callable[[], None] | None = None) -> ArmState:
        self._serial += 1
        self._send(*message)
        answer = self._receive(limit, meanwhile)
        assert isinstance(answer, ArmState)
        return answer

    def _send(self, *message: Any) -> None:
        try:
            self._connection.send((self._serial, *message))
        except OSError as error:
            raise self._gone() from error

    def _receive(self, limit: float, meanwhile: Callable[[], None] | None = None) -> Any:
        """The answer to the last message; late answers to earlier messages are skipped."""
        deadline = time.monotonic() + limit
        try:
            while (left := deadline - time.monotonic()) > 0.0:
                if self._connection.poll(min(left, ALIVE_PERIOD)):
                    serial, answer = self._connection.recv()
                    if serial == self._serial:
                        return answer
                elif meanwhile is not None:
                    meanwhile()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        raise RobotStopped(StopReason.LINK_LOST, f"the arm's process did not answer within {limit:.0f} s")

    def _gone(self) -> RobotStopped:
        code = self._process.poll()
        return RobotStopped(StopReason.LINK_LOST, f"the arm's process ended (exit status {code}); its output is above")


class DryArm:
    """Stands in for the arm in a dry run: prints each target, and reports its pose as the arm's own."""

    def __init__(self) -> None:
        self._stop: Stop | None = None
        self._pose = forward_kinematics(HOME_JOINT_POSITIONS)

    def home(self, should_stop: Callable[[], bool] | None = None) -> ArmState:
        print("dry run: the arm would move to its home posture")
        self._pose = forward_kinematics(HOME_JOINT_POSITIONS)
        return self.state()

    def send(self, target: Array, poses_at: float) -> None:
        position, rotation = np.round(1e3 * target[:3], 1), np.round(target[3:7], 3)
        hand = "closed" if target[7] < 0.5 else "open"
        print(f"dry run: target {position.tolist()} mm, {rotation.tolist()} xyzw, hand {hand}")
        self._pose = target[:7].copy()

    def state(self) -> ArmState:
        return ArmState(
            stamp=0.0,
            joint_positions=HOME_JOINT_POSITIONS.copy(),
            joint_velocities=np.zeros(7),
            tcp_pose=self._pose.copy(),
            wrench=np.zeros(6),
            reference=self._pose.copy(),
            stiffness_frame_offset=0.0,
            mass=0.0,
            success_rate=1.0,
            stop=self._stop,
        )

    def stop(self, reason: StopReason, detail: str) -> ArmState:
        self._stop = self._stop or Stop(reason, detail, 0.0, 0.0)
        return self.state()

    def rest(self) -> ArmState:
        return self.state()

    def resume(self) -> ArmState:
        return self.state()

    def recover(self) -> ArmState:
        self._stop = None
        return self.state()

    def close(self) -> None:
        pass
