"""Where jobs run: processes on this machine, or a Ray cluster. The results are the same."""

from __future__ import annotations

import socket
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar

from oc_residual_gym.evaluation import SettingsError

Job = TypeVar("Job")
Result = TypeVar("Result")

ATTEMPTS = 3
"""Times that a job is begun before it is given up because its worker was lost."""


class EngineError(SettingsError):
    """The engine is not there, or a job keeps losing its worker; the message says what to do."""


class Engine(ABC):
    """Runs jobs at several places at once. A context: what it has started ends with it.

    A worker that is lost loses nothing: its job is begun again elsewhere. So a job must be a function that may be run
    twice, that depends on its argument alone, and that can be imported where the workers are.
    """

    workers: int
    """Jobs that run at a time, at most."""
    threads: int
    """Threads that a job may use."""

    @abstractmethod
    def outcomes(
        self, function: Callable[[Job], Result], jobs: Iterable[Job]
    ) -> Generator[tuple[int, Result | Exception], None, None]:
        """Run ``function`` on each of ``jobs``, which are taken only when there is a place for them.

        Args:
            function: at the top level of a module.
            jobs: picklable; ``str`` of one is what messages call it.

        Returns:
            As jobs end, in any order: the number of the job, and its result or the exception that it raised. An
            exception that is no ``SettingsError`` has the worker's traceback as its note. An ``EngineError`` stands for
            a job whose worker was lost ``ATTEMPTS`` times in a row.
        """

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Generator[tuple[int, Result], None, None]:
        """The same, but the first exception is raised and ends the other jobs."""
        with closing(self.outcomes(function, jobs)) as outcomes:
            for index, outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome
                yield index, outcome

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


def lost(job: object, how: str) -> EngineError:
    """What is said of a job that has lost its worker too often."""
    return EngineError(f"{job} lost its worker {ATTEMPTS} times in a row ({how}): is there enough memory?")
