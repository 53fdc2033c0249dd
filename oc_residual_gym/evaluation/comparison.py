"""Comparison of two finished evaluations, paired by episode."""

from __future__ import annotations

from pathlib import Path

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.dumbbells import plot_dumbbells
from oc_residual_gym.evaluation.episodes import (
    CELL_KEYS,
    EPISODES_FILE,
    SUMMARY_FILE,
    cells,
    finished_summary,
    read_episodes,
)
from oc_residual_gym.evaluation.pairing import paired_rates, rows_of
from oc_residual_gym.evaluation.report import markdown_table, percent
from oc_residual_gym.files import Record, write_json, write_text

TABLE_FILE = "compare.md"
PLOT_FILE = "compare.png"


def compare(reference: Path, candidate: Path, out: Path) -> tuple[Record, str]:
    """Compare two finished evaluations, paired by episode; write summary, table and plot into ``out``.

    The files are summary.json (as the evaluator writes it, with the "cells" of both and their "differences"),
    compare.md and compare.png.

    Args:
        reference: folder of the first evaluation.
        candidate: folder of the second one; differences are candidate minus reference.
        out: folder of the results.

    Returns:
        The summary and the table in Markdown.

    Raises:
        SettingsError: an evaluation is not finished, or they ran different episodes.
    """
    folders = {"reference": reference, "candidate": candidate}
    summaries = {role: finished_summary(folder) for role, folder in folders.items()}
    episodes = {role: read_episodes(folder / EPISODES_FILE) for role, folder in folders.items()}
    if rows_of(episodes["reference"]) != rows_of(episodes["candidate"]):
        raise SettingsError(
            f"{reference} ({_describe(episodes['reference'])}) and {candidate} ({_describe(episodes['candidate'])}) "
            "ran different episodes; evaluate both on the same tasks, split and number of episodes"
        )

    names = dict(zip(folders, _names(*(group[0] for group in episodes.values())), strict=True))
    differences = paired_rates(episodes)
    summary: Record = {
        "cells": [cell for group in episodes.values() for cell in cells(group)],
        "differences": differences,
        **{
            key: {role: summary[key] for role, summary in summaries.items()}
            for key in ("versions", "machine", "commit", "hashes", "command")
        },
    }
    table = markdown_table(
        ["success in %", *names.values(), "difference"],
        [[r["task"], *(percent(r[role]) for role in names), percent(r["difference"], "+")] for r in differences],
    )
    write_json(out / SUMMARY_FILE, summary)
    write_text(out / TABLE_FILE, table)
    plot_dumbbells(out / PLOT_FILE, {"": differences}, names)
    return summary, table


def _describe(episodes: list[Record]) -> str:
    tasks = {episode["task"] for episode in episodes}
    splits = {episode["split"] for episode in episodes}
    return f"{len(episodes)} episodes of {', '.join(sorted(tasks))}, split {', '.join(sorted(splits))}"


def _names(reference: Record, candidate: Record) -> tuple[str, str]:
    """Name each side after its policies, plus whatever else differs between the two."""
    telling = [key for key in CELL_KEYS if key not in ("task", "base", "residual") and reference[key] != candidate[key]]

    def name(episode: Record) -> str:
        policies = episode["base"] if episode["residual"] == "zero" else f"{episode['base']} + {episode['residual']}"
        return ", ".join([policies, *(episode[key] for key in telling)])

    return name(reference), name(candidate)
