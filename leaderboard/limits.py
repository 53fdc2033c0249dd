"""Run untrusted policies: in a child process with limited memory and time, in an empty folder.

An ONNX file is a computation graph, not a program: it is never unpickled, and one that names other files is refused. It
can still use up memory and time, or crash the process.

A child is a module that is run with ``python -m`` and calls :func:`serve`. It reads one request and answers with
messages, one JSON object per line.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from leaderboard import LeaderboardError
from oc_residual_gym.errors import outside_text
from oc_residual_gym.files import Record

MEMORY_GIB = 4.0
"""Memory that a child may allocate after its start; 64 worlds need 0.4 GiB with the base "bc", 0.8 with "vla"."""
LEAST_MEMORY_GIB = 2.0
"""With less, the simulation itself could fail, and the entry would be blamed for it."""
WORLDS = 64
"""Episodes that a child runs in parallel."""
START_SECONDS = 300.0
"""Seconds for imports; the first import of a version compiles the inner loops."""
_CLONE = Path(__file__).parents[1]
_OURS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
"""Signals that no policy raises: a user, or a machine out of memory, has ended the child."""

Emit = Callable[[Record], None]


class PolicyFailure(Exception):
    """A policy broke a limit or a rule; the message says how."""


@dataclass(frozen=True)
class Limits:
    """Limits on time and memory of a child."""

    silence_seconds: float
    """Maximum time from one message to the next."""
    silence_means: str
    """Error message if it was longer."""
    memory_gib: float = MEMORY_GIB


def run_limited(module: str, request: Mapping[str, Any], limits: Limits) -> Generator[Record, None, None]:
    """Run a child and yield its messages as they come. Close the iterator to end the child early.

    Raises:
        PolicyFailure: the child reports one, was silent for too long, or crashed.
        LeaderboardError: the child failed for another reason; the message has its output.
    """
    with tempfile.TemporaryDirectory(prefix="leaderboard-") as folder, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": _import_path()},
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it died at once: its exit says why
                process.stdin.write(json.dumps({"memory_gib": limits.memory_gib, **request}).encode() + b"\n")
                process.stdin.flush()
            for message in _messages(process, limits):
                if "failure" in message:
                    raise PolicyFailure(outside_text(message["failure"]))
                yield message
            if process.wait() != 0:
                raise _death(process.returncode, limits, errors)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()


def _import_path() -> str:
    """PYTHONPATH with which a child in another folder imports the same code as this process."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([str(_CLONE), *(os.path.abspath(path) for path in given if path)])


def _messages(process: subprocess.Popen[bytes], limits: Limits) -> Iterator[Record]:
    """Yield messages until the child closes its end."""
    assert process.stdout is not None
    descriptor, begun, started = process.stdout.fileno(), b"", False
    while True:
        patience = limits.silence_seconds if started else START_SECONDS
        if not select.select([descriptor], [], [], patience)[0]:
            if started:
                raise PolicyFailure(limits.silence_means)
            raise LeaderboardError(f"a process did not start within {patience:.0f} s: is this machine overloaded?")
        content = os.read(descriptor, 65536)
        if not content:
            return
        *lines, begun = (begun + content).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                started = True
            else:
                yield message


def _death(code: int, limits: Limits, errors: IO[bytes]) -> Exception:
    """The exception to raise for a child that ended with ``code``."""
    errors.seek(0)
    said = errors.read().decode("utf-8", "replace").strip().splitlines()[-15:]
    if code < 0 and -code not in _OURS:
        name = signal.Signals(-code).name
        return PolicyFailure(f"its process crashed ({name}); policies have {limits.memory_gib:g} GiB of memory")
    reason = f"was ended by {signal.Signals(-code).name}: is there enough memory?" if code < 0 else f"failed ({code})"
    return LeaderboardError("\n".join([f"a process that runs policies {reason}", *said]))


def serve(work: Callable[[Record, Emit], None]) -> None:
    """Main function of a child: read the request, set the limits, do ``work``, and send its messages."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # keep prints of libraries out of the messages
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit = _data_bytes() + int(request["memory_gib"] * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def emit(message: Record) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    emit({"started": True})
    try:
        work(request, emit)
    except PolicyFailure as failure:
        emit({"failure": str(failure)})
    except MemoryError:
        emit({"failure": f"it needs more than {request['memory_gib']:g} GiB of memory"})


def _data_bytes() -> int:
    """Bytes that libraries have already allocated, which grow with the machine's cores."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
