"""The program that controls the arm, as the arm's process sees it: its messages, its signs of life, its end."""

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
"""Seconds between the parent's signs of life on the way home."""


class Parent:
    """The parent process at the other end of ``connection``.

    Args:
        connection: brings ``(serial, message, *arguments)``, takes ``(serial, state)``.
        silence_limit: seconds without a sign of life after which the way home is given up.
    """

    def __init__(self, connection: Connection, silence_limit: float):
        self._connection, self._process_id = connection, os.getppid()
        self._silence_limit = max(silence_limit, 3.0 * ALIVE_PERIOD)
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._alive_at = time.monotonic()

    @property
    def is_gone(self) -> bool:
        """Whether another process has inherited us."""
        return os.getppid() != self._process_id

    def next_message(self, seconds: float) -> tuple[Any, ...] | None:
        """The next one, for which it waits up to ``seconds``. Raises ``EOFError`` or ``OSError`` if none can come."""
        if self._waiting:
            return self._waiting.popleft()
        return self._connection.recv() if self._connection.poll(seconds) else None

    def answer(self, serial: int, state: ArmState) -> None:
        """Report ``state``; a parent that is gone is noticed where its messages are awaited."""
        with contextlib.suppress(OSError):
            self._connection.send((serial, state))

    def expect_life(self) -> None:
        """From now on it gives signs of life."""
        self._alive_at = time.monotonic()

    def pause(self, seconds: float) -> None:
        """On the way home: wait, and give up where the parent wants something else, says nothing, or is gone.

        Raises:
            RobotStopped: why the way is given up.
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
