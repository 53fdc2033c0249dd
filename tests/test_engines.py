"""Where the work is done changes nothing: neither processes nor a Ray cluster, nor workers that are killed."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_jobs import fail, kill_worker, run_and_be_killed_once, square

from oc_residual_gym import cli
from oc_residual_gym.engines import Engine, EngineError
from oc_residual_gym.engines.cluster import RayEngine
from oc_residual_gym.engines.local import LocalEngine
from oc_residual_gym.evaluation import SettingsError, evaluator
from oc_residual_gym.evaluation.evaluator import EvaluationSettings, check_identity, evaluate

SETTINGS = EvaluationSettings(("Lift", "CloseDrawer"), base="expert", episodes=4)
WITHOUT_RAY = importlib.util.find_spec("ray") is None
ENGINES = ("local", pytest.param("ray", marks=pytest.mark.skipif(WITHOUT_RAY, reason="needs the extra [cluster]")))


@pytest.fixture(scope="module")
def local() -> Iterator[Engine]:
    with LocalEngine(2) as engine:
        yield engine


@pytest.fixture(scope="module")
def ray() -> Iterator[Engine]:
    """A cluster of this test process alone, whose workers can import these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]))
        with RayEngine("local", workers=2) as engine:
            yield engine


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def in_this_process(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Episodes of ``SETTINGS`` as this process runs them."""
    folder = tmp_path_factory.mktemp("engines")
    evaluate(SETTINGS, folder)
    return (folder / "episodes.jsonl").read_bytes()


class Murderous(Engine):
    """An engine, one of whose workers is killed in the middle of the work."""

    def __init__(self, engine: Engine, marker: Path):
        self.workers, self.threads, self._engine, self._marker = engine.workers, engine.threads, engine, marker

    def outcomes(self, function: Callable, jobs: Iterable) -> Generator[tuple[int, Any], None, None]:
        yield from self._engine.outcomes(run_and_be_killed_once, ((self._marker, function, job) for job in jobs))

    def close(self) -> None:
        """Nothing was started here."""


def test_every_job_is_run_once_and_taken_when_there_is_a_place(engine: Engine) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    results = {}
    for index, result in engine.map(square, jobs()):
        results[index] = result
        assert len(taken) <= len(results) + 2 * engine.workers
    assert results == {number: number * number for number in range(20)}


def test_exceptions_come_back_as_they_are(engine: Engine) -> None:
    outcomes = dict(engine.outcomes(fail, range(4)))
    assert outcomes[0] == 0 and outcomes[3] == 3
    assert type(outcomes[1]) is SettingsError and str(outcomes[1]) == "one is not allowed"
    assert type(outcomes[2]) is KeyError and "in fail\n    raise KeyError" in outcomes[2].__notes__[0]
    with pytest.raises(SettingsError, match="one is not allowed"):
        list(engine.map(fail, [0, 1]))
    assert sorted(engine.map(square, [3])) == [(0, 9)]  # nothing of the failed call is left


def test_a_job_that_kills_its_workers_is_given_up(engine: Engine, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    outcomes = dict(engine.outcomes(kill_worker, [marker]))
    assert isinstance(outcomes[0], EngineError)
    assert str(outcomes[0]).startswith(f"{marker} lost its worker 3 times in a row")
    assert "enough memory?" in str(outcomes[0])
    assert marker.read_text() == 3 * "killed\n"


@pytest.mark.parametrize("killed", [False, True])
def test_rows_are_the_same_wherever_they_run(
    engine: Engine, killed: bool, in_this_process: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluator, "MIN_SHARD", 2)
    marker = tmp_path / "marker"
    evaluate(SETTINGS, tmp_path / "out", engine=Murderous(engine, marker) if killed else engine)
    assert (tmp_path / "out" / "episodes.jsonl").read_bytes() == in_this_process
    assert marker.exists() == killed


def test_a_worker_that_would_run_something_else_is_refused(engine: Engine, tmp_path: Path) -> None:
    identity = SETTINGS.identity
    check_identity(SETTINGS, "Lift", identity)
    other = json.loads(json.dumps(identity))
    other["versions"]["mujoco"] = "0.1"
    other["hashes"]["residual"]["Lift"] = "0" * 64
    with pytest.raises(SettingsError) as told:
        check_identity(SETTINGS, "Lift", other)
    for part in (socket.gethostname(), "would not run Lift", "version of mujoco", "0.1 here", "residual policy: None"):
        assert part in str(told.value)

    lost = replace(SETTINGS)
    object.__setattr__(lost, "base", str(tmp_path / "only_here.onnx"))  # as it is where the file is not
    shard = evaluator._Shard(lost, (("Lift", 0),), 1, 1, identity)
    with pytest.raises(SettingsError, match=r"(?s)a worker on .* lacks what.*no policy file .*only_here.onnx"):
        list(engine.map(evaluator._run_shard, [shard]))


def test_shards_are_of_one_task_and_leave_out_nothing() -> None:
    rows = [(task, seed) for task, count in (("Lift", 50), ("Stack", 1), ("StandCup", 24)) for seed in range(count)]
    shards = list(evaluator._cut(rows, 24))
    assert [row for shard in shards for row in shard] == rows
    assert [len(shard) for shard in shards] == [16, 17, 17, 1, 24]
    assert all(len({task for task, _ in shard}) == 1 for shard in shards)


def test_a_killed_driver_takes_its_workers_with_it_and_can_go_on(in_this_process: bytes, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "oc_residual_gym.cli", "evaluate", "--task", "Lift", "--base", "expert"]
    command += ["--episodes", "80", "--workers", "2", "--out", str(tmp_path)]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    episodes = tmp_path / "episodes.jsonl"
    wait_for(lambda: episodes.exists() and episodes.read_bytes().count(b"\n") > 0)
    children = [int(pid) for pid in Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()]
    driver.kill()
    driver.wait()
    assert len(children) >= 2
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    before = episodes.read_bytes()
    assert 0 < before.count(b"\n") < 80
    evaluate(EvaluationSettings(("Lift",), base="expert", episodes=80), tmp_path)
    after = episodes.read_bytes()
    assert set(before.splitlines()) <= set(after.splitlines())
    assert after.startswith(b"".join(line for line in in_this_process.splitlines(keepends=True) if b'"Lift"' in line))
    assert after.count(b"\n") == 80


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(WITHOUT_RAY, reason="needs the extra [cluster]")
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
    assert f"no Ray cluster to be used at address '{address}'" in message and "ray start --head" in message


@pytest.mark.skipif(WITHOUT_RAY, reason="needs the extra [cluster]")
def test_the_default_address_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(EngineError, match=f"no Ray cluster to be used at address '{address}'"):
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
