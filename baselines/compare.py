"""``compare``: a base policy alone, with a residual, with the planner and with the oracle, on the same episodes in both
domains."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from baselines.headline import sentence
from baselines.reading import reading
from oc_residual_gym.engines import Engine
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.comparison import PLOT_FILE, TABLE_FILE
from oc_residual_gym.evaluation.dumbbells import plot_dumbbells
from oc_residual_gym.evaluation.episodes import EPISODES_FILE, SUMMARY_FILE, cells, read_episodes
from oc_residual_gym.evaluation.evaluator import evaluate
from oc_residual_gym.evaluation.pairing import paired_rates
from oc_residual_gym.evaluation.provenance import commit, machine, versions
from oc_residual_gym.evaluation.report import markdown_table, percent
from oc_residual_gym.evaluation.settings import EvaluationSettings, resolve_tasks
from oc_residual_gym.files import Record, write_json, write_text
from oc_residual_gym.residuals import TRAINED, UNTRAINED, tasks_with_residual

SCENARIOS = {
    ("nominal", "paper"): "in the training world",
    ("twin", "tracker"): "in the shifted world, never trained in",
}
"""Domain and pose errors, with what they are in plain words."""
DIFFERENCES = {"difference": ("base", "residual"), "over_planner": ("planner", "residual")}
"""Name in the summary to the sides that are subtracted, episode by episode: the second minus the first."""
WORLDS = 64
"""Number of episodes that run at a time; their threads share the cores."""

_ABOUT = """Base policy `{base}` alone, with the residual `{residual}`, with the planner and with the oracle:
{episodes} episodes per task, the same for all (split `{split}`, seeds from 0). Planner and oracle learn nothing; they
correct the base policy towards a scripted plan as far as the action range allows. The planner plans from what the
policy sees, the oracle from the true state. `nominal` is the training physics; `twin` with `tracker` pose errors is the
held-out test physics, in which nothing is trained."""
_INTERVALS = """Success in %, 95 % intervals in brackets: Wilson's for a task; a bootstrap stratified by task for means,
in which all tasks weigh the same, and for the paired differences."""


@dataclass(frozen=True)
class CompareRequest:
    """Arguments of ``compare``."""

    base: str
    residual: str
    tasks: tuple[str, ...]
    """Names of the tasks to compare. "all" means every task that the base policy supports."""
    split: str
    episodes: int
    """Number of episodes per task, scenario and policy."""
    out: Path
    command: str

    @property
    def sides(self) -> dict[str, str]:
        """Column name in the table to residual policy."""
        return {"base": "zero", "residual": self.residual, "planner": "planner", "oracle": "oracle"}

    @property
    def runs(self) -> Path:
        """Folder of the individual evaluations."""
        return self.out / "runs"

    @property
    def reports(self) -> tuple[Path, ...]:
        """Paths of the files that are written at the end."""
        return self.out / TABLE_FILE, self.out / PLOT_FILE, self.out / SUMMARY_FILE


def run_comparison(request: CompareRequest, engine: Engine | None = None) -> tuple[Record, str]:
    """Run the evaluations of ``request`` that are missing; write summary, Markdown and plot into its folder.

    Args:
        request: what to compare.
        engine: where the episodes run; by default in this process.

    Returns:
        The summary, and the table with the result in a sentence.

    Raises:
        SettingsError: a name does not exist; the message lists those that do.
    """
    if request.residual in UNTRAINED:
        raise SettingsError(f"compare runs {request.residual!r} anyway: give a trained residual to compare with it")
    tasks = list(dict.fromkeys(task for name in request.tasks for task in resolve_tasks(name, request.base)))
    corrected = _with_residual(request, tasks)
    plan = {
        scenario: {
            side: [
                EvaluationSettings((task,), request.base, residual, *scenario, request.split, request.episodes)
                for task in (corrected if side == "residual" else tasks)
            ]
            for side, residual in request.sides.items()
        }
        for scenario in SCENARIOS
    }
    rows = sum(len(group) for sides in plan.values() for group in sides.values()) * request.episodes
    with tqdm(total=rows, unit="episode", disable=None) as bar:
        episodes = {
            scenario: {
                side: [episode for settings in group for episode in _run(request, settings, bar, engine)]
                for side, group in sides.items()
            }
            for scenario, sides in plan.items()
        }
    records = {scenario: paired_rates(sides, DIFFERENCES) for scenario, sides in episodes.items()}
    panels = {place: records[scenario] for scenario, place in SCENARIOS.items()}
    result = sentence(panels)
    summary: Record = {
        "cells": cells(episode for sides in episodes.values() for group in sides.values() for episode in group),
        "differences": [
            {"domain": domain, "errors": errors} | record
            for (domain, errors), group in records.items()
            for record in group
        ],
        "result": result,
        "versions": versions(),
        "machine": machine(),
        "commit": commit(),
        "hashes": _hashes(request, tasks, corrected),
        "command": request.command,
    }
    table = f"{_table(request, records)}\n{result}\n"
    details = reading({_title(scenario): sides for scenario, sides in episodes.items()})
    labels = {side: f"with the {side}" for side in request.sides} | {
        "base": f"base policy {_short(request.base)} alone"
    }
    write_json(request.out / SUMMARY_FILE, summary)
    write_text(request.out / TABLE_FILE, _page(request, table, details, summary))
    plot_dumbbells(request.out / PLOT_FILE, panels, labels)
    return summary, table


def _with_residual(request: CompareRequest, tasks: Sequence[str]) -> tuple[str, ...]:
    """Those of ``tasks`` that have such a residual; names the others on stderr."""
    found = tuple(task for task in tasks if task in tasks_with_residual(request.residual, request.base))
    if not found and request.residual not in TRAINED:
        return tuple(tasks)  # the settings' check will list what exists
    if missing := [task for task in tasks if task not in found]:
        print(
            f"there is no residual {request.residual} on {request.base} for {', '.join(missing)}: only base, planner "
            "and oracle are run there",
            file=sys.stderr,
        )
    return found


def _hashes(request: CompareRequest, tasks: Sequence[str], corrected: Sequence[str]) -> Record:
    """Hashes of the base policy by task, of the residual in the tasks that have one, and of the simulation."""
    residuals: Record = {}
    if corrected:
        residuals = EvaluationSettings(tuple(corrected), request.base, request.residual).hashes["residual"]
    return EvaluationSettings(tuple(tasks), request.base).hashes | {"residual": residuals}


def _run(request: CompareRequest, settings: EvaluationSettings, bar: tqdm, engine: Engine | None) -> list[Record]:
    """All episodes of one evaluation; runs those that are missing."""
    policies = settings.base if settings.residual == "zero" else f"{settings.base} + {settings.residual}"
    label = f"{settings.domain}, {settings.errors}: {policies}"
    bar.set_description_str(label)
    if bar.disable:  # no terminal
        print(f"{label}, {settings.tasks[0]}", file=sys.stderr, flush=True)
    folder = request.runs / _folder_name(settings)
    evaluate(settings, folder, worlds=WORLDS, engine=engine, command=request.command, bar=bar)
    return read_episodes(folder / EPISODES_FILE)


def _folder_name(settings: EvaluationSettings) -> str:
    """Unique folder name per identity, so that another residual or package version does not clash with existing
    results."""
    identity = json.dumps(settings.identity, sort_keys=True).encode()
    names = settings.names
    readable = [*settings.tasks, Path(names["base"]).stem, Path(names["residual"]).stem, names["domain"]]
    return "-".join([*readable, str(settings.episodes), hashlib.sha256(identity).hexdigest()[:12]])


def _title(scenario: tuple[str, str]) -> str:
    return ", ".join(scenario)


def _short(policy: str) -> str:
    """A policy's name without the folders of its file."""
    return Path(policy).name if policy.endswith(".onnx") else policy


def _table(request: CompareRequest, scenarios: Mapping[tuple[str, str], Sequence[Record]]) -> str:
    rows = [
        [
            _title(scenario),
            record["task"],
            *(percent(record[side]) for side in request.sides),
            percent(record["difference"], "+"),
        ]
        for scenario, records in scenarios.items()
        for record in records
    ]
    return markdown_table(["world, pose errors", "task", *request.sides, "residual - base"], rows, names=2)


def _page(request: CompareRequest, table: str, results: str, summary: Record) -> str:
    """Content of compare.md."""
    about = {key: getattr(request, key) for key in ("base", "residual", "episodes", "split")}
    title, plot = "# Does the residual fix the base policy?", f"![Success rates]({PLOT_FILE})"
    parts = [title, _ABOUT.format(**about), table, _INTERVALS, plot, results, _made_by(summary)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _made_by(summary: Record) -> str:
    """Provenance of the results, in Markdown."""
    hashes = summary["hashes"]
    rows = [[task, hashes["base"][task] or "", hashes["residual"].get(task) or ""] for task in hashes["base"]]
    packages = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    machine, policies = summary["machine"], markdown_table(["SHA-256", "base policy", "residual policy"], rows, names=3)
    origin = f"Commit {summary['commit']}; simulation `{hashes['simulation']}`; {machine['processor']}, "
    origin += f"{machine['cores']} cores; {packages}."
    return "\n\n".join(["## Made by", f"    {summary['command']}", origin, policies])
