"""The arm process's view of its parent, the main process: messages, heartbeat, and whether it still runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

from oc_residual_gym.errors import RobotStopped, StopReason
from oc_residual_gym.real.arm_state import ArmState

ALIVE_PERIOD = 0.1
"""Period of the parent's heartbeat during homing, in seconds."""


class Parent:
    """The parent process at the other end of ``connection``.

    Args:
        connection: receives ``(serial, message, *arguments)`` and sends ``(serial, state)``.
        silence_limit: seconds without a heartbeat after which homing is aborted.
    """

    def __init__(self, connection: Connection, silence_limit: float):
        self._connection, self._process_id = connection, os.getppid()
        self._silence_limit = max(silence_limit, 3.0 * ALIVE_PERIOD)
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._alive_at = time.monotonic()

    @property
    def is_gone(self) -> bool:
        """Whether the parent has ended, so that another process has adopted this one."""
        return os.getppid() != self._process_id

    def next_message(self, seconds: float) -> tuple[Any, ...] | None:
        """The next message, or ``None`` after ``seconds``. Raises ``EOFError`` or ``OSError`` if the parent is gone."""
        if self._waiting:
            return self._waiting.popleft()
        return self._connection.recv() if self._connection.poll(seconds) else None

    def answer(self, serial: int, state: ArmState) -> None:
        """Send ``state``. Ignores a closed connection, which :meth:`next_message` reports."""
        with contextlib.suppress(OSError):
            self._connection.send((serial, state))

    def expect_life(self) -> None:
        """Expect heartbeats from now on."""
        self._alive_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Wait for ``seconds`` during homing.

        Raises:
            RobotStopped: homing must be aborted: the parent sent another message, is silent, or is gone.
        """
        if self._connection.poll(seconds):
            message = self._connection.recv()
            if message[1] != "alive":
                self._waiting.append(message)
                detail = "stopped on the way to the home posture"
                raise RobotStopped(*(message[2:] if message[1] == "stop" else (StopReason.OPERATOR_STOP, detail)))
            self._alive_at = time.monotonic()
        silent = time.monotonic() - self._alive_at
        if silent > self._silence_limit or self.is_gone:
            detail = f"the controlling process was silent for {silent:.2f} s on the way to the home posture"
            raise RobotStopped(StopReason.TARGETS_STALE, detail)
