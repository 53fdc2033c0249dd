"""FR3World: one real FR3 cell, with the same interface as a simulated world."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import BasePolicyError, RobotStopped, Stop, StopReason
from oc_residual_gym.real.arm import Arm, DryArm, FR3Arm, speed_fraction
from oc_residual_gym.real.arm_state import ArmState
from oc_residual_gym.real.cell import Cell
from oc_residual_gym.real.hand import DryHand, FrankaHand, Hand
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.states import CONTROL_FREQUENCY, Array, BoolArray, IntArray, RobotState
from oc_residual_gym.tasks import resolve_task
from oc_residual_gym.tasks.base import InitialState, Task
from oc_residual_gym.worlds.base import CellTracker

PERIOD = 1.0 / CONTROL_FREQUENCY
FRAME_POSITION, FRAME_ROTATION = 0.001, np.radians(0.5)
"""Allowed difference between the robot's TCP and ours, in metres and radians; more means a wrong setting."""
HELD_WIDTH = 0.005
"""Distance between the fingers, in metres, above which the hand may hold something."""
HOME_TOLERANCE = 0.02
"""Allowed error per joint after homing, in radians."""
TARE_READINGS, TARE_PERIOD = 10, 0.02
"""Number of wrench readings at the home posture that are averaged for its zero, and seconds between them."""


class FR3World:
    """One real cell as a world (N = 1).

    Every fault stops the arm and ends the episode with a :class:`StopReason`. After that, ``reset`` raises until
    :meth:`recover` is called, at the operator's request. A pause between episodes is not a fault: without targets the
    arm comes to rest, and ``reset`` continues. If ``step`` is called after such a stop, it happened within an episode,
    and is a fault.

    Args:
        cell: addresses, limits, calibration.
        task: the task or its name.
        tracker: where the objects' poses come from.
        verdict: called once per step; the operator's verdict so far: ``True`` for success, ``False`` for failure.
        dry_run: do not connect to a robot; print the targets instead.
        cameras: for base policies that need images: camera name to a function that returns the newest image, (height,
            width, 3) uint8, framed as in the simulation.
        should_stop: called about every 0.1 s during homing; true if the operator wants the arm to stop.

    Raises:
        RobotStopped: there is no connection, or the robot's TCP differs from ours.

    Attributes:
        robot: state after the last step.
        wrench_bias: (6,) the robot's wrench estimate at the home posture, in free space, at the start of the episode.
            It is subtracted from all later readings. On a real FR3 it is some newtons, and differs from day to day.
        periods: measured duration of each control step of the episode, in seconds.
        speed: share of the rate limit that targets may use, from the cell's speed cap; the arm refuses faster ones.
    """

    num_worlds = 1

    def __init__(
        self,
        cell: Cell,
        task: str | Task,
        tracker: CellTracker,
        verdict: Callable[[], bool | None] | None = None,
        dry_run: bool = False,
        cameras: Mapping[str, Callable[[], NDArray[np.uint8]]] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self.cell, self.tracker = cell, tracker
        self.task = resolve_task(task)
        self._verdict, self.cameras, self._should_stop = verdict, dict(cameras or {}), should_stop
        self.speed = speed_fraction(cell.robot.speed_cap)
        self.stopped: BoolArray = np.zeros(1, bool)
        self.peak_contact_force = np.zeros(1)
        self.wrench_bias = np.zeros(6)
        self.periods: list[float] = []
        self._stop: Stop | None = None
        self._stepped_at = self._deadline = -np.inf
        self._dry_run = dry_run
        self._arm: Arm = DryArm() if dry_run else FR3Arm(cell)
        try:
            state = self._arm.state()
            check_frames(state)
            self._hand: Hand = DryHand() if dry_run else FrankaHand(cell.robot.host)
        except BaseException:
            self._arm.close()
            raise
        self.robot = RobotState(
            joint_positions=np.zeros((1, 7)),
            joint_velocities=np.zeros((1, 7)),
            tcp_pose=np.zeros((1, 7)),
            tcp_velocity=np.zeros((1, 6)),
            gripper_width=np.zeros(1),
            wrench=np.zeros((1, 6)),
        )
        self._take(state)

    def reset(
        self, worlds: IntArray | None = None, starts: Sequence[InitialState] | None = None, physics: Any = None
    ) -> None:
        """Release what the hand holds, move the arm home, and open or close the hand as the task requires.

        Ctrl+C stops the arm, then raises ``KeyboardInterrupt``.

        Raises:
            RobotStopped: the arm is stopped and :meth:`recover` was not called, or it cannot get home.
        """
        if self._stop is not None:
            raise RobotStopped(self._stop.reason, f"{self._stop.detail}; recover() first, once the cell is clear")
        try:
            self._go_home(closed=starts is not None and len(starts) > 0 and starts[0].gripper_closed)
            self._take(self._arm.state())
        except RobotStopped as stopped:
            self.stop(0, stopped.reason, stopped.detail)
            raise
        except KeyboardInterrupt:
            self.stop(0, StopReason.OPERATOR_STOP, "Ctrl+C on the way to the home posture")
            raise
        self.periods.clear()
        self._stepped_at = self._deadline = -np.inf

    def _go_home(self, closed: bool) -> None:
        self._arm.resume()
        if self._hand.width > HELD_WIDTH:  # a hand closed on nothing opens at home, where there is room
            self._hand.command(False)
            self._hand.wait()
        state = self._arm.home(self._should_stop)
        off = float(np.abs(state.joint_positions - HOME_JOINT_POSITIONS).max())
        if off > HOME_TOLERANCE:
            raise RobotStopped(StopReason.ROBOT_REFLEX, f"the arm is {off:.3f} rad from its home posture")
        check_frames(state)
        if not self._dry_run:
            self.wrench_bias = np.mean([self._wrench_after(TARE_PERIOD) for _ in range(TARE_READINGS)], axis=0)
        self._hand.command(closed)
        self._hand.wait()

    def _wrench_after(self, seconds: float) -> Array:
        time.sleep(seconds)
        return self._arm.state().wrench

    def step(self, targets: Array, worlds: IntArray | None = None) -> None:
        """Send ``targets`` (1, 8), wait until the control step is over, and read the state.

        A fault sets ``stopped``. Ctrl+C stops the arm, then raises ``KeyboardInterrupt``.
        """
        if self.stopped[0]:
            return
        try:
            self._step(targets[0])
        except RobotStopped as stopped:
            self.stop(0, stopped.reason, stopped.detail)
        except KeyboardInterrupt:
            self.stop(0, StopReason.OPERATOR_STOP, "Ctrl+C")
            raise

    def _step(self, target: Array) -> None:
        fault = self._hand.fault or (self.tracker.fault())
        if fault is not None:
            raise RobotStopped(*fault)
        now = time.monotonic()
        self._arm.send(target, self.tracker.newest_stamp)
        self._hand.command(bool(target[7] < 0.5))
        self._deadline += PERIOD
        if self._deadline < now + 0.5 * PERIOD:  # the first step, or the policy took too long
            self._deadline = now + PERIOD
        time.sleep(max(0.0, self._deadline - time.monotonic()))
        state, now = self._arm.state(), time.monotonic()
        if np.isfinite(self._stepped_at):
            self.periods.append(now - self._stepped_at)
        self._stepped_at = now
        self._take(state)
        if state.stop is not None:
            raise RobotStopped(state.stop.reason, state.stop.detail)

    def _take(self, state: ArmState) -> None:
        robot = self.robot
        robot.joint_positions[0], robot.joint_velocities[0] = state.joint_positions, state.joint_velocities
        robot.tcp_pose[0], robot.wrench[0] = state.tcp_pose, state.wrench - self.wrench_bias
        robot.tcp_velocity[0] = tcp_velocity(state.joint_positions, state.joint_velocities)
        robot.gripper_width[0] = self._hand.width
        self.peak_contact_force[0] = np.linalg.norm(robot.wrench[0, :3])

    def stop(self, world: int, reason: str, detail: str = "") -> None:
        """Stop the arm and end the episode; the first reason is kept."""
        if self._stop is not None:
            return
        now, reason = time.monotonic(), StopReason(reason)
        self._stop = Stop(reason, detail, now)
        self.stopped[0] = True
        try:
            self._stop = self._arm.stop(reason, detail).stop or self._stop
        except RobotStopped as gone:
            self._stop = Stop(gone.reason, f"{detail}; {gone.detail}".lstrip("; "), now)

    def stop_reason(self, world: int) -> str:
        """Why the world cannot continue, or ""."""
        return "" if self._stop is None else str(self._stop.reason)

    def arm_state(self) -> ArmState:
        """The arm's present state. Raises ``RobotStopped`` if its process is gone."""
        return self._arm.state()

    def stop_report(self) -> Stop | None:
        """Why and when the arm stopped; ``None`` if it did not.

        Waits until the arm is at rest, or its process, which sets the time limits, no longer waits for that.
        """
        while self._stop is not None and self._stop.stopped_at is None:
            try:
                state = self._arm.state()
            except RobotStopped:
                break
            self._stop = state.stop or self._stop
            if not state.stopping:
                break
            time.sleep(0.02)
        return self._stop

    def recover(self) -> None:
        """Clear the fault. Call this only when the operator confirms that the cell is clear and the arm may move.

        Raises:
            RobotStopped: the fault persists.
        """
        self._arm.recover()
        self._hand.recover()
        self._stop = None
        self.stopped[0] = False

    def rest(self) -> None:
        """Bring the arm to rest at the end of an episode, instead of waiting until targets are overdue.

        A fault sets ``stopped``; missing targets since the end of the episode are not a fault.
        """
        if self._stop is not None:
            return
        try:
            stop = self._arm.rest().stop
            if stop is not None and stop.reason is not StopReason.TARGETS_STALE:
                raise RobotStopped(stop.reason, stop.detail)
        except RobotStopped as stopped:
            self.stop(0, stopped.reason, stopped.detail)

    def verdict(self, world: int) -> bool | None:
        """The operator's verdict so far: ``True`` for success, ``False`` for failure, else ``None``."""
        return None if self._verdict is None else self._verdict()

    def image(self, world: int, camera: str) -> NDArray[np.uint8]:
        """Newest image (height, width, 3) of a policy camera. Raises ``BasePolicyError`` if there is no such camera."""
        if camera not in self.cameras:
            known = ", ".join(self.cameras) or "none"
            raise BasePolicyError(f"the base policy wants images of {camera!r}; FR3World was given cameras: {known}")
        return self.cameras[camera]()

    def close(self) -> None:
        """Stop the arm and disconnect."""
        try:
            self._arm.close()
        finally:
            self._hand.close()

    def __enter__(self) -> FR3World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_frames(state: ArmState) -> None:
    """Check the robot's TCP and stiffness frame against ours.

    Raises:
        RobotStopped: the TCP differs, or the stiffness frame is not at the TCP.
    """
    ours, theirs = forward_kinematics(state.joint_positions), state.tcp_pose
    position = float(np.linalg.norm(theirs[:3] - ours[:3]))
    rotation = float((Rotation.from_quat(ours[3:]).inv() * Rotation.from_quat(theirs[3:])).magnitude())
    if position > FRAME_POSITION or rotation > FRAME_ROTATION:
        raise RobotStopped(
            StopReason.ROBOT_SETTINGS,
            f"the robot's TCP is {1e3 * position:.1f} mm and {np.degrees(rotation):.1f} degrees from ours: set the "
            "Franka Hand as end effector in Desk, with its TCP 103.4 mm from the hand, or set_tcp in the cell's file",
        )
    if state.stiffness_frame_offset > FRAME_POSITION:
        raise RobotStopped(
            StopReason.ROBOT_SETTINGS,
            "the robot's stiffness frame is not at its TCP: some program has called setK; restart the robot",
        )


def tcp_velocity(joint_positions: Array, joint_velocities: Array) -> Array:
    """(6,) linear and angular velocity of the TCP in the base frame: its Jacobian times the joint velocities.

    Computed by a central difference along the motion, exact to 1e-8.
    """
    half = 1e-5 * joint_velocities
    behind, ahead = forward_kinematics(np.stack([joint_positions - half, joint_positions + half]))
    turned = (Rotation.from_quat(ahead[3:]) * Rotation.from_quat(behind[3:]).inv()).as_rotvec()
    return np.concatenate([ahead[:3] - behind[:3], turned]) / 2e-5
