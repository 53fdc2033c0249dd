"""Processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from oc_residual_gym.engines import ATTEMPTS, Engine, Job, Result, attempt, lost


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    """A pipe of its own: one that all share could be left locked by a process that is killed."""

    def stop(self) -> int | None:
        """End the process; returns its exit code."""
        self.connection.close()
        self.process.terminate()
        self.process.join()
        return self.process.exitcode


@dataclass
class _Call:
    index: int
    job: object
    attempts: int = 0


class LocalEngine(Engine):
    """Runs jobs in ``workers`` processes, which share the cores. They end with this process, however it ends."""

    def __init__(self, workers: int):
        self.workers = workers
        self.threads = max(1, (os.cpu_count() or 1) // workers)
        self._idle: list[_Worker] = []

    def outcomes(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Generator[tuple[int, Result | Exception], None, None]:
        calls = (_Call(index, job) for index, job in enumerate(jobs))
        again: deque[_Call] = deque()
        busy: dict[Connection, tuple[_Worker, _Call]] = {}
        ended: list[tuple[int, Result | Exception]] = []
        try:
            while True:
                while len(busy) < self.workers and (call := again.popleft() if again else next(calls, None)):
                    worker = self._hand_over(pickle.dumps((function, call.job)))
                    busy[worker.connection] = worker, call
                yield from ended
                if not busy:
                    return
                ended = []
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    worker, call = busy.pop(ready)
                    try:
                        answer = ready.recv_bytes()
                    except (EOFError, OSError):  # it was killed
                        code = worker.stop()
                        call.attempts += 1
                        if call.attempts < ATTEMPTS:
                            again.append(call)
                        else:
                            ended.append((call.index, lost(call.job, f"exit code {code}")))
                    else:
                        self._idle.append(worker)
                        ended.append((call.index, pickle.loads(answer)))
        finally:
            for worker, _ in busy.values():
                worker.stop()

    def _hand_over(self, message: bytes) -> _Worker:
        """Give a job to a worker that has none, or to a new one."""
        while True:
            worker = self._idle.pop() if self._idle else _start()
            try:
                worker.connection.send_bytes(message)
            except OSError:  # it was killed meanwhile
                worker.stop()
            else:
                return worker

    def close(self) -> None:
        for worker in self._idle:
            worker.stop()
        self._idle.clear()


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends where the process does
    return _Worker(process, ours)


def _work(connection: Connection) -> None:
    """What a worker does: the jobs that it is given, until its driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver gets it too, and ends its workers
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
    """Pickled outcome of a pickled call."""
    outcome = attempt(_run, message)
    try:
        answer = pickle.dumps(outcome)
        if isinstance(outcome, Exception):
            pickle.loads(answer)  # some exceptions can be pickled only
        return answer
    except Exception as error:
        problem = RuntimeError(f"a worker cannot pass on {outcome!r}: {error!r}")
        for note in getattr(outcome, "__notes__", ()):
            problem.add_note(note)
        return pickle.dumps(problem)


def _run(message: bytes) -> object:
    function, job = pickle.loads(message)
    return function(job)
