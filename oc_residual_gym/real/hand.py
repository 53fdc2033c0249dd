"""The Franka Hand. It opens and closes as the gripper's latch says, in its own threads, because commands block."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Protocol

from oc_residual_gym.errors import RobotStopped, StopReason
from oc_residual_gym.real.arm_state import finite
from oc_residual_gym.robots.constants import FINGER_SPEED, GRASP_FORCE, MAX_OPENING

COMMAND_LIMIT = 2.0 + MAX_OPENING / FINGER_SPEED
"""Time limit of a command in seconds: the full stroke, plus twice the overhead that users report (libfranka #28)."""
WIDTH_PERIOD = 0.02
"""Seconds between readings of the width; a reading takes 15 ms on the simulated rig and 0.1 s on a robot."""
JOIN_LIMIT = 1.0
"""Seconds to wait for a hand that does not answer."""
WIDTH_LIMIT = 1.0
"""Seconds without a reading after which the hand counts as lost."""
LEAST_OPENING = 0.9 * MAX_OPENING
"""Smallest acceptable maximum opening in metres; the hand knows its opening only after homing."""
MOVED_TOLERANCE = 0.004
"""Metres by which an open hand may miss its opening, and that a closing hand must at least have left it."""
MOVED_LIMIT = 0.5
"""Seconds within which the width must show that a command was executed, after the hand said so."""


class Hand(Protocol):
    """A hand that is open or closed."""

    @property
    def width(self) -> float:
        """Metres between the fingers, as last read."""

    @property
    def fault(self) -> tuple[StopReason, str] | None:
        """Reason of a fault, and what was measured; ``None`` without a fault."""

    def command(self, closed: bool) -> None:
        """Close or open; returns immediately. A running command is finished first."""

    def wait(self) -> None:
        """Wait until the last command is done. Raises ``RobotStopped`` if it fails."""

    def recover(self) -> None:
        """Clear a fault, at the operator's request. The next command is executed even if it repeats the last one.

        Raises ``RobotStopped`` if there is still no connection.
        """

    def close(self) -> None:
        """End the threads; the hand keeps its grip."""


class FrankaHand:
    """The Franka Hand of the robot at ``host``.

    Threads are enough, because franky releases the interpreter's lock while a command or a reading blocks.

    Raises:
        RobotStopped: there is no connection, or the hand was never homed.
    """

    def __init__(self, host: str):
        self._host = host
        self._connect()
        # The fingers' state is unknown, so the first command is always executed.
        self._wanted: bool | None = None
        self._done: bool | None = None
        self._fault: tuple[StopReason, str] | None = None
        self._changed = threading.Condition()
        self._closing = False
        # Not daemon threads: at interpreter exit they would be aborted inside franky, and crash the process.
        self._threads = [threading.Thread(target=target) for target in (self._work, self._poll)]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> None:
        import franky

        try:
            self._gripper = franky.Gripper(self._host)
            self._width, opening = self._read_width(), float(finite("the hand's opening was", self._gripper.max_width))
        except RobotStopped:
            raise
        except Exception as error:  # franky's exceptions share no base class
            hint = "is a Franka Hand set up in Desk?"
            raise RobotStopped(StopReason.LINK_LOST, f"no hand at {self._host}: {error}; {hint}") from error
        if opening < LEAST_OPENING:
            detail = f"the hand says that it opens to {1e3 * opening:.0f} mm: home it in Desk, with nothing in it"
            raise RobotStopped(StopReason.GRIPPER_BLOCKED, detail)
        self._opening = min(opening, MAX_OPENING)
        self._read_at = time.monotonic()

    @property
    def width(self) -> float:
        return self._width

    @property
    def fault(self) -> tuple[StopReason, str] | None:
        silent = time.monotonic() - self._read_at
        if self._fault is None and silent > WIDTH_LIMIT:
            return StopReason.LINK_LOST, f"no state from the hand for {silent:.1f} s"
        return self._fault

    def command(self, closed: bool) -> None:
        with self._changed:
            if closed != self._wanted:
                self._wanted = closed
                self._changed.notify_all()

    def wait(self) -> None:
        limit = 2.0 * COMMAND_LIMIT
        with self._changed:
            if not self._changed.wait_for(lambda: self._wanted in (None, self._done) or self.fault, timeout=limit):
                self._fault = StopReason.GRIPPER_BLOCKED, f"the hand was not done within {limit:.1f} s"
        if self.fault is not None:
            raise RobotStopped(*self.fault)

    def recover(self) -> None:
        if time.monotonic() - self._read_at > WIDTH_LIMIT:
            # The hand serves one client at a time: close the old connection before opening a new one.
            self.__dict__.pop("_gripper", None)
            self._connect()
        with self._changed:
            self._fault = self._wanted = self._done = None
            self._read_at = time.monotonic()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(JOIN_LIMIT)
        # Disconnect: the hand serves one client at a time, and the next one would have to wait.
        self.__dict__.pop("_gripper", None)

    @property
    def _ending(self) -> bool:
        return self._closing or not threading.main_thread().is_alive()

    def _work(self) -> None:
        """Execute commands one after another, always the newest."""
        while True:
            with self._changed:
                while not self._ending and (self._wanted in (None, self._done) or self._fault is not None):
                    self._changed.wait(0.2)
                if self._ending:
                    return
                closed = bool(self._wanted)
            fault = self._execute(closed)
            with self._changed:
                self._fault = self._fault or fault  # the width may have been at fault first
                if self._fault is None:
                    self._done = closed
                self._changed.notify_all()
            if fault is not None and fault[0] is StopReason.GRIPPER_BLOCKED:
                self._release()

    def _execute(self, closed: bool) -> tuple[StopReason, str] | None:
        """Execute one command; return its fault. "Done" counts only if the fingers are where it leads."""
        name = "close" if closed else "open"
        try:
            gripper = self._gripper
            if closed:
                # Width 0 with this tolerance grips an object of any width, and succeeds without an object too.
                future = gripper.grasp_async(0.0, FINGER_SPEED, GRASP_FORCE, epsilon_outer=MAX_OPENING)
            else:
                future = gripper.move_async(self._opening, FINGER_SPEED)
            if not future.wait(COMMAND_LIMIT):
                return StopReason.GRIPPER_BLOCKED, f"the hand did not {name} within {COMMAND_LIMIT:.1f} s"
            if not future.get() and not closed:  # a grasp without an object is not a fault
                return StopReason.GRIPPER_BLOCKED, f"the hand did not open to {1e3 * self._opening:.0f} mm"
            deadline = time.monotonic() + MOVED_LIMIT
            while not self._has_moved(closed, width := self._read_width()):
                if time.monotonic() > deadline:
                    where = f"its fingers are {1e3 * width:.0f} mm apart, of {1e3 * self._opening:.0f} mm"
                    hint = "is it blocked, unpowered or not homed?"
                    return StopReason.GRIPPER_BLOCKED, f"the hand says that it did {name}, but {where}: {hint}"
                time.sleep(WIDTH_PERIOD)
        except RobotStopped as stopped:
            return stopped.reason, stopped.detail
        except Exception as error:  # franky's exceptions share no base class
            return StopReason.GRIPPER_BLOCKED, f"the hand could not {name}: {error}"
        return None

    def _has_moved(self, closed: bool, width: float) -> bool:
        """Whether the hand is open, or no longer open. A closing hand may stop at any width, on what it grasps."""
        return (width < self._opening - MOVED_TOLERANCE) is closed

    def _read_width(self) -> float:
        """Read the width. Raises ``RobotStopped`` if it is not finite, and franky's exceptions."""
        return float(finite("the hand's width was", self._gripper.width))

    def _release(self) -> None:
        with contextlib.suppress(Exception):  # its fault has been reported already
            self._gripper.stop_async().wait(JOIN_LIMIT)

    def _poll(self) -> None:
        while not self._ending:
            with contextlib.suppress(Exception):  # ``fault`` reports missing readings
                try:
                    self._width = self._read_width()
                except RobotStopped as stopped:
                    with self._changed:
                        self._fault = self._fault or (stopped.reason, stopped.detail)
                        self._changed.notify_all()
                self._read_at = time.monotonic()
            time.sleep(WIDTH_PERIOD)


class DryHand:
    """Stands in for the hand in a dry run: it executes commands instantly."""

    def __init__(self) -> None:
        self.width = MAX_OPENING
        self.fault: tuple[StopReason, str] | None = None

    def command(self, closed: bool) -> None:
        self.width = 0.0 if closed else MAX_OPENING

    def wait(self) -> None:
        pass

    def recover(self) -> None:
        pass

    def close(self) -> None:
        pass
