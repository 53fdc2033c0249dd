"""The Franka Hand: opens and closes on the shared latch's word, from threads of its own, as each command blocks."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Protocol

from oc_residual_gym.real.stops import RobotStopped, StopReason
from oc_residual_gym.robots.constants import FINGER_SPEED, GRASP_FORCE, MAX_OPENING

COMMAND_LIMIT = 2.0 + MAX_OPENING / FINGER_SPEED
"""Seconds for a command: the full stroke, and twice what users report commands to take beyond it (libfranka #28)."""
WIDTH_PERIOD = 0.02
"""Seconds between readings of the width; one takes 15 ms on the network rig and 0.1 s on a robot."""
JOIN_LIMIT = 1.0
"""Seconds that a hand which does not answer is waited for."""
WIDTH_LIMIT = 1.0
"""Seconds without a reading after which the hand counts as lost."""


class Hand(Protocol):
    """A hand that is open or closed."""

    @property
    def width(self) -> float:
        """Metres between the fingers, as last read."""

    @property
    def fault(self) -> tuple[StopReason, str] | None:
        """Why it cannot go on, and what was measured."""

    def command(self, closed: bool) -> None:
        """Close or open; returns at once. A command that is running is finished first."""

    def wait(self) -> None:
        """Until the last command is done. Raises ``RobotStopped`` if it fails."""

    def recover(self) -> None:
        """Forget a fault, on the operator's word, and be open."""

    def close(self) -> None:
        """End the threads; the hand keeps its grip."""


class FrankaHand:
    """The Franka Hand of the robot at ``host``.

    franky lets go of the interpreter's lock while a command or a reading blocks, hence threads are enough.

    Raises:
        RobotStopped: no connection.
    """

    def __init__(self, host: str):
        import franky

        try:
            self._gripper = franky.Gripper(host)
            self._width = float(self._gripper.width)
        except Exception as error:  # franky's exceptions share no base class
            hint = "is a Franka Hand set up in Desk?"
            raise RobotStopped(StopReason.LINK_LOST, f"no hand at {host}: {error}; {hint}") from error
        self._wanted = self._done = self._width < 0.5 * MAX_OPENING
        self._fault: tuple[StopReason, str] | None = None
        self._read_at = time.monotonic()
        self._changed = threading.Condition()
        self._closing = False
        # No daemons: the interpreter's end would abort them, and us, inside franky.
        self._threads = [threading.Thread(target=target) for target in (self._work, self._poll)]
        for thread in self._threads:
            thread.start()

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
        with self._changed:
            self._changed.wait_for(
                lambda: self._done == self._wanted or self.fault is not None, timeout=2.0 * COMMAND_LIMIT
            )
        if self.fault is not None:
            raise RobotStopped(*self.fault)

    def recover(self) -> None:
        with self._changed:
            self._fault, self._wanted, self._done = None, False, True
            self._read_at = time.monotonic()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(JOIN_LIMIT)
        # Disconnects: the hand serves one client at a time, and lets the next one wait.
        self.__dict__.pop("_gripper", None)

    @property
    def _ending(self) -> bool:
        return self._closing or not threading.main_thread().is_alive()

    def _work(self) -> None:
        """Carry out the newest command, one after the other."""
        while True:
            with self._changed:
                while not self._ending and (self._wanted == self._done or self._fault is not None):
                    self._changed.wait(0.2)
                if self._ending:
                    return
                closed = self._wanted
            fault = self._execute(closed)
            with self._changed:
                self._fault = fault
                if fault is None:
                    self._done = closed
                self._changed.notify_all()
            if fault is not None and fault[0] is StopReason.GRIPPER_BLOCKED:
                self._release()

    def _execute(self, closed: bool) -> tuple[StopReason, str] | None:
        name, gripper = "close" if closed else "open", self._gripper
        try:
            if closed:
                # Width 0 with this tolerance grips whatever is there, and is no failure where nothing is.
                future = gripper.grasp_async(0.0, FINGER_SPEED, GRASP_FORCE, epsilon_outer=MAX_OPENING)
            else:
                future = gripper.move_async(MAX_OPENING, FINGER_SPEED)
            if not future.wait(COMMAND_LIMIT):
                return StopReason.GRIPPER_BLOCKED, f"the hand did not {name} within {COMMAND_LIMIT:.1f} s"
            future.get()
        except Exception as error:  # franky's exceptions share no base class
            return StopReason.GRIPPER_BLOCKED, f"the hand could not {name}: {error}"
        return None

    def _release(self) -> None:
        with contextlib.suppress(Exception):  # it is blocked already, which has been said
            self._gripper.stop_async().wait(JOIN_LIMIT)

    def _poll(self) -> None:
        while not self._ending:
            with contextlib.suppress(Exception):  # silence is what counts
                self._width = float(self._gripper.width)
                self._read_at = time.monotonic()
            time.sleep(WIDTH_PERIOD)


class DryHand:
    """No hand: it is as it was told at once."""

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
