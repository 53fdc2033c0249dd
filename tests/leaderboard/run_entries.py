"""Small entries that were really run: one task, a few rows, and tiny ONNX policies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from leaderboard import tracks
from leaderboard.entry import ENTRY_FILE, Entry
from leaderboard.submit import SubmitRequest, submit
from leaderboard.tracks import REAL, TRACKS, BoardCell, Track
from oc_residual_gym.evaluation.episodes import json_line
from oc_residual_gym.evaluation.evaluator import evaluate
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.files import sha256, write_json, write_text
from oc_residual_gym.parsing import read_json

TASK, SIZE = "Lift", 78
"""The task, and the size of its observation."""
ROWS = 3
ABOUT = """
name = "A method"
description = "It was run to see what becomes of it."
authors = ["A. Nonymous"]
residual = "my-residual"
base = "my-base"
[training]
seed = 0
seed_named = "in this file"
hardware = "one core"
data = "nothing besides the environments"
[training.tasks.Lift]
steps = 0
minutes = 0.0
curve = [[0, 0.5]]
"""


@contextmanager
def small_board(*domains: str) -> Iterator[None]:
    """A board with one track, of ``TASK`` in ``domains``, with ``ROWS`` rows per cell."""
    cells = tuple(BoardCell(TASK, domain) for domain in domains)
    kept = dict(TRACKS)  # keep the order, which patching single items would change
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracks, "EPISODES", ROWS)
        TRACKS.clear()
        TRACKS.update({"precision": Track("precision", "Precision", "One task.", cells), REAL: kept[REAL]})
        try:
            yield
        finally:
            TRACKS.clear()
            TRACKS.update(kept)


def run(folder: Path, residual: str = "zero", domain: str = "nominal", base: str = "bc", episodes: int = ROWS) -> Path:
    """Run an evaluation in ``folder``, under the board's conditions."""
    settings = EvaluationSettings((TASK,), base, residual, domain, tracks.ERRORS[domain], tracks.SPLIT, episodes)
    evaluate(settings, folder, command="oc-residual evaluate ...")
    return folder


def submitted(root: Path, name: str, *evaluations: Path, about: str = ABOUT) -> Entry:
    """Submit the entry ``name`` in ``root``, made from ``evaluations``."""
    write_text(root.parent / "about.toml", about)
    return submit(SubmitRequest(name, root.parent / "about.toml", evaluations, out=root))[0]


def change_rows(entry: Entry, seed: int, track: str = "precision", **values: object) -> None:
    """Put ``values`` into the row of ``seed``, and the new hash and counts into entry.json: a careful forgery."""
    path = entry.rows_file(track)
    rows = [row | (values if row["seed"] == seed else {}) for row in map(row_without_names, entry.rows(track))]
    write_text(path, "".join(map(json_line, rows)))
    content = read_json(entry.folder / ENTRY_FILE)
    successes = {TASK: sum(row["success"] for row in rows)}
    content["tracks"][track] = {"sha256": sha256(path), "successes": {"nominal": successes}}
    write_json(entry.folder / ENTRY_FILE, content)


def row_without_names(row: dict) -> dict:
    return {key: value for key, value in row.items() if key not in ("base", "residual", "errors", "split")}
