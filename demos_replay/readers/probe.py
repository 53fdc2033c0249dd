"""Read a file in a child process first, because libhdf5 can crash or hang on damaged files."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock

from demos_replay.log import LogError
from demos_replay.readers import probe_worker
from oc_residual_gym.hdf5 import MOST_BYTES

PATIENCE = 30.0
"""Seconds allowed for any file. A gigabyte of numbers takes a few."""
SLOWEST = 10e6
"""Bytes per second of a slow disk: large files get more time."""

_lock = Lock()
_workers: dict[int, subprocess.Popen[str]] = {}
"""Id of the process that started it, to the worker: forked processes must not share a worker."""


def try_first(path: Path) -> None:
    """Read the file at ``path`` in a child process.

    Raises:
        LogError: reading it would crash this process, or never end.
    """
    patience = PATIENCE + path.stat().st_size / SLOWEST
    with _lock:
        worker = _worker()
        assert worker.stdin is not None and worker.stdout is not None
        try:
            worker.stdin.write(json.dumps(str(path.absolute())) + "\n")
            worker.stdin.flush()
            ready, _, _ = select.select([worker.stdout], [], [], patience)
            answered = bool(ready) and bool(worker.stdout.readline())
        except BrokenPipeError:
            ready, answered = [worker.stdout], False
        if answered:
            return  # Errors that h5py reports are handled by the reader.
        _stop(_workers.pop(os.getpid()))
    if ready:
        raise LogError(f"{path} is damaged: the HDF5 library crashes on it")
    raise LogError(
        f"{path} took too long to read: the HDF5 library is not done with it after {patience:.0f} s. Either it is "
        "damaged, or this machine or its disk is busy: then try again"
    )


def _worker() -> subprocess.Popen[str]:
    worker = _workers.get(os.getpid())
    if worker is None or worker.poll() is not None:
        # -P keeps this folder off the path: readers have the names of the packages whose files they read.
        command = [sys.executable, "-P", probe_worker.__file__, str(MOST_BYTES)]
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if not _workers:
            atexit.register(stop)
        _workers[os.getpid()] = worker
    return worker


def stop() -> None:
    """End this process's worker; the next file starts another."""
    worker = _workers.pop(os.getpid(), None)
    if worker is not None:
        _stop(worker)


def _stop(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    for stream in (worker.stdin, worker.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()
