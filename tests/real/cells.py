"""A simulated cell for the tests of the real robot's side, and somebody who watches its arm."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.real.cell import Cell
from oc_residual_gym.real.rehearse import rig_cell
from oc_residual_gym.real.rig import Rig, rig_available
from oc_residual_gym.tasks import TASKS

AT_REST = 0.02
"""rad/s of the fastest joint."""


@contextlib.contextmanager
def simulated_cell(task: str = "Lift", **options: Any) -> Iterator[tuple[Rig, Cell]]:
    """A rig with the arm alone, and its cell; the test is skipped where the rig cannot be had."""
    if reason := rig_available():
        pytest.skip(f"the rig cannot be installed here: {reason}")
    with Rig(TASKS[task], start_of(TASKS[task], "val", 0), **options) as rig:
        yield rig, rig_cell(rig, speed_cap=0.2)


class Witness:
    """Follows the joint speeds that the rig publishes, whatever the program under test says."""

    def __init__(self, truth_address: str):
        self._times: list[float] = []
        self._speeds: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(truth_address,), daemon=True)
        self._thread.start()

    def _follow(self, address: str) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(address)
            while not self._over.is_set():
                if socket.poll(50):
                    truth = json.loads(socket.recv())
                    self._times.append(truth["stamp"])
                    self._speeds.append(float(np.abs(truth["dq"]).max()))

    def speed(self) -> float:
        """rad/s of the fastest joint, now."""
        return self._speeds[-1] if self._speeds else np.nan

    def wait_for_motion(self, seconds: float = 60.0) -> None:
        """Until the arm has moved for a quarter of a second."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if len(self._speeds) > 50 and min(self._speeds[-50:]) > AT_REST:
                return
            time.sleep(0.02)
        raise AssertionError("the arm never moved")

    def seconds_to_rest(self, since: float, wait: float = 4.0) -> float:
        """From ``since`` to the moment from which the arm stayed at rest for half a second."""
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            time.sleep(0.05)
            times, speeds = np.array(self._times), np.array(self._speeds[: len(self._times)])
            moving = times[: len(speeds)][speeds > AT_REST]
            last = max(since, moving.max() if len(moving) else since)
            if len(times) and times[-1] - last > 0.5:
                return float(last - since)
        raise AssertionError(f"the arm still moves at {self.speed():.2f} rad/s, {wait} s after the fault")

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def trial_files(out: Path) -> list[Path]:
    return sorted((out / "trials").glob("*.hdf5"))
