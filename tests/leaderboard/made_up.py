"""Made-up entries: complete and valid by the schema, but never run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard import tracks as board
from leaderboard.entry import ENTRY_FILE, Entry
from leaderboard.rows import count_successes
from leaderboard.tracks import TRACKS
from oc_residual_gym.evaluation.episodes import json_line
from oc_residual_gym.files import write_json, write_text

HASH = hashlib.sha256(b"made up").hexdigest()
CURVE = [[0, 0.5], [30_000, 0.7], [60_000, 0.9]]


def make_entry(
    folder: Path,
    rate: float,
    tracks: tuple[str, ...] = ("simulation", "zero-shot", "precision"),
    trials: dict[str, dict[str, dict[str, int]]] | None = None,
    **content: Any,
) -> Entry:
    """Write an entry that succeeds in about ``rate`` of its rows; ``content`` replaces values of entry.json."""
    rng = np.random.default_rng(sum(folder.name.encode()))
    claims: dict[str, Any] = {}
    for track in tracks:
        rows = [
            _row(rng, cell.task, cell.domain, seed, rate)
            for cell in sorted(TRACKS[track].cells, key=lambda cell: (cell.domain, cell.task))
            for seed in range(board.EPISODES)
        ]
        text = "".join(map(json_line, rows))
        write_text(folder / "rows" / f"{track}.jsonl", text)
        claims[track] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "successes": count_successes(rows)}
    if trials:
        claims["real-robot"] = {"files": {f"{task}/settings.json": HASH for task in trials}, "trials": trials}
    tasks = sorted({cell.task for track in tracks for cell in TRACKS[track].cells} | set(trials or {}))
    entry = {
        "schema": 1,
        "name": folder.name.replace("-", " ").capitalize(),
        "reference": False,
        "description": "A method that was made up to see what the board does with it.",
        "authors": ["A. Nonymous", "B. Nonymous"],
        "code": "https://example.org/code",
        "paper": None,
        "date": "2026-11-30",
        "base": {"name": "bc-v0", "files": False, "sha256": dict.fromkeys(tasks, HASH)},
        "residual": {"name": "made-up", "files": True, "sha256": dict.fromkeys(tasks, HASH)},
        "training": {
            "seed": 0,
            "seed_named": "in the recipe, before the training",
            "checkpoint": "last",
            "hardware": "two cores",
            "data": "nothing besides the environments",
            "tasks": {task: {"steps": 60_000, "minutes": 8.5, "curve": CURVE} for task in tasks},
        },
        "tracks": claims,
        "evaluation": {
            "versions": {"oc-residual-gym": "0.1.0", "mujoco": "3.9.0", "numpy": "1.26.4", "onnxruntime": "1.31.1"},
            "machine": {"system": "Linux", "processor": "a processor", "cores": 2},
            "simulation": HASH,
            "commit": None,
            "commands": ["oc-residual evaluate ..."],
        },
    }
    write_json(folder / ENTRY_FILE, entry | content)
    return Entry(folder)


def _row(rng: np.random.Generator, task: str, domain: str, seed: int, rate: float) -> dict[str, Any]:
    success = bool(rng.random() < rate)
    return {
        "task": task,
        "seed": seed,
        "domain": domain,
        "success": success,
        "steps": int(rng.integers(80, 250)) if success else 300,
        "failure": None if success else str(rng.choice(["no_grasp", "time_limit", "dropped"])),
        "return": round(float(rng.uniform(-200, -50)), 6),
        "peak_contact_force": round(float(rng.uniform(5, 60)), 6),
        "correction_mm": round(float(rng.uniform(0, 10)), 6),
        "correction_rad": round(float(rng.uniform(0, 0.05)), 6),
        "correction_change_mm": round(float(rng.uniform(0, 2)), 6),
        "correction_change_rad": round(float(rng.uniform(0, 0.01)), 6),
    }
