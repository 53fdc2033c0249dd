"""Report on trials: success rates of both policies with intervals, their paired difference, and a sequential test.

The sequential test is STEP (Snyder et al., RSS 2025, arXiv 2503.10966). It keeps its error rate even if it is evaluated
after every pair of trials, so that a comparison can stop as soon as it is decided.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.report import markdown_table, percent
from oc_residual_gym.evaluation.statistics import stratified_bootstrap, wilson
from oc_residual_gym.files import Record, json_bytes
from oc_residual_gym.hdf5 import opened, read
from oc_residual_gym.parsing import read_json
from oc_residual_gym.real.keeping import keep
from oc_residual_gym.real.placement import POSITION_LIMIT, ROTATION_LIMIT
from oc_residual_gym.real.run import SETTINGS_FILE, TRIALS
from oc_residual_gym.real.trials import CONDITIONS, read_trials

REPORT_FILE, TABLE_FILE = "report.json", "report.md"
ALPHA = 0.05
"""Probability that the test, evaluated after every pair, ever calls the residual better than an equally good base
policy. The probability of the opposite error is separate, and the same."""
MOST_PAIRS = 200
"""Number of pairs after which the test ends undecided. Fixed for all comparisons, because it must not depend on the
trials, and because the test's package ships rules for exactly this number."""
TEST_PACKAGE = "sequentialized-barnard-tests"
RESIDUAL_BETTER, BASE_BETTER, GO_ON, UNDECIDED = (
    "stop: the residual is better",
    "stop: the base alone is better",
    "go on: not decided yet",
    f"stop: not decided by {MOST_PAIRS} pairs",
)


def report(folder: Path, unblind: bool = False) -> Record:
    """Summarise the comparison in ``folder``; write report.json and report.md there.

    The report unblinds the policies: an operator who still has trials to judge must use :func:`decision` instead.

    Args:
        folder: folder of the comparison.
        unblind: whether to report even if trials are open.

    Raises:
        SettingsError: there are no trials, or some are open and ``unblind`` is false.
    """
    if not (folder / SETTINGS_FILE).exists():
        raise SettingsError(f"{folder} holds no trials; run `oc-residual real run ... --out {folder}` first")
    trials = read_trials(folder / TRIALS)
    if not trials:
        raise SettingsError(f"{folder} holds no trials yet")
    settings = read_json(folder / SETTINGS_FILE)
    planned = len(CONDITIONS) * settings["starts"]
    still_open = planned - len({trial["trial"] for trial in trials if trial["verdict"] != "invalid"})
    if still_open and not unblind:
        raise SettingsError(
            f"{still_open} of {planned} trials in {folder} are open, and the report tells the policies apart: ask with "
            "--decision whether more are needed; with --unblind you get it, and must not judge any more of them"
        )
    pairs = _pairs(trials)
    summary = {
        **{key: settings[key] for key in ("task", "base", "residual", "split", "starts", "rehearsal", "hashes")},
        "cell": settings["cell"]["name"],
        "calibrations": sorted({trial["calibration"] for trial in trials if trial.get("calibration")}),
        "versions": json.loads(trials[-1].get("versions", "{}")),
        "conditions": {
            condition: _counts([trial for trial in trials if trial["condition"] == condition])
            for condition in CONDITIONS
        },
        "open": still_open,
        "pairs": len(pairs),
        "difference": _difference(pairs),
        "sequential": sequential_test(pairs),
        "invalid": [_invalid(trial) for trial in trials if trial["verdict"] == "invalid"],
        "periods_ms": _periods(trials),
        "placement_error_mm": _placement(trials),
    }
    keep(folder / TABLE_FILE, markdown(summary).encode("utf-8"))
    keep(folder / REPORT_FILE, json_bytes(summary))
    return summary


def decision(folder: Path) -> str:
    """Whether to stop, without revealing which policy is better: for an operator who still has to judge.

    Raises:
        SettingsError: a file is not a trial.
    """
    said = sequential_test(_pairs(read_trials(folder / TRIALS)))["decision"]
    return said if said in (GO_ON, UNDECIDED) else "stop: decided"


def sequential_test(pairs: Sequence[tuple[bool, bool]]) -> Record:
    """Run STEP on pairs (base succeeded, residual succeeded), in the order in which they were completed.

    Returns:
        "decision", "decided_at" (number of pairs after which it was decided, or ``None``), "pairs", and the test's name
        and parameters.
    """
    result: Record = {"test": "STEP", "alpha": ALPHA, "most_pairs": MOST_PAIRS, "pairs": len(pairs), "decided_at": None}
    try:
        from sequentialized_barnard_tests import Decision, Hypothesis, MirroredStepTest
    except ImportError:
        return result | {"decision": f"not computed: pip install {TEST_PACKAGE}"}
    # The seed breaks ties in the same way in every report.
    test = MirroredStepTest(Hypothesis.P0LessThanP1, n_max=MOST_PAIRS, alpha=ALPHA, random_seed=0)
    result |= {"package": f"{TEST_PACKAGE} {metadata.version(TEST_PACKAGE)}"}
    meanings = {Decision.AcceptAlternative: RESIDUAL_BETTER, Decision.AcceptNull: BASE_BETTER}
    for number, (base, residual) in enumerate(pairs[:MOST_PAIRS], start=1):
        found = meanings.get(test.step(int(base), int(residual)).decision)
        if found:
            return result | {"decision": found, "decided_at": number}
    return result | {"decision": GO_ON if len(pairs) < MOST_PAIRS else UNDECIDED}


def _pairs(trials: Sequence[Record]) -> list[tuple[bool, bool]]:
    """(base succeeded, residual succeeded) for each start with a verdict for both, in order of completion.

    A completed pair never changes its position; otherwise a later STEP decision could contradict an earlier one.
    """
    judged: dict[int, dict[str, Record]] = {}
    for trial in trials:
        if trial["verdict"] != "invalid":
            judged.setdefault(trial["seed"], {})[trial["condition"]] = trial
    pairs = [pair for pair in judged.values() if len(pair) == len(CONDITIONS)]
    pairs.sort(key=lambda pair: max((t.get("judged") or t["started"], t["trial"]) for t in pair.values()))
    return [(pair["base"]["verdict"] == "success", pair["residual"]["verdict"] == "success") for pair in pairs]


def _counts(trials: Sequence[Record]) -> Record:
    judged = [trial for trial in trials if trial["verdict"] != "invalid"]
    failed = [trial for trial in judged if trial["verdict"] == "fail"]
    successes = len(judged) - len(failed)
    return {
        "judged": len(judged),
        "successes": successes,
        "invalid": len(trials) - len(judged),
        "success_rate": asdict(wilson(successes, len(judged))) if judged else None,
        "failures": dict(sorted(Counter(t["stop_reason"] or t["reason"] or "not done" for t in failed).items())),
    }


def _difference(pairs: Sequence[tuple[bool, bool]]) -> Record | None:
    if not pairs:
        return None
    values = [float(residual) - float(base) for base, residual in pairs]
    return asdict(stratified_bootstrap({"": values}, (-1.0, 1.0)))


def _invalid(trial: Record) -> Record:
    return {key: trial.get(key, "") for key in ("trial", "attempt", "condition", "reason", "stop_reason")}


def _periods(trials: Sequence[Record]) -> Record | None:
    """Statistics of the measured control periods of all trials, in milliseconds; ``None`` without any."""
    values = np.concatenate([_dataset(trial, "trial/period") for trial in trials])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    mean, p99, longest = values.mean(), np.quantile(values, 0.99), values.max()
    found = {"steps": len(values), "mean": 1000 * mean, "p99": 1000 * p99, "max": 1000 * longest}
    return {key: round(float(value), 2) if key != "steps" else value for key, value in found.items()}


def _placement(trials: Sequence[Record]) -> Record | None:
    """Distances between observed and planned start positions over all trials, in millimetres; ``None`` without any."""
    errors = 1000 * np.concatenate([np.ravel(trial.get("placement_error", [])) for trial in trials])
    errors = errors[np.isfinite(errors)]
    if not len(errors):
        return None
    accepted = sum(bool(trial.get("placement_accepted")) for trial in trials)
    return {"median": round(float(np.median(errors)), 1), "max": round(float(errors.max()), 1), "accepted": accepted}


def _dataset(trial: Record, name: str) -> np.ndarray:
    path: Path = trial["path"]
    with opened(path) as file:
        group = file["demos"][path.stem]
        return read(group[name]) if name in group else np.zeros(0)


def markdown(summary: Record) -> str:
    """Format a summary as Markdown."""
    names = {"base": summary["base"], "residual": f"{summary['base']} + {summary['residual']}"}
    rows = []
    for condition, values in summary["conditions"].items():
        rate = percent(values["success_rate"]) if values["success_rate"] else "-"
        counts = [str(values[key]) for key in ("judged", "successes", "invalid")]
        failures = ", ".join(f"{kind} {count}" for kind, count in values["failures"].items()) or "-"
        rows.append([names[condition], *counts, rate, failures])
    head = ["policy", "judged", "successes", "invalid", "success in %", "failures"]
    where = "a rehearsal, with a simulated robot" if summary["rehearsal"] else f"cell {summary['cell']}"
    parts = [f"# {summary['task']}: {names['residual']} against {names['base']}\n", f"In {where}.\n"]
    parts.append(markdown_table(head, rows))
    parts.append("\n".join(_sentences(summary)) + "\n")
    if summary["invalid"]:
        lines = [
            [str(entry[key]) or "-" for key in ("trial", "attempt", "reason", "stop_reason")]
            for entry in summary["invalid"]
        ]
        parts.append("Invalid trials, which count for neither:\n")
        parts.append(markdown_table(["trial", "attempt", "reason", "stopped by"], lines, names=4))
    return "\n".join(parts)


def _sentences(summary: dict[str, Any]) -> list[str]:
    test, difference = summary["sequential"], summary["difference"]
    lines = [f"Sequential test (STEP, {test['alpha']:.0%}) after {test['pairs']} pairs: {test['decision']}"]
    if test["decided_at"]:
        lines[-1] += f", decided at pair {test['decided_at']}"
    lines[-1] += "."
    if difference:
        lines.insert(0, f"Paired difference: {percent(difference, '+')} points, 95 % interval.")
    if periods := summary["periods_ms"]:
        lines.append(
            f"Control periods: mean {periods['mean']:.1f} ms, 99th percentile {periods['p99']:.1f} ms, "
            f"longest {periods['max']:.1f} ms over {periods['steps']} steps."
        )
    if placement := summary["placement_error_mm"]:
        lines.append(
            f"Objects stood {placement['median']:.1f} mm from their planned starts in the median, "
            f"{placement['max']:.1f} mm at most; {placement['accepted']} trials began with one more than "
            f"{1000 * POSITION_LIMIT:.0f} mm or {np.degrees(ROTATION_LIMIT):.0f} degrees off, on the operator's word."
        )
    if summary["open"]:
        lines.append(f"{summary['open']} trials are open: whoever has read this must not judge them.")
    return [f"- {line}" for line in lines]
