"""Where jobs run: processes on this machine, or a Ray cluster. The results are the same."""

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
"""Times that a job is begun before it is given up because its worker was lost."""


@dataclass
class _Call:
    index: int
    job: Any
    attempts: int = 0


class Engine(ABC):
    """Runs jobs at several places at once. A context: what it has started ends with it.

    A worker that is lost loses nothing: its job is begun again elsewhere. So a job must be a function that may be run
    twice, that depends on its argument alone, and that can be imported where the workers are.
    """

    workers: int
    """Jobs that run at a time, at most."""
    threads: int
    """Threads that a job may use."""

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Generator[tuple[int, Result], None, None]:
        """Run ``function`` on each of ``jobs``, which are taken only when there is a place for them.

        Args:
            function: at the top level of a module.
            jobs: picklable; ``str`` of one is what messages call it.

        Returns:
            The number of a job and its result, as jobs end, in any order. The first exception is raised. Then, or when
            this is closed early, the other jobs are ended.

        Raises:
            EngineError: a job lost its worker ``ATTEMPTS`` times in a row.
            Exception: what a job raised; with the worker's traceback as its note where it is no ``SettingsError``.
        """
        with closing(self.outcomes(function, jobs)) as outcomes:
            for index, outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome
                yield index, outcome

    def outcomes(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Generator[tuple[int, Result | Exception], None, None]:
        """The same, but exceptions stand where results do, and end no other job."""
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
        """Give a job to a worker that has none. Returns what :meth:`wait` and :meth:`cancel` know it by."""

    @abstractmethod
    def wait(self, tasks: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Wait until some of ``tasks`` have ended. Returns these, each with its result or the exception that it raised;
        ``WorkerLost`` where its worker was lost."""

    @abstractmethod
    def cancel(self, tasks: Sequence[Any]) -> None:
        """End ``tasks``, whatever they are doing."""

    @abstractmethod
    def close(self) -> None:
        """End what this has started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attempt(function: Callable[[Job], Result], job: Job) -> Result | Exception:
    """Result of a job, or the exception that it raised, with this process's traceback as its note."""
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
