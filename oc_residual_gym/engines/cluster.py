"""Engine on a Ray cluster: an existing one, or a temporary one on this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from oc_residual_gym.engines import Engine, Job, Result, attempt
from oc_residual_gym.errors import EngineError, WorkerLost

CONNECT_SECONDS = 5.0
"""How long to wait for an address to answer. Ray itself waits two minutes, then ends the program."""
DEFAULT_HEAD = "127.0.0.1:6379"
"""Default address of ``ray start --head``."""
OBJECT_STORE_BYTES = 100 * 2**20
"""Object store of a temporary cluster: results are small, and Ray's default is 30 % of the memory."""


class RayEngine(Engine):
    """Runs each job as a Ray task on one core.

    Args:
        address: "local" starts Ray on this machine; "auto" joins the cluster in ``RAY_ADDRESS``, or else the one whose
            head runs on this machine; "HOST:PORT" joins the cluster with that head; "ray://HOST:PORT" does so as a
            remote client.
        workers: maximum number of tasks at a time; by default the number of cores in the cluster.

    Raises:
        EngineError: Ray is not installed, or there is no cluster at ``address``.
    """

    threads = 1

    def __init__(self, address: str, workers: int | None = None):
        try:
            import ray
        except ImportError as error:
            raise EngineError("engine 'ray' needs Ray: pip install -c constraints.txt -e '.[cluster]'") from error
        self._ray: Any = ray
        started: dict[str, Any] = (
            {"num_cpus": workers, "object_store_memory": OBJECT_STORE_BYTES} if address == "local" else {}
        )
        if address == "auto":
            # Ray's own "auto" reads a file that a killed cluster leaves behind, and then hangs for minutes.
            address = os.environ.get("RAY_ADDRESS") or DEFAULT_HEAD
        _check_reachable(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(
                address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **started
            )
        except (ray.exceptions.RayError, ImportError, OSError, RuntimeError, ValueError) as error:
            raise _no_cluster(address, f"{error}; are its token and its versions yours?") from error
        cores = int(ray.cluster_resources().get("CPU", 0))
        if cores < 1:
            self.close()
            raise _no_cluster(address, "it has no cores")
        self.workers = workers or cores
        # By default, Ray restarts a task that runs out of memory endlessly; here it counts as a lost worker.
        self._run: Any = ray.remote(num_cpus=1, max_retries=0)(_attempt_in)

    def begin(self, function: Callable[[Job], Any], job: Job) -> Any:
        return self._run.remote(os.getcwd(), function, job)

    def wait(self, tasks: Sequence[Any]) -> list[tuple[Any, Any]]:
        ready, _ = self._ray.wait(list(tasks))
        return [(task, self._outcome(task)) for task in ready]

    def _outcome(self, task: Any) -> Any:
        errors = self._ray.exceptions
        lost = (
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.ObjectLostError,
        )
        try:
            return self._ray.get(task)
        except lost as error:
            return WorkerLost(type(error).__name__)
        except errors.RayError as error:  # such as a node that cannot import the function
            return EngineError(f"Ray cannot run a job: {error}")

    def cancel(self, tasks: Sequence[Any]) -> None:
        for task in tasks:
            self._ray.cancel(task, force=True)

    def close(self) -> None:
        self._ray.shutdown()


def _attempt_in(folder: str, function: Callable[[Job], Result], job: Job) -> Result | Exception:
    """Run a job in a Ray worker, in the driver's working folder if it exists there, so that relative paths work."""
    with suppress(OSError):
        os.chdir(folder)
    return attempt(function, job)


def _check_reachable(address: str) -> None:
    if address == "local":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        if not (parts.hostname and parts.port):
            raise ValueError("that is not like HOST:PORT")
        socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> EngineError:
    remedy = "start one with 'ray start --head' and give the address that it prints, or 'local' for one on this machine"
    return EngineError(f"there is no usable Ray cluster at address {address!r} ({reason}): {remedy}")
