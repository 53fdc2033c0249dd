"""A simulated cell for the tests of the real robot's side, and somebody who watches its arm."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.real.cell import BOUNDS, Cell
from oc_residual_gym.real.rehearse import rig_cell
from oc_residual_gym.real.rig import Rig, rig_available
from oc_residual_gym.tasks import TASKS

AT_REST = 0.02
"""rad/s of the fastest joint."""
HISTORY = 10_000
"""States of the rig that a witness remembers: 50 s."""
WAITS_PERIOD = 0.05
"""Seconds between looks at how long programs have waited for a core."""
PATIENCE = 120.0
"""Seconds after which a test gives up, however busy the machine is."""


@contextlib.contextmanager
def simulated_cell(task: str = "Lift", **options: Any) -> Iterator[tuple[Rig, Cell]]:
    """A rig with the arm alone, and its cell; the test is skipped where the rig cannot be had.

    Targets may be missing for as long as a cell's file allows: a busy machine delays them.
    """
    if reason := rig_available():
        pytest.skip(f"the rig cannot be installed here: {reason}")
    with Rig(TASKS[task], start_of(TASKS[task], "val", 0), **options) as rig:
        cell = rig_cell(rig, speed_cap=0.2)
        yield rig, replace(cell, robot=replace(cell.robot, target_limit=BOUNDS["target_limit"][1]))


@dataclass(frozen=True)
class Took:
    """How long something took."""

    seconds: float
    """By the rig's clock."""
    waited: float
    """Upper bound of the seconds in which the programs under test were ready to run and waited for a core."""

    @property
    def own(self) -> float:
        """Seconds that the programs under test took themselves."""
        return self.seconds - self.waited


class CoreWaits:
    """How long the main threads of a process and its children, without the rig's, have waited for a core (Linux)."""

    def __init__(self, program: int, rig: Rig):
        assert rig._process is not None
        self._program, self._rig, self._seconds = program, rig._process.pid, dict[int, float]()

    def seconds(self) -> float:
        """The sum so far; 0 where the kernel does not count."""
        self._look(self._program)
        return sum(self._seconds.values())

    def _look(self, process: int) -> None:
        thread = Path(f"/proc/{process}/task/{process}")
        with contextlib.suppress(OSError):  # it has ended
            self._seconds[process] = 1e-9 * int((thread / "schedstat").read_text().split()[1])
            for child in map(int, (thread / "children").read_text().split()):
                if child != self._rig:
                    self._look(child)


class Witness:
    """Follows the joint speeds that the rig publishes, whatever the program under test says.

    Durations are in the rig's own time. On a busy machine it passes more slowly, and so does the arm's motion.

    Args:
        rig: whose arm is watched.
        program: process that drives it, with its children: how long they wait for a core.
    """

    def __init__(self, rig: Rig, program: int | None = None):
        self._waits = CoreWaits(program or os.getpid(), rig)
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=HISTORY)
        self._waited = deque([(time.monotonic(), self._waits.seconds())], maxlen=HISTORY)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(rig.truth_address,), daemon=True)
        self._thread.start()

    def _follow(self, address: str) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(address)
            while not self._over.is_set():
                if time.monotonic() - self._waited[-1][0] > WAITS_PERIOD:
                    with self._lock:
                        self._waited.append((time.monotonic(), self._waits.seconds()))
                if socket.poll(50):
                    truth = json.loads(socket.recv())
                    with self._lock:
                        self._seen.append((truth["stamp"], truth["time"], float(np.abs(truth["dq"]).max())))

    def _snapshot(self) -> np.ndarray:
        """(3, T) stamp, rig's time, and speed."""
        deadline = time.monotonic() + PATIENCE
        while not self._seen:
            assert time.monotonic() < deadline, "the rig says nothing"
            time.sleep(0.02)
        with self._lock:
            return np.array(self._seen).T

    def speed(self) -> float:
        """rad/s of the fastest joint, now."""
        return float(self._snapshot()[2, -1])

    def wait_for_motion(self, since: float = 0.0) -> None:
        """Until the arm has moved for a quarter of a second, all of it after ``since``."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            stamps, _, speeds = self._snapshot()
            if (stamps > since).sum() > 50 and speeds[-50:].min() > AT_REST:
                return
            time.sleep(0.02)
        raise AssertionError("the arm never moved")

    def rest(self, since: float, limit: float = 6.0) -> Took:
        """Wait until the arm has been at rest for half a second.

        Args:
            since: moment of the fault, in seconds of ``time.monotonic()``.
            limit: seconds by the rig's clock in which it must have come to rest.
        """
        deadline, passed = time.monotonic() + PATIENCE, 0.0
        while time.monotonic() < deadline and passed < limit:
            time.sleep(0.05)
            stamps, times, speeds = self._snapshot()
            began = np.interp(since, stamps, times)
            moving = (speeds > AT_REST) & (stamps > since)
            last = stamps[moving][-1] if moving.any() else since
            if times[-1] - np.interp(last, stamps, times) > 0.5:
                return self.between(since, last)
            passed = times[-1] - began
        raise AssertionError(
            f"the arm moves at {self.speed():.3f} rad/s, {passed:.1f} s of the rig's own time after the fault"
        )

    def between(self, since: float, until: float) -> Took:
        """What passed between two moments of ``time.monotonic()``, at most some 50 s ago."""
        deadline = time.monotonic() + PATIENCE
        while (seen := self._snapshot())[0, -1] < until:
            assert time.monotonic() < deadline, "the rig says nothing more"
            time.sleep(0.02)
        stamps, times, _ = seen
        with self._lock:
            self._waited.append((time.monotonic(), self._waits.seconds()))
            moments, waits = np.array(self._waited).T
        began, ended = (np.array([np.interp(t, stamps, times), np.interp(t, moments, waits)]) for t in (since, until))
        return Took(*map(float, ended - began))

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def wait_until(condition: Callable[[], bool], program: subprocess.Popen[Any]) -> None:
    """Wait for something that ``program`` does; fail where it ends, or does not do it."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert program.poll() is None, f"it ended with {program.returncode}"
        assert time.monotonic() < deadline, f"nothing came of it in {PATIENCE:.0f} s"
        time.sleep(0.02)


def trial_files(out: Path) -> list[Path]:
    return sorted((out / "trials").glob("*.hdf5"))
