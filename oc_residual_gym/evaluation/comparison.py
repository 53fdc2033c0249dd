"""Comparison of two finished evaluations, paired on the episodes they share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.evaluation import SettingsError
from oc_residual_gym.evaluation.results import (
    CELL_KEYS,
    EPISODES_FILE,
    SUMMARY_FILE,
    Record,
    cells,
    read_episodes,
    read_json,
    write_json,
    write_text,
)
from oc_residual_gym.evaluation.statistics import Estimate, stratified_bootstrap, wilson

TABLE_FILE = "compare.md"
PLOT_FILE = "compare.png"

ALL_TASKS = "all tasks"


def compare(reference: Path, candidate: Path, out: Path) -> tuple[Record, str]:
    """Compare the evaluation in the folder ``candidate`` with that in ``reference``, episode by episode.

    Writes summary.json (the evaluator's form, with the cells of both and their differences), compare.md and
    compare.png into ``out``.

    Returns:
        The summary and the table in Markdown.

    Raises:
        SettingsError: if one of them is not finished, or they ran different episodes.
    """
    folders = {"reference": reference, "candidate": candidate}
    summaries = {role: _finished(folder) for role, folder in folders.items()}
    episodes = {role: read_episodes(folder / EPISODES_FILE) for role, folder in folders.items()}
    rows = {role: [(e["split"], e["task"], e["seed"]) for e in group] for role, group in episodes.items()}
    if rows["reference"] != rows["candidate"]:
        raise SettingsError(
            f"{reference} ({_describe(rows['reference'])}) and {candidate} ({_describe(rows['candidate'])}) "
            "ran different episodes; evaluate both on the same tasks, split and number of episodes"
        )

    names = _names(*(group[0] for group in episodes.values()))
    comparison = _differences(episodes["reference"], episodes["candidate"])
    summary: Record = {
        "cells": [cell for group in episodes.values() for cell in cells(group)],
        "differences": comparison,
        **{
            key: {role: summary[key] for role, summary in summaries.items()}
            for key in ("versions", "machine", "commit", "hashes", "command")
        },
    }
    table = _table(names, comparison)
    write_json(out / SUMMARY_FILE, summary)
    write_text(out / TABLE_FILE, table)
    _plot(names, comparison, out / PLOT_FILE)
    return summary, table


def _finished(folder: Path) -> Record:
    path = folder / SUMMARY_FILE
    if not path.exists():
        raise SettingsError(
            f"{folder} holds no finished evaluation; run `oc-residual evaluate ... --out {folder}` first"
        )
    return read_json(path)


def _describe(rows: list[tuple[str, str, int]]) -> str:
    tasks = {task for _, task, _ in rows}
    splits = {split for split, _, _ in rows}
    return f"{len(rows)} episodes of {', '.join(sorted(tasks))}, split {', '.join(sorted(splits))}"


def _names(reference: Record, candidate: Record) -> tuple[str, str]:
    """Name each side after its policies and after whatever else differs between the two."""
    telling = [key for key in CELL_KEYS if key not in ("task", "base", "residual") and reference[key] != candidate[key]]

    def name(episode: Record) -> str:
        policies = episode["base"] if episode["residual"] == "zero" else f"{episode['base']} + {episode['residual']}"
        return ", ".join([policies, *(episode[key] for key in telling)])

    return name(reference), name(candidate)


def _differences(reference: list[Record], candidate: list[Record]) -> list[Record]:
    """Success rates of both sides and their paired difference, for each task and for all together."""
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for before, after in zip(reference, candidate, strict=True):
        pairs.setdefault(before["task"], []).append((before["success"], after["success"]))
    outcomes = {task: np.array(values, dtype=np.float64) for task, values in pairs.items()}
    rows = []
    for task, values in outcomes.items():
        rates = [wilson(int(values[:, side].sum()), len(values)) for side in (0, 1)]
        rows.append(_row(task, rates, {task: values}))
    if len(outcomes) > 1:
        rates = [
            stratified_bootstrap({t: values[:, side] for t, values in outcomes.items()}, (0.0, 1.0)) for side in (0, 1)
        ]
        rows.append(_row(ALL_TASKS, rates, outcomes))
    return rows


def _row(task: str, rates: list[Estimate], outcomes: dict[str, NDArray[np.float64]]) -> Record:
    """One line of the comparison; outcomes (episodes, 2) of reference and candidate by task."""
    difference = stratified_bootstrap({t: values[:, 1] - values[:, 0] for t, values in outcomes.items()}, (-1.0, 1.0))
    sides = {"reference": rates[0], "candidate": rates[1], "difference": difference}
    return {"task": task} | {side: asdict(estimate) for side, estimate in sides.items()}


def _table(names: tuple[str, str], comparison: list[Record]) -> str:
    """Markdown table in percent, 95 % intervals in brackets."""

    def cell(estimate: dict[str, float], sign: str = "") -> str:
        mean, low, high = (100.0 * estimate[key] for key in ("mean", "low", "high"))
        return f"{mean:{sign}.1f} [{low:.1f}, {high:.1f}]"

    lines = [
        ["success in %", *names, "difference"],
        ["---", "---:", "---:", "---:"],
        *(
            [row["task"], cell(row["reference"]), cell(row["candidate"]), cell(row["difference"], "+")]
            for row in comparison
        ),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    align = ["<", ">", ">", ">"]
    return "".join(
        "| "
        + " | ".join(f"{text:{side}{width}}" for text, side, width in zip(line, align, widths, strict=True))
        + " |\n"
        for line in lines
    )


def _plot(names: tuple[str, str], comparison: list[Record], path: Path) -> None:
    """Bars of the success rates with their intervals, one pair a task."""
    from matplotlib.figure import Figure  # slow to import, and used nowhere else

    figure = Figure(figsize=(1.3 * len(comparison) + 2.0, 3.2), layout="constrained")
    axes = figure.subplots()
    for i, (role, name, colour) in enumerate(zip(("reference", "candidate"), names, ("0.7", "tab:blue"), strict=True)):
        rates = [row[role] for row in comparison]
        heights = [rate["mean"] for rate in rates]
        below = [max(0.0, rate["mean"] - rate["low"]) for rate in rates]  # rounding may leave -1e-17
        above = [max(0.0, rate["high"] - rate["mean"]) for rate in rates]
        positions = [column + 0.4 * (i - 0.5) for column in range(len(comparison))]
        axes.bar(positions, heights, width=0.38, yerr=[below, above], capsize=3, color=colour, label=name)
    axes.set_xticks(range(len(comparison)), [row["task"] for row in comparison])
    axes.set_ylim(0.0, 1.05)
    axes.set_ylabel("success rate, 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
