"""The files of the site: pages from templates, and the data that their scripts plot."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard import tracks
from leaderboard.site.board import AS_RECORDED, Board, Line, Method, cell_name
from leaderboard.site.markup import by_task, environment, from_markdown, script
from leaderboard.tracks import TRACKS
from oc_residual_gym.files import Record

GUIDE = Path(__file__).parents[1] / "README.md"
"""Guide on how to submit, shown on the site."""
SCHEMA = Path(__file__).parents[1] / "schema.json"
BOARD_DATA = "data/board.js"


def site_files(board: Board) -> dict[str, str]:
    """Path in the site to the text of every page and data file."""
    templates = environment()
    templates.globals |= {
        "TRACKS": TRACKS,
        "cell_name": cell_name,
        "EPISODES": tracks.EPISODES,
        "AS_RECORDED": AS_RECORDED,
    }
    lines = {name: board.lines(name) for name, track in TRACKS.items() if track.cells}
    standings = {(name, line.method.id): line for name, group in lines.items() for line in group}

    def page(template: str, root: str = "", **values: Any) -> str:
        return templates.get_template(template).render(root=root, **values)

    guide = from_markdown(GUIDE.read_text("utf-8"), linked=(SCHEMA.name,))
    files = {
        "index.html": page("index.html", lines=lines, real=board.real()),
        "compare.html": page("compare.html", methods=[method for method in board.methods if method.scores]),
        "submit.html": page("submit.html", guide=guide),
        SCHEMA.name: SCHEMA.read_text("utf-8"),
        BOARD_DATA: script("board", board_data(lines)),
    }
    for method in board.methods:
        files[f"method/{method.id}.html"] = page("method.html", "../", method=method, standings=standings)
        files[f"data/methods/{method.id}.js"] = script(f"method/{method.id}", method_data(board, method))
    return files


def board_data(lines: dict[str, list[Line]]) -> Record:
    """Data of all entries for plots and comparisons: each track's cells and lines, as in its table."""
    return {
        "tracks": {
            name: {
                "title": TRACKS[name].title,
                "cells": [cell_name(TRACKS[name], cell) for cell in TRACKS[name].cells],
                "lines": [_line_data(line) for line in group],
            }
            for name, group in lines.items()
        }
    }


def method_data(board: Board, method: Method) -> Record:
    """Data of one entry: its curves, its successful seeds, and its differences from entries later in the alphabet."""
    training = method.content["training"] or {"tasks": {}}
    return {
        "curves": {task: budget["curve"] for task, budget in by_task(training["tasks"]) if budget["curve"]},
        "successes": {
            track: [np.flatnonzero(values).tolist() for values in score.successes.values()]
            for track, score in method.scores.items()
        },
        "differences": {
            track: {
                second: {"cells": [asdict(cell) for cell in found.cells.values()], "mean": asdict(found.mean)}
                for (first, second), found in by_pair.items()
                if first == method.id
            }
            for track, by_pair in board.differences.items()
        },
    }


def _line_data(line: Line) -> Record:
    rates = [
        {"mean": cell["success_rate"], "low": cell["ci_low"], "high": cell["ci_high"]}
        for cell in line.score.cells.values()
    ]
    return {
        "id": line.method.id,
        "name": line.method.content["name"],
        "kind": "ranked" if line.rank else "reference" if line.method.is_verified else line.method.status.kind,
        "status": asdict(line.method.status),
        "episodes": [cell["episodes"] for cell in line.score.cells.values()],
        "mean": asdict(line.score.mean),
        "cells": rates,
    }
