"""``rehearse``: runs the complete pipeline of a real trial, including the robot's client, on a simulated cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import matplotlib.pyplot as plt
import numpy as np

from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.evaluation.provenance import machine, versions
from oc_residual_gym.evaluation.report import save_figure
from oc_residual_gym.files import Record, json_bytes
from oc_residual_gym.hdf5 import opened, read
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.judge import SceneJudge
from oc_residual_gym.real.keeping import keep
from oc_residual_gym.real.operator import ScriptedOperator
from oc_residual_gym.real.rig import Rig
from oc_residual_gym.real.run import TRIALS, run_trials
from oc_residual_gym.real.session import make_env, open_cell
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import read_trials
from oc_residual_gym.states import CONTROL_FREQUENCY
from oc_residual_gym.tasks import resolve_task

FILE, FIGURE = "rehearsal.json", "rehearsal.png"


@dataclass(frozen=True)
class Rehearsal:
    """What to rehearse."""

    task: str
    base: str = "bc"
    residual: str = "trained"
    full_scene: bool = True
    """Whether to simulate the objects; otherwise the arm is alone, and only their initial poses are published."""
    steps: int | None = None
    """Control steps per trial; ``None`` for the task's limit."""
    starts: int = 1
    """Number of start poses; each gives one trial of the base policy alone and one with the residual."""
    split: str = "val"
    speed_cap: float = 0.2
    """Maximum speed in m/s. The default is the policies' own limit, so that the arm moves as in simulation."""


def rehearse(settings: Rehearsal, out: Path) -> Record:
    """Run the trials on the rig; write summary and plot into ``out``, and return the summary.

    Raises:
        SettingsError: a name does not exist, or ``out`` holds another rehearsal.
        RigError: the rig cannot be installed or started.
        RobotStopped: the simulated robot refuses the settings.
    """
    task = resolve_task(settings.task)
    start = start_of(task, settings.split, 0)
    with Rig(task, start, settings.full_scene) as rig:
        cell = rig_cell(rig, settings.speed_cap)
        trials = TrialSettings(
            settings.task, cell, settings.base, settings.residual, settings.split, settings.starts, rehearsal=True
        )
        judge = SceneJudge(task, start, rig.truth_address) if settings.full_scene else None
        operator = ScriptedOperator(succeeded=judge or (lambda: None))
        try:
            with open_cell(cell, settings.task, operator.verdict) as world:
                env = PlacedObjects(make_env(world, trials.base_policy, settings.split, settings.steps), rig, judge)
                run_trials(trials, lambda: env, operator, out, pictures=False)
            link = rig.link()
        finally:
            if judge is not None:
                judge.close()
    paths = [trial["path"] for trial in read_trials(out / TRIALS)]
    summary = {
        "task": settings.task,
        "full_scene": settings.full_scene,
        "trials": [measure(path) for path in paths],
        "link": link,
        "machine": machine(),
        "versions": versions(),
    }
    keep(out / FILE, json_bytes(summary))
    _plot(summary, paths, out / FIGURE)
    return summary


def rig_cell(rig: Rig, speed_cap: float) -> Cell:
    """Describe the rig as a cell."""
    robot = Robot(host=rig.host, realtime=False, set_tcp=True, speed_cap=speed_cap)
    return Cell("rehearsal", robot, Poses(source=rig.poses_address), operator="script")


class PlacedObjects(gym.Wrapper):
    """Places the rig's objects at each trial's start, as an operator does once the arm is home."""

    def __init__(self, env: gym.Env, rig: Rig, judge: SceneJudge | None = None):
        super().__init__(env)
        self._rig, self._judge = rig, judge

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        core = self.get_wrapper_attr("core")
        assert seed is not None
        start = start_of(core.task, core.split, seed)
        self._rig.place(start)
        if self._judge is not None:
            self._judge.begin(start)
        return self.env.reset(seed=seed, options=options)


def measure(path: Path) -> Record:
    """Measure a recorded trial: control periods, tracking errors, verdict and stop reason."""
    with opened(path) as file:
        demo = file["demos"][path.stem]
        attributes, began = dict(demo.attrs), "target" in demo
        errors = tracking_errors(demo) if began else np.zeros(0)
        periods = 1e3 * read(demo["trial/period"])[1:] if began else np.zeros(0)
    return {
        "condition": attributes["condition"],
        "steps": len(periods) + began,
        "verdict": attributes["verdict"],
        "stop_reason": attributes["stop_reason"],
        "stop_detail": attributes.get("stop_detail", ""),
        "period_ms": _spread(periods),
        "tracking_error_mm": _spread(1e3 * errors),
    }


def tracking_errors(demo: h5py.Group) -> np.ndarray:
    """(T - 1,) distances in metres from each executed target to the TCP at the end of that control step."""
    return np.asarray(np.linalg.norm(read(demo["target"])[:-1, :3] - read(demo["tcp_pose"])[1:, :3], axis=1))


def _spread(values: np.ndarray) -> Record:
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "p99": None, "max": None}
    measures = {"mean": values.mean(), "p99": np.percentile(values, 99), "max": values.max()}
    return {name: round(float(value), 2) for name, value in measures.items()}


def _plot(summary: Record, paths: list[Path], file: Path) -> None:
    figure, (periods, errors) = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for trial, path in zip(summary["trials"], paths, strict=True):
        with opened(path) as content:
            demo = content["demos"][path.stem]
            if "target" not in demo:
                continue
            label = f"{trial['condition']}: {trial['stop_reason'] or trial['verdict']}"
            seconds = np.arange(1, trial["steps"]) / CONTROL_FREQUENCY
            periods.plot(seconds, 1e3 * read(demo["trial/period"])[1:], label=label)
            errors.plot(seconds, 1e3 * tracking_errors(demo), label=label)
    periods.set(xlabel="seconds", ylabel="control period, ms", title=f"{summary['task']} on the rig")
    errors.set(xlabel="seconds", ylabel="target to TCP, mm")
    errors.legend(frameon=False)
    save_figure(figure, file, dpi=110)
    plt.close(figure)
