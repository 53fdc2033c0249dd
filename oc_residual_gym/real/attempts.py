"""Attempts at trials: a policy drives, the operator judges, and what was measured goes to disk, however it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.evaluation import SettingsError
from oc_residual_gym.evaluation.results import Record, commit, versions
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.base import BasePolicyError
from oc_residual_gym.policies.residual import ResidualPolicy, load_residual
from oc_residual_gym.real.operator import Operator
from oc_residual_gym.real.stops import RobotStopped, StopReason
from oc_residual_gym.real.trials import (
    ARMS,
    INTERRUPTED,
    TrialRecorder,
    Verdict,
    executed,
    measured,
    now,
    read_trials,
    trial_name,
)
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.base import CONTROL_FREQUENCY

if TYPE_CHECKING:
    from oc_residual_gym.real.run import TrialSettings

ATTEMPTS = 3
"""Of an invalid trial in a row; it stays open then, and the next run goes on with it."""


class Session:
    """The trials of one run.

    Raises:
        SettingsError: the environment is not that of ``settings``.
    """

    def __init__(self, settings: TrialSettings, env: gym.Env, operator: Operator, folder: Path):
        self._settings, self._env, self._operator, self._folder = settings, env, operator, folder
        self._core: ResidualWorlds = env.get_wrapper_attr("core")
        self._check_environment()
        self._residuals: dict[str, ResidualPolicy] = {
            arm: load_residual(name, settings.task, settings.base)
            for arm, name in zip(ARMS, ("zero", settings.residual), strict=True)
        }
        self._common: Record = {
            "task": settings.task,
            "instruction": TASKS[settings.task].instruction,
            "rate": CONTROL_FREQUENCY,
            "split": settings.split,
            "table_height": 0.0,
            "pose_source": "tracker",
            "cell": settings.cell.name,
            "supervisor": settings.cell.operator,
            "base": settings.base,
            "versions": json.dumps(versions()),
            "commit": commit() or "",
            **{f"{part}_sha256": value or "" for part, value in settings.hashes.items()},
        }

    def _check_environment(self) -> None:
        core, wanted = self._core, load_base_policy(self._settings.base, TASKS[self._settings.task])
        pairs = {
            "task": (core.task.name, self._settings.task),
            "split": (core.split, self._settings.split),
            "base policy": (core.base_policy.name, wanted.name),
            "base policy's file": (core.base_policy.hash, wanted.hash),
        }
        for what, (there, asked) in pairs.items():
            if there != asked:
                raise SettingsError(f"the environment's {what} is {there!r}, and the trials' is {asked!r}")

    def attempt(self, trial: Mapping[str, Any], arm: str, count: int, out: Path) -> bool:
        """Attempt a trial until it has a verdict, if it has none. ``False``: the operator quits."""
        number = trial["trial"]
        before = [t for t in read_trials(self._folder) if t["trial"] == number]
        if any(t["verdict"] != "invalid" for t in before):
            return True
        for attempt in range(len(before) + 1, len(before) + 1 + ATTEMPTS):
            if not self._wait_for_go(trial, attempt, count, out):
                return False
            verdict, quits = self._run(trial, arm, attempt)
            if quits:
                return False
            if verdict.result != "invalid":
                return True
        self._operator.say(
            f"Trial {number} stays open after {ATTEMPTS} invalid attempts: run this again to try it later"
        )
        return True

    def _wait_for_go(self, trial: Mapping[str, Any], attempt: int, count: int, out: Path) -> bool:
        lines = [f"Trial {trial['trial']} of {count}" + (f", attempt {attempt}" if attempt > 1 else "")]
        lines += [f"  put {line}" for line in trial["place"]]
        if trial["picture"]:
            lines.append(f"  as in {out / trial['picture']}")
        world = self._core.world
        lines.append("  The arm moves home first: keep out of its reach, and the user stop in your hand")
        while world.stopped[0] and hasattr(world, "recover"):
            question = (
                f"The arm is stopped ({world.stop_reason(0)}). Go says that the cell is clear and it may move again"
            )
            if not self._operator.wait_for_go(question):
                return False
            try:
                world.recover()
            except RobotStopped as error:
                self._operator.say(f"It stays stopped: {error}")
        return self._operator.wait_for_go("\n".join(lines))

    def _run(self, trial: Mapping[str, Any], arm: str, attempt: int) -> tuple[Verdict, bool]:
        """One attempt, to its file. Returns its verdict, and whether the operator quits."""
        operator, residual = self._operator, self._residuals[arm]
        attributes = self._common | {
            "trial": trial["trial"],
            "attempt": attempt,
            "arm": arm,
            "seed": trial["seed"],
            "residual": residual.name,
            "residual_sha256": residual.hash or "",
            "operator": self._settings.base + (f" + {residual.name}" if arm == "residual" else ""),
            "calibration": getattr(self._core.tracker, "calibration_label", ""),
            "started": now(),
            "started_monotonic": time.monotonic(),
        }
        name = trial_name(trial["trial"], attempt)
        recorder = TrialRecorder(self._folder, name, attributes, synthetic=self._settings.rehearsal)
        end: Record = {}
        try:
            try:
                self._start(trial, residual, end)
            except (RobotStopped, BasePolicyError) as error:
                reason = error.reason if isinstance(error, RobotStopped) else StopReason.BASE_POLICY_FAILED
                end |= {"stop_reason": str(reason), "stop_detail": str(error)} | self._stop_facts()
                verdict, quits = Verdict("invalid", f"it did not start: {error}"), False
                operator.say(f"Trial {trial['trial']} {verdict.reason}")
            else:
                verdict, quits = self._drive_and_judge(residual, recorder, end)
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            if not self._core.world.stopped[0]:
                self._core.world.stop(0, StopReason.OPERATOR_STOP if interrupted else StopReason.TARGETS_STALE)
            end |= {"stop_reason": str(self._core.world.stop_reason(0))} | self._stop_facts()
            words = INTERRUPTED if interrupted else f"{type(error).__name__}: {error}"
            recorder.finish(Verdict("invalid", words), **end, ended_monotonic=time.monotonic())
            raise
        recorder.finish(verdict, **end, ended_monotonic=time.monotonic())
        return verdict, quits

    def _start(self, trial: Mapping[str, Any], residual: ResidualPolicy, end: Record) -> None:
        self._env.reset(seed=trial["seed"])
        try:
            residual.reset(self._core, np.zeros(1, np.int64))
        except ValueError as error:  # made for another task
            raise SettingsError(str(error)) from error
        planned = np.array([trial["objects"][item.name][:3] for item in self._core.task.objects])
        offsets = np.linalg.norm(self._core.filter.poses[0, :, :3] - planned, axis=1)
        end["placement_error"] = [round(float(offset), 4) for offset in offsets]

    def _drive_and_judge(self, residual: ResidualPolicy, recorder: TrialRecorder, end: Record) -> tuple[Verdict, bool]:
        """Drive until the trial is over, and ask for the verdict."""
        operator, core = self._operator, self._core
        proposed, quits = self._drive(residual, recorder)
        rest = getattr(core.world, "rest", None)
        if rest is not None and not core.world.stopped[0]:
            rest()  # or the arm would stop by itself, for want of targets, while the operator makes up his mind
        stop_reason = str(core.world.stop_reason(0))
        if core.base_policy_failed[0]:
            stop_reason, end["stop_detail"] = str(StopReason.BASE_POLICY_FAILED), core.base_policy_problem
        end |= {"stop_reason": stop_reason} | self._stop_facts()
        if quits:
            return Verdict("invalid", "the operator quit"), True
        took = f"after {core.steps[0] / CONTROL_FREQUENCY:.1f} s"
        text = f"The trial was stopped {took}: {stop_reason}" if stop_reason else f"The trial is over {took}"
        return operator.ask_verdict(text, proposed, may_succeed=not stop_reason), False

    def _stop_facts(self) -> Record:
        """What a robot measured of its stop, if it did: why, when the fault was seen, and when it stood still."""
        report = getattr(self._core.world, "stop_report", None)
        stop = report() if report is not None and self._core.world.stopped[0] else None
        if stop is None:
            return {}
        stood = np.nan if stop.stopped_at is None else stop.stopped_at
        return {"stop_detail": stop.detail, "stop_seen_monotonic": stop.seen_at, "stopped_monotonic": stood}

    def _drive(self, residual: ResidualPolicy, recorder: TrialRecorder) -> tuple[Verdict | None, bool]:
        """Run the policies to the trial's end. Returns the verdict that it proposes, and whether the operator quits."""
        operator, core = self._operator, self._core
        real = core.world.true is None
        began = time.monotonic()
        while True:
            command = operator.command()
            if command:
                core.world.stop(0, StopReason.OPERATOR_STOP)
                return Verdict("invalid") if command == "invalid" else None, command == "quit"
            row = measured(core, time.monotonic() - began if real else core.steps[0] / CONTROL_FREQUENCY)
            action = residual.act(core)[0]
            _, _, terminated, truncated, _ = self._env.step(action)
            recorder.add(row | executed(core, action))
            # A real world has asked the operator already, and the judge of a rehearsal must not be asked twice.
            called = None if real else operator.verdict()
            if terminated or truncated or called is not None:
                break
        if core.world.stopped[0] or core.base_policy_failed[0]:
            return None, False
        if terminated or called:
            return Verdict("success"), False
        failed = called is False or core.truncated[0]
        return Verdict("fail") if failed else None, False
