"""Faults on the rig, each through the whole pipeline: the arm stops, the reason has a name, the trial is on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

from cells import PATIENCE, CoreWaits, Took, Witness, simulated_cell, trial_files, wait_until

from oc_residual_gym.real.cell import Cell
from oc_residual_gym.real.operator import Command, ScriptedOperator
from oc_residual_gym.real.rig import Rig
from oc_residual_gym.real.run import run_trials
from oc_residual_gym.real.session import make_env, open_cell
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import recover

pytestmark = pytest.mark.rig

FAULT_STEP = 25
"""Control step at which the fault begins: the arm is on its way to the block."""
STOPPED_WITHIN = 2.5
"""Seconds from the beginning of any fault to an arm at rest, at most; a silent pose source has the longest limit."""


@dataclass
class Trial:
    """What came of one."""

    attributes: dict[str, Any]
    rows: int
    rest: Took


@dataclass
class Saboteur(ScriptedOperator):
    """An operator in whose step ``FAULT_STEP`` something goes wrong."""

    sabotage: Callable[[], None]
    steps: int = 0
    began: float = field(default=np.nan)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(show=self.said.append)

    def command(self) -> Command:
        self.steps += 1
        if self.steps == FAULT_STEP:
            self.began = time.monotonic()
            self.sabotage()
        return ""


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[Rig, Cell]]:
    with simulated_cell(object_width=0.04) as rig_and_cell:
        yield rig_and_cell


@pytest.fixture
def cell(opened: tuple[Rig, Cell]) -> Iterator[tuple[Rig, Cell]]:
    yield opened
    rig, _ = opened
    rig.poses("normal")
    rig.delay_link(0.0)
    rig.block_gripper(False)


def run(rig: Rig, cell: Cell, out: Path, sabotage: Callable[[Any], None]) -> Trial:
    """The first trial of a run in which ``sabotage`` is done to the environment's core."""
    settings = TrialSettings("Lift", cell, "bc", "zero", "val", starts=1, rehearsal=True)
    with Witness(rig) as witness, open_cell(cell, "Lift") as world:
        env = make_env(world, "bc", "val")
        operator = Saboteur(lambda: sabotage(env.unwrapped.core))
        operator.wait_for_go = lambda text: not operator.steps  # type: ignore[method-assign]
        run_trials(settings, lambda: env, operator, out, pictures=False)
        assert operator.steps >= FAULT_STEP, "\n".join(["it ended before the fault:", *operator.said])
        rest = witness.rest(operator.began)
    return read(out, rest)


def read(out: Path, rest: Took) -> Trial:
    path = trial_files(out)[0]
    with h5py.File(path, "r") as file:
        demo = file["demos"][path.stem]
        return Trial(dict(demo.attrs), len(demo["time"]), rest)


def check(trial: Trial, *reasons: str) -> None:
    print(f"{trial.attributes['stop_reason']}: {trial.rest}, {trial.rows} rows")
    assert trial.attributes["stop_reason"] in reasons
    assert trial.attributes["verdict"] in ("fail", "invalid")
    assert trial.rows >= FAULT_STEP - 1
    assert trial.rest.own < STOPPED_WITHIN


@pytest.mark.parametrize(
    ("fault", "reason"), [("silent", "poses_silent"), ("jump", "poses_jumped"), ("freeze", "poses_frozen")]
)
def test_bad_poses(cell: tuple[Rig, Cell], tmp_path: Path, fault: Any, reason: str) -> None:
    rig = cell[0]
    check(run(*cell, tmp_path, lambda core: rig.poses(fault)), reason)


def test_server_killed(tmp_path: Path) -> None:
    """Nobody is left to say where the arm is: its program stops, and says so."""
    with simulated_cell(object_width=0.04) as (rig, cell), open_cell(cell, "Lift") as world:
        settings = TrialSettings("Lift", cell, "bc", "zero", "val", starts=1, rehearsal=True)
        env = make_env(world, "bc", "val")
        waits, waited, operator = CoreWaits(os.getpid(), rig), [], Saboteur(rig.kill)
        step = world.step
        world.step = lambda *targets: (waited.append(waits.seconds()), step(*targets))  # type: ignore[method-assign]
        operator.wait_for_go = lambda text: not operator.steps  # type: ignore[method-assign]
        run_trials(settings, lambda: env, operator, tmp_path, pictures=False)
        report = world.stop_report()
        assert report is not None
        trial = read(tmp_path, Took(report.seen_at - operator.began, waited[-1] - waited[FAULT_STEP - 2]))
    check(trial, "link_lost", "link_late")


def test_link_delayed(cell: tuple[Rig, Cell], tmp_path: Path) -> None:
    check(run(*cell, tmp_path, lambda core: cell[0].delay_link(0.3)), "link_late", "link_lost")


def test_base_policy_gives_nan(cell: tuple[Rig, Cell], tmp_path: Path) -> None:
    def spoil(core: Any) -> None:
        predict = core.base_policy.predict
        core.base_policy.predict = lambda view: predict(view) * np.nan

    check(run(*cell, tmp_path, spoil), "base_policy_failed")


def test_target_outside_the_box(cell: tuple[Rig, Cell], tmp_path: Path) -> None:
    """The environment's own limit never lets one through; here it is taken out of the way."""

    def spoil(core: Any) -> None:
        step = core.world.step
        core.world.step = lambda targets, worlds=None: step(targets - [0.5, 0, 0, 0, 0, 0, 0, 0], worlds)

    check(run(*cell, tmp_path, spoil), "target_refused")


def test_gripper_blocked(cell: tuple[Rig, Cell], tmp_path: Path) -> None:
    """The hand is told to close, and never does."""

    def spoil(core: Any) -> None:
        cell[0].hand("block")
        core.base_policy.predict = lambda view: np.repeat(
            np.concatenate([view.tcp_pose, np.zeros((1, 1))], axis=1)[:, None], 16, axis=1
        )
        target = np.concatenate([core.world.robot.tcp_pose, [[0.0]]], axis=1)
        core._runner.start(np.zeros(1, int), target, [0], [np.random.default_rng(0)])

    check(run(*cell, tmp_path, spoil), "gripper_blocked")


@pytest.mark.parametrize("way", ["frozen", "ctrl-c", "killed"])
def test_our_program(cell: tuple[Rig, Cell], tmp_path: Path, way: str) -> None:
    rig, log = cell[0], tmp_path / "log"
    program = [sys.executable, str(Path(__file__).with_name("trial_program.py")), rig.host, rig.poses_address]
    journal = tmp_path / "trials" / "trial_0001.journal"
    with log.open("w") as said:
        process = subprocess.Popen(
            [*program, str(tmp_path)], stdout=said, stderr=said, env=os.environ | {"PYTHONPATH": "."}
        )
    try:
        with Witness(rig, process.pid) as witness:
            wait_until(lambda: journal.exists() and len(journal.read_text().splitlines()) >= FAULT_STEP, process)
            assert witness.speed() > 0.0
            began = time.monotonic()
            process.send_signal({"frozen": signal.SIGSTOP, "ctrl-c": signal.SIGINT, "killed": signal.SIGKILL}[way])
            rest = witness.rest(began)
        if way == "frozen":
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: bool(trial_files(tmp_path)), process)
            process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    if way == "killed":
        assert recover(tmp_path / "trials")
    trial = read(tmp_path, rest)
    expected = {"frozen": "targets_stale", "ctrl-c": "operator_stop", "killed": ""}[way]
    assert trial.attributes["stop_reason"] == expected, log.read_text()[-2000:]
    print(f"{way}: {rest}, {trial.rows} rows")
    assert trial.rows >= FAULT_STEP - 2
    assert rest.own < STOPPED_WITHIN
