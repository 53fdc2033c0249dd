"""Engine with worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from oc_residual_gym.engines import Engine, Job, attempt
from oc_residual_gym.errors import WorkerLost


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection
    """One pipe per worker: a shared pipe could stay locked after a worker is killed."""

    def stop(self) -> int | None:
        """Kill the process; return its exit code."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        return self.process.exitcode


class LocalEngine(Engine):
    """Runs jobs in ``workers`` processes that share the cores. They end when this process ends, however it ends."""

    def __init__(self, workers: int):
        self.workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers)
        self._idle: list[_Worker] = []

    def begin(self, function: Callable[[Job], Any], job: Job) -> _Worker:
        message = pickle.dumps((function, job))
        worker = self._idle.pop() if self._idle else _start()
        with suppress(OSError):  # it was killed meanwhile; ``wait`` will notice
            worker.connection.send_bytes(message)
        return worker

    def wait(self, tasks: Sequence[_Worker]) -> list[tuple[_Worker, Any]]:
        workers: dict[Any, _Worker] = {worker.connection: worker for worker in tasks}
        return [(workers[ready], self._outcome(workers[ready])) for ready in wait(list(workers))]

    def _outcome(self, worker: _Worker) -> Any:
        try:
            answer = worker.connection.recv_bytes()
        except (EOFError, OSError):  # it was killed
            return WorkerLost(f"exit code {worker.stop()}")
        self._idle.append(worker)
        return pickle.loads(answer)

    def cancel(self, tasks: Sequence[_Worker]) -> None:
        for worker in tasks:
            worker.stop()

    def close(self) -> None:
        self.cancel(self._idle)
        self._idle.clear()


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that the pipe closes when the process ends
    return _Worker(process, ours)


def _work(connection: Connection) -> None:
    """Run jobs in a worker process until its driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver receives Ctrl+C too, and ends its workers
    threading.Thread(target=_end_with_driver, daemon=True).start()
    try:
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))
    except (EOFError, OSError):
        return


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)


def _answer(message: bytes) -> bytes:
    """Run a pickled call; return its outcome, pickled."""
    outcome = attempt(_run, message)
    try:
        answer = pickle.dumps(outcome)
        pickle.loads(answer)  # some exceptions can be pickled but not unpickled
        return answer
    except Exception as error:
        problem = RuntimeError(f"a worker cannot pass on {outcome!r}: {error!r}")
        for note in getattr(outcome, "__notes__", ()):
            problem.add_note(note)
        return pickle.dumps(problem)


def _run(message: bytes) -> object:
    function, job = pickle.loads(message)
    return function(job)
