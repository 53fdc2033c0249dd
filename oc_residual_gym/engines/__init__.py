"""Engines run jobs in processes on this machine or on a Ray cluster. The results are the same."""

from __future__ import annotations

import socket
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from oc_residual_gym.errors import EngineError, SettingsError, WorkerLost

Job = TypeVar("Job")
Result = TypeVar("Result")

ATTEMPTS = 3
"""How often a job is started before it is given up because its worker was lost each time."""


@dataclass
class _Call:
    index: int
    job: Any
    attempts: int = 0


class Engine(ABC):
    """Runs jobs in parallel. Use it as a context manager: on exit it ends everything that it has started.

    If a worker is lost, its job is started again on another one. A job must therefore be a function that can safely run
    twice, depends only on its argument, and can be imported by the workers.
    """

    workers: int
    """Maximum number of jobs that run at a time."""
    threads: int
    """Threads that each job may use."""

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Generator[tuple[int, Result], None, None]:
        """Run ``function`` on each of ``jobs``; a job is taken from the iterable only when a worker is free.

        Args:
            function: defined at the top level of a module.
            jobs: picklable; messages call a job by its ``str``.

        Yields:
            Index and result of each job when it ends, in any order. After the first exception, or when the generator is
            closed early, the remaining jobs are ended.

        Raises:
            EngineError: a job lost its worker ``ATTEMPTS`` times in a row.
            Exception: the first exception of a job; unless it is a ``SettingsError``, with the worker's traceback as a
                note.
        """
        with closing(self.outcomes(function, jobs)) as outcomes:
            for index, outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome
                yield index, outcome

    def outcomes(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Generator[tuple[int, Result | Exception], None, None]:
        """Like :meth:`map`, but yields a job's exception in place of its result; the other jobs continue."""
        calls = (_Call(index, job) for index, job in enumerate(jobs))
        again: deque[_Call] = deque()
        running: dict[Any, _Call] = {}
        ended: list[tuple[int, Result | Exception]] = []
        try:
            while True:
                while len(running) < self.workers and (call := again.popleft() if again else next(calls, None)):
                    running[self.begin(function, call.job)] = call
                yield from ended
                if not running:
                    return
                ended = []
                for task, outcome in self.wait(list(running)):
                    call = running.pop(task)
                    if not isinstance(outcome, WorkerLost):
                        ended.append((call.index, outcome))
                        continue
                    call.attempts += 1
                    if call.attempts < ATTEMPTS:
                        again.append(call)
                    else:
                        ended.append((call.index, _given_up(call.job, outcome)))
        finally:
            self.cancel(list(running))

    @abstractmethod
    def begin(self, function: Callable[[Job], Any], job: Job) -> Any:
        """Start a job on an idle worker. Returns a handle for :meth:`wait` and :meth:`cancel`."""

    @abstractmethod
    def wait(self, tasks: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Wait until at least one of ``tasks`` (handles of :meth:`begin`) has ended. Returns the ended ones, each with
        its result, the exception that it raised, or ``WorkerLost`` if its worker was lost."""

    @abstractmethod
    def cancel(self, tasks: Sequence[Any]) -> None:
        """End ``tasks`` immediately."""

    @abstractmethod
    def close(self) -> None:
        """End everything that this engine has started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attempt(function: Callable[[Job], Result], job: Job) -> Result | Exception:
    """Run a job; return its result, or the exception that it raised, with this process's traceback as a note."""
    try:
        return function(job)
    except SettingsError as error:
        return error
    except Exception as error:
        error.add_note(f"in a worker on {socket.gethostname()}:\n{traceback.format_exc()}")
        return error


def _given_up(job: object, lost: WorkerLost) -> EngineError:
    text = f"{job} lost its worker {ATTEMPTS} times in a row ({lost}): is there enough memory? Fewer --workers share it"
    return EngineError(text)
