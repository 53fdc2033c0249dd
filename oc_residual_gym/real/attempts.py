"""Attempts at trials: a policy drives the arm, the operator judges, and every attempt is stored, however it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import BasePolicyError, KeptElsewhere, RobotStopped, SettingsError, StopReason
from oc_residual_gym.evaluation.provenance import commit, versions
from oc_residual_gym.files import Record
from oc_residual_gym.real.operator import Operator
from oc_residual_gym.real.placement import Placement, compare
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import (
    CONDITIONS,
    INTERRUPTED,
    TrialRecorder,
    Verdict,
    executed,
    measured,
    now,
    read_trials,
    trial_name,
)
from oc_residual_gym.residuals import ResidualPolicy, ZeroResidual
from oc_residual_gym.states import CONTROL_FREQUENCY
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.base import RealCell

ATTEMPTS = 3
"""Invalid attempts in a row after which a trial is left open; the next run tries it again."""
QUIT = Verdict("invalid", "the operator quit")


class TrialRunner:
    """Runs the trials of one session on a real cell.

    Args:
        settings: what is compared.
        env: environment on the cell, with the base policy and split of ``settings``.
        operator: who places the objects and judges.
        folder: folder of the trials' files.

    Raises:
        SettingsError: the environment does not match ``settings``, or is simulated.
    """

    def __init__(self, settings: TrialSettings, env: gym.Env, operator: Operator, folder: Path):
        self._settings, self._env, self._operator, self._folder = settings, env, operator, folder
        self._core: ResidualWorlds = env.get_wrapper_attr("core")
        if not isinstance(self._core.world, RealCell):
            raise SettingsError("trials run on a real cell, and the environment's world is simulated")
        self._world = self._core.world
        self._check_environment()
        policies: tuple[ResidualPolicy, ...] = (ZeroResidual(), settings.residual_policy)
        self._residuals = dict(zip(CONDITIONS, policies, strict=True))
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
        core, wanted = self._core, self._settings.base_policy
        pairs = {
            "task": (core.task.name, self._settings.task),
            "split": (core.split, self._settings.split),
            "base policy": (core.base_policy.name, wanted.name),
            "base policy's file": (core.base_policy.hash, wanted.hash),
        }
        for what, (there, asked) in pairs.items():
            if there != asked:
                raise SettingsError(f"the environment's {what} is {there!r}, and the trials' is {asked!r}")

    def attempt(self, trial: Mapping[str, Any], condition: str, count: int, out: Path) -> bool:
        """Attempt a trial until it has a verdict; do nothing if it has one already.

        Args:
            trial: the trial's entry in the plan.
            condition: "base" or "residual".
            count: number of trials in the plan.
            out: folder of the comparison.

        Returns:
            ``False`` if the operator quits.
        """
        number = trial["trial"]
        before = [t for t in read_trials(self._folder) if t["trial"] == number]
        if any(t["verdict"] != "invalid" for t in before):
            return True
        for attempt in range(len(before) + 1, len(before) + 1 + ATTEMPTS):
            if not self._prepare(trial, attempt, count, out):
                return False
            verdict, quits = self._run(trial, condition, attempt)
            if quits:
                return False
            if verdict is not None and verdict.result != "invalid":
                return True
        self._operator.say(
            f"Trial {number} stays open after {ATTEMPTS} invalid attempts: run this again to try it later"
        )
        return True

    def _prepare(self, trial: Mapping[str, Any], attempt: int, count: int, out: Path) -> bool:
        """Move the arm home, then have the objects placed. Returns ``False`` if the operator quits."""
        title = f"Trial {trial['trial']} of {count}" + (f", attempt {attempt}" if attempt > 1 else "")
        if not self._home(title):
            return False
        lines = [f"{title}: the arm is at rest. Put", *(f"  {line}" for line in trial["place"])]
        if trial["picture"]:
            lines.append(f"  as in {out / trial['picture']}")
        lines.append("Then leave the zone with the user stop in your hand: after go, the policy starts immediately")
        return self._operator.wait_for_go("\n".join(lines))

    def _home(self, title: str) -> bool:
        """Open the hand and move the arm home, before objects are placed. Returns ``False`` if the operator quits."""
        operator, world = self._operator, self._world
        while True:
            while world.stopped[0]:
                stopped = f"{title}: the arm is stopped ({world.stop_reason(0)})"
                if not operator.wait_for_go(f"{stopped}. Go confirms that the cell is clear and it may move again"):
                    return False
                try:
                    world.recover()
                except RobotStopped as error:
                    operator.say(f"It stays stopped: {error}")
            if not operator.wait_for_go(f"{title}: clear the zone. The hand opens where it is, and the arm moves home"):
                return False
            try:
                world.reset()
                return True
            except RobotStopped as error:
                operator.say(f"The arm did not get home: {error}")
                if self._quits():
                    return False

    def _quits(self) -> bool:
        """Whether the operator has asked to quit since the last question."""
        return "quit" in list(iter(self._operator.command, ""))

    def _run(self, trial: Mapping[str, Any], condition: str, attempt: int) -> tuple[Verdict | None, bool]:
        """Run one attempt and store it. Returns its verdict (``None`` if still open) and whether the operator quits."""
        residual = self._residuals[condition]
        attributes = self._common | {
            "trial": trial["trial"],
            "attempt": attempt,
            "condition": condition,
            "seed": trial["seed"],
            "residual": residual.name,
            "residual_sha256": residual.hash or "",
            "operator": self._settings.base + (f" + {residual.name}" if condition == "residual" else ""),
            "calibration": self._world.tracker.calibration_label,
            "started": now(),
            "started_monotonic": time.monotonic(),
        }
        name = trial_name(trial["trial"], attempt)
        recorder = TrialRecorder(self._folder, name, attributes, synthetic=self._settings.rehearsal)
        end: Record = {}
        try:
            verdict, quits = self._attempt(trial, residual, recorder, end)
        except BaseException as error:
            try:
                self._store_broken_off(recorder, end, error)
            except KeptElsewhere as kept:
                self._operator.say(str(kept))
            raise
        if verdict is None:
            recorder.close()
        else:
            recorder.finish(verdict, **end)
        return verdict, quits

    def _store_broken_off(self, recorder: TrialRecorder, end: Record, error: BaseException) -> None:
        """Stop the arm and store a trial that ``error`` broke off."""
        if recorder.is_over:  # it only lacks a verdict
            recorder.close()
            return
        interrupted = isinstance(error, KeyboardInterrupt)
        if not self._world.stopped[0]:
            self._world.stop(0, StopReason.OPERATOR_STOP if interrupted else StopReason.PROGRAM_ERROR)
        words = INTERRUPTED if interrupted else f"{type(error).__name__}: {error}"
        end |= self._end(self._world.stop_reason(0))
        recorder.finish(Verdict("invalid", words), **end)

    def _attempt(
        self, trial: Mapping[str, Any], residual: ResidualPolicy, recorder: TrialRecorder, end: Record
    ) -> tuple[Verdict | None, bool]:
        """Start the trial, drive, and ask for the verdict; add attributes to ``end``. Returns as :meth:`_run`."""
        operator = self._operator
        try:
            started = self._start(trial, residual, end)
        except (RobotStopped, BasePolicyError) as error:
            reason = error.reason if isinstance(error, RobotStopped) else StopReason.BASE_POLICY_FAILED
            end |= self._end(str(reason), str(error))
            verdict = Verdict("invalid", f"it did not start: {error}")
            operator.say(f"Trial {trial['trial']} {verdict.reason}")
            return verdict, self._quits()
        if not started:
            end |= self._end("")
            return QUIT, True
        proposed, quits = self._drive(residual, recorder)
        # Bring the arm to rest; otherwise it would stop because of missing targets while the operator judges.
        stop_reason, detail = self._why_it_stopped()
        self._rest()
        end |= self._end(stop_reason, detail)
        if quits:
            return QUIT, True
        recorder.over(**end)
        took = f"after {self._core.steps[0] / CONTROL_FREQUENCY:.1f} s"
        text = f"The trial was stopped {took}: {stop_reason}" if stop_reason else f"The trial is over {took}"
        given = operator.ask_verdict(text, proposed, may_succeed=not stop_reason)
        return given, given is None

    def _start(self, trial: Mapping[str, Any], residual: ResidualPolicy, end: Record) -> bool:
        """Start the episode once the objects are in place or the operator accepts. Returns ``False`` if they quit."""
        accepted = False
        while True:
            self._env.reset(seed=trial["seed"])
            try:
                residual.reset(self._core, np.zeros(1, np.int64))
            except ValueError as error:  # made for another task
                raise SettingsError(str(error)) from error
            placement = self._placement(trial)
            end["placement_error"] = placement.offsets.round(4).tolist()
            end["placement_turn"] = placement.turns.round(4).tolist()
            end["placement_accepted"] = bool(placement.advice)
            if accepted or not placement.advice:
                end["wrench_bias"] = self._world.wrench_bias.tolist()
                end |= {"started": now(), "started_monotonic": time.monotonic()}
                self._operator.trial_begins()
                return True
            lines = [*placement.advice, "Leave the zone before you answer: then the arm moves"]
            answer = self._operator.ask_placement("\n".join(lines))
            if answer == "quit":
                return False
            accepted = answer == "start"

    def _placement(self, trial: Mapping[str, Any]) -> Placement:
        """Compare where the objects stand with the trial's plan."""
        objects, tracker = self._core.task.objects, self._world.tracker
        planned, seen = np.array([trial["objects"][item.name] for item in objects]), tracker.used_poses
        return compare(objects, planned, seen, tracker.as_wxyz(seen))

    def _why_it_stopped(self) -> tuple[str, str]:
        if self._core.base_policy_failed[0]:
            return str(StopReason.BASE_POLICY_FAILED), self._core.base_policy_problem[0]
        return self._world.stop_reason(0), ""

    def _rest(self) -> None:
        """Bring the arm to rest after a trial; a fault here does not change the trial's result."""
        if not self._world.stopped[0]:
            self._world.rest()
            if self._world.stopped[0]:
                self._operator.say(f"After the trial the arm stopped: {self._world.stop_reason(0)}")

    def _end(self, stop_reason: str, detail: str = "") -> Record:
        """Attributes of a trial that has ended; ``stop_reason`` is "" unless it was stopped."""
        facts = self._stop_facts() if stop_reason else {}
        detail = detail or facts.get("stop_detail", "")
        return facts | {"stop_reason": stop_reason, "stop_detail": detail, "ended_monotonic": time.monotonic()}

    def _stop_facts(self) -> Record:
        """The arm's own report of its stop, if any: details, when the fault was noticed, and when it stood still."""
        stop = self._world.stop_report() if self._world.stopped[0] else None
        if stop is None:
            return {}
        stood = np.nan if stop.stopped_at is None else stop.stopped_at
        return {"stop_detail": stop.detail, "stop_seen_monotonic": stop.seen_at, "stopped_monotonic": stood}

    def _drive(self, residual: ResidualPolicy, recorder: TrialRecorder) -> tuple[Verdict | None, bool]:
        """Run the policies until the trial ends. Returns the proposed verdict, and whether the operator quits."""
        core, world = self._core, self._world
        began = time.monotonic()
        while True:
            command = self._operator.command()
            if command:
                world.stop(0, StopReason.OPERATOR_STOP)
                return Verdict("invalid") if command == "invalid" else None, command == "quit"
            row = measured(core, self._world.tracker.readings, time.monotonic() - began)
            action, steps_before = residual.act(core)[0], len(world.periods)
            _, _, terminated, truncated, _ = self._env.step(action)
            period = world.periods[-1] if len(world.periods) > steps_before else np.nan  # NaN for a failed step
            recorder.add(row | executed(core, action, period))
            if terminated or truncated:  # the world has asked for the operator's verdict
                break
        if world.stopped[0] or core.base_policy_failed[0]:
            return None, False
        return Verdict("success" if terminated else "fail"), False
