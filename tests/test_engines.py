"""Where the work is done changes nothing: neither processes nor a Ray cluster, nor workers that are killed."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_jobs import fail, fail_beside, kill_worker, run_and_be_killed_once, square, wait_for

from oc_residual_gym import cli
from oc_residual_gym.engines import Engine
from oc_residual_gym.engines.cluster import RayEngine
from oc_residual_gym.engines.local import LocalEngine
from oc_residual_gym.errors import EngineError, SettingsError, WorkerError
from oc_residual_gym.evaluation import shards
from oc_residual_gym.evaluation.evaluator import evaluate
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.evaluation.shards import check_identity

SETTINGS = EvaluationSettings(("Lift", "CloseDrawer"), base="expert", episodes=4)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra [cluster]")
PATH_OF_WORKERS = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
"""With which they can import these tests."""


class Murderous(Engine):
    """An engine, one of whose workers is killed in the middle of the work."""

    def __init__(self, engine: Engine, marker: Path):
        self.workers, self.threads, self._engine, self._marker = engine.workers, engine.threads, engine, marker

    def begin(self, function: Callable, job: Any) -> Any:
        return self._engine.begin(run_and_be_killed_once, (self._marker, function, job))

    def wait(self, tasks: Sequence[Any]) -> list[tuple[Any, Any]]:
        return self._engine.wait(tasks)

    def cancel(self, tasks: Sequence[Any]) -> None:
        self._engine.cancel(tasks)

    def close(self) -> None:
        """Nothing was started here."""


def every_job_is_run_once_and_taken_when_there_is_a_place(engine: Engine, folder: Path) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    results = {}
    for index, result in engine.map(square, jobs()):
        assert index not in results
        results[index] = result
        assert len(taken) <= len(results) + 2 * engine.workers
    assert results == {number: number * number for number in range(20)}


def exceptions_come_back_as_they_are(engine: Engine, folder: Path) -> None:
    outcomes = dict(engine.outcomes(fail, range(4)))
    assert outcomes[0] == 0 and outcomes[3] == 3
    assert type(outcomes[1]) is SettingsError and str(outcomes[1]) == "one is not allowed"
    assert type(outcomes[2]) is KeyError and "in fail\n    raise KeyError" in outcomes[2].__notes__[0]


def the_first_exception_ends_the_other_jobs(engine: Engine, folder: Path) -> None:
    file = folder / "pid"
    with pytest.raises(SettingsError, match="one is not allowed"):
        list(engine.map(fail_beside, [("sleep", file), ("fail", file)]))
    wait_for(lambda: not runs(int(file.read_text())))
    assert sorted(engine.map(square, [3])) == [(0, 9)]  # nothing of the failed call is left


def a_job_that_kills_its_workers_is_given_up(engine: Engine, folder: Path) -> None:
    marker = folder / "marker"
    outcomes = dict(engine.outcomes(kill_worker, [marker]))
    assert isinstance(outcomes[0], EngineError)
    assert str(outcomes[0]).startswith(f"{marker} lost its worker 3 times in a row")
    assert "enough memory?" in str(outcomes[0])
    assert marker.read_text() == 3 * "killed\n"


def an_evaluation_loses_nothing_with_a_worker(engine: Engine, folder: Path) -> None:
    marker = folder / "marker"
    evaluate(SETTINGS, folder / "alone")
    evaluate(SETTINGS, folder / "spread", rows=[("Lift", 1)])  # so that the engine goes on from there
    evaluate(SETTINGS, folder / "spread", engine=Murderous(engine, marker))
    assert marker.exists()
    alone, spread = (folder / name / "episodes.jsonl" for name in ("alone", "spread"))
    assert spread.read_bytes() == alone.read_bytes()


CHECKS = (
    every_job_is_run_once_and_taken_when_there_is_a_place,
    exceptions_come_back_as_they_are,
    the_first_exception_ends_the_other_jobs,
    a_job_that_kills_its_workers_is_given_up,
    an_evaluation_loses_nothing_with_a_worker,
)
"""What holds of each engine."""


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_processes(check: Callable[[Engine, Path], None], tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        check(engine, tmp_path)


@needs_ray
def test_a_ray_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test, as each start of Ray takes seconds; the cluster is this test process's alone."""
    monkeypatch.setenv("PYTHONPATH", PATH_OF_WORKERS)
    with RayEngine("local", workers=2) as engine:
        for check in CHECKS:
            folder = tmp_path / check.__name__
            folder.mkdir()
            check(engine, folder)


def test_processes_end_with_their_driver(tmp_path: Path) -> None:
    program = "import sys, pathlib, engine_jobs; from oc_residual_gym.engines.local import LocalEngine; "
    program += "list(LocalEngine(2).map(engine_jobs.sleep, map(pathlib.Path, sys.argv[1:])))"
    files = [tmp_path / "first", tmp_path / "second"]
    environment = {**os.environ, "PYTHONPATH": PATH_OF_WORKERS}
    driver = subprocess.Popen([sys.executable, "-c", program, *map(str, files)], env=environment)
    wait_for(lambda: all(file.exists() for file in files))
    workers = [int(file.read_text()) for file in files]
    assert all(map(runs, workers))
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(map(runs, workers)))


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_that_would_run_something_else_is_refused(tmp_path: Path) -> None:
    identity = SETTINGS.identity
    check_identity(SETTINGS, "Lift", identity)
    other = json.loads(json.dumps(identity))
    other["versions"]["mujoco"] = "0.1"
    other["hashes"]["residual"]["Lift"] = "0" * 64
    with pytest.raises(WorkerError) as told:
        shards._run_shard(shards._Shard(SETTINGS, (("Lift", 0),), 1, 1, other))
    for part in (
        socket.gethostname(),
        "would not run Lift",
        "version of mujoco",
        "0.1 here",
        "residual policy: none there",
    ):
        assert part in str(told.value)

    lost = replace(SETTINGS)
    object.__setattr__(lost, "base", str(tmp_path / "only_here.onnx"))  # as it is where the file is not
    with pytest.raises(WorkerError, match=r"(?s)a worker on .* lacks what.*no policy file .*only_here.onnx"):
        shards._run_shard(shards._Shard(lost, (("Lift", 0),), 1, 1, identity))


def test_shards_are_of_one_task_and_leave_out_nothing() -> None:
    rows = [(task, seed) for task, count in (("Lift", 50), ("Stack", 1), ("StandCup", 24)) for seed in range(count)]
    parts = list(shards._cut(rows, 24))
    assert [row for part in parts for row in part] == rows
    assert [len(part) for part in parts] == [16, 17, 17, 1, 24]
    assert all(len({task for task, _ in part}) == 1 for part in parts)


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "nonsense", "host:port"])
def test_an_address_without_a_cluster_is_named(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address.format(port=free.getsockname()[1])
    arguments = ["evaluate", "--task", "Lift", "--episodes", "1", "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--engine", "ray", "--address", address]) == 2
    message = capsys.readouterr().err
    assert f"no usable Ray cluster at address '{address}'" in message and "ray start --head" in message


@needs_ray
def test_the_default_address_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(EngineError, match=f"no usable Ray cluster at address '{address}'"):
        RayEngine("auto")


def test_without_ray_its_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ["evaluate", "--task", "Lift", "--episodes", "1", "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert cli.main(arguments) == 2
    assert "pip install -c constraints.txt -e '.[cluster]'" in capsys.readouterr().err


def test_an_address_needs_the_engine_it_is_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--task", "Lift", "--out", str(tmp_path), "--address", "local"]) == 2
    assert "give --engine ray with it" in capsys.readouterr().err
