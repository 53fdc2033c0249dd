"""A blind comparison on a robot: the base policy alone and with a residual, from the same start poses.

All start poses and the order of trials are written before the first trial. From each start both policies run, one after
the other, in random order. The operator sees only trial numbers; a separate file holds the conditions. A trial with a
verdict is never repeated, an invalid one is attempted again, and nothing is deleted. Files in the folder:

| | |
|---|---|
| ``settings.json`` | what is compared; another comparison needs another folder |
| ``plan.json``, ``starts/`` | the trials in order, where to put the objects, and pictures of it |
| ``blind.json`` | the condition of each trial; the operator must not read it |
| ``trials/`` | one file per attempt, see :mod:`oc_residual_gym.real.trials` |
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.files import Record, claim, write_json
from oc_residual_gym.parsing import read_json
from oc_residual_gym.real.attempts import TrialRunner
from oc_residual_gym.real.keeping import Copies
from oc_residual_gym.real.operator import Operator
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.starts import write_starts
from oc_residual_gym.real.trials import CONDITIONS, SUFFIX, judge_later, now, read_trials, recover, unjudged
from oc_residual_gym.tasks import TASKS

SETTINGS_FILE, PLAN_FILE, BLIND_FILE, TRIALS = "settings.json", "plan.json", "blind.json", "trials"


def prepare(settings: TrialSettings, out: Path, pictures: bool = True) -> list[Record]:
    """Write the start poses, order and conditions of a comparison unless ``out`` has them; return its trials in order.

    Raises:
        SettingsError: ``out`` holds another comparison.
    """
    claim(out, SETTINGS_FILE, settings.identity)
    if not (out / PLAN_FILE).exists():
        order_seed = secrets.randbits(64)
        rng = np.random.default_rng(order_seed)
        orders = [rng.permutation(CONDITIONS).tolist() for _ in range(settings.starts)]
        conditions = [condition for order in orders for condition in order]
        write_json(out / BLIND_FILE, {"order_seed": order_seed, "conditions": conditions})
        starts = write_starts(TASKS[settings.task], settings.split, range(settings.starts), out, pictures)
        trials = [{"trial": i + 1, **starts[i // len(CONDITIONS)]} for i in range(len(conditions))]
        write_json(out / PLAN_FILE, {"planned": now(), "task": settings.task, "trials": trials})
    return read_json(out / PLAN_FILE)["trials"]


def run_trials(
    settings: TrialSettings,
    env_factory: Callable[[], gym.Env],
    operator: Operator,
    out: Path,
    *,
    pictures: bool = True,
) -> Record:
    """Run the trials that have no verdict yet, until the operator quits.

    Args:
        settings: what is compared.
        env_factory: creates the environment, with the time limit and the base policy and split of ``settings``. On a
            robot, its ``FR3World`` must use this operator's ``verdict`` and ``wants_stop``.
        operator: who judges.
        out: folder of the comparison.
        pictures: whether to draw the starts.

    Returns:
        The number of planned "trials", of those "judged", and of those still "open".

    Raises:
        SettingsError: ``out`` holds another comparison, or the environment does not match ``settings``.
        KeptElsewhere: a trial could not be written into ``out``; the message says where it is.
        KeyboardInterrupt: after the arm was stopped. A running trial is kept as invalid; a finished one stays open, and
            the next run asks for its verdict.
    """
    plan = prepare(settings, out, pictures)
    conditions, folder = read_conditions(out), out / TRIALS
    for path in recover(folder):
        operator.say(f"{path.name} was interrupted: it is kept as invalid")
    if _judge_waiting(folder, operator):
        env = env_factory()
        try:
            runner = TrialRunner(settings, env, operator, folder)
            copies = Copies(out, SETTINGS_FILE, PLAN_FILE, BLIND_FILE, f"{TRIALS}/*{SUFFIX}")
            copies.look()
            for trial, condition in zip(plan, conditions, strict=True):
                goes_on = runner.attempt(trial, condition, len(plan), out)
                if lost := copies.restore():  # somebody deleted them while the trial ran
                    operator.say(f"files in {out} were deleted and are written again: {', '.join(lost)}")
                copies.look()
                if not goes_on:
                    break
        finally:
            env.close()
    judged = len({trial["trial"] for trial in read_trials(folder) if trial["verdict"] != "invalid"})
    return {"trials": len(plan), "judged": judged, "open": len(plan) - judged}


def _judge_waiting(folder: Path, operator: Operator) -> bool:
    """Ask for the verdicts of finished trials that lack one. Returns ``False`` if the operator quits."""
    for trial in unjudged(folder):
        text = f"Trial {trial['trial']}, begun at {trial['started']}, is over and has no verdict yet"
        reason = trial["stop_reason"]
        if reason:
            text += f"; it was stopped: {reason}"
        verdict = operator.ask_verdict(text, None, may_succeed=not reason)
        if verdict is None:
            return False
        judge_later(trial["journal"], verdict)
    return True


def read_conditions(out: Path) -> list[str]:
    """Condition of each trial, in order. Raises ``SettingsError`` if the file with the conditions is missing."""
    if not (out / BLIND_FILE).exists():
        raise SettingsError(f"{out} has no {BLIND_FILE}: without this key its trials cannot go on; put it back")
    return read_json(out / BLIND_FILE)["conditions"]
