"""Jobs for the tests of engines. Workers import this, so that it imports little."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oc_residual_gym.errors import SettingsError


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    if number == 1:
        raise SettingsError("one is not allowed")
    if number == 2:
        raise KeyError("two")
    return number


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def sleep(file: Path) -> None:
    """Says in ``file`` which process it is, and does not end by itself."""
    file.with_suffix(".tmp").write_text(str(os.getpid()))
    file.with_suffix(".tmp").rename(file)
    time.sleep(600.0)


def fail_beside(job: tuple[str, Path]) -> None:
    """Sleeps, or fails once the other one sleeps."""
    part, file = job
    if part == "sleep":
        sleep(file)
    wait_for(file.exists)
    raise SettingsError("one is not allowed")


def kill_worker(marker: Path) -> None:
    with marker.open("a") as file:
        file.write("killed\n")
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_be_killed_once(job: tuple[Path, Callable[[Any], Any], Any]) -> Any:
    """The job's result, but the first process to have one is killed before it can pass it on."""
    marker, function, argument = job
    result = function(argument)
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return result
    os.kill(os.getpid(), signal.SIGKILL)
