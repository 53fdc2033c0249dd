"""Comparisons on a real robot in an entry: check that they are complete and not rehearsals, and count them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from leaderboard import LeaderboardError, tracks
from leaderboard.entry import parse_json
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.files import Record
from oc_residual_gym.parsing import read_text
from oc_residual_gym.real.run import SETTINGS_FILE, TRIALS
from oc_residual_gym.real.trials import CONDITIONS, SUFFIX, read_trials

POLICIES = ("base", "residual")


def read_settings(folder: Path) -> Record:
    """Settings of the comparison in ``folder``. Raises ``LeaderboardError`` if it cannot be listed."""
    path = folder / SETTINGS_FILE
    try:
        settings = parse_json(read_text(path))
        task, split, starts = settings["task"], settings["split"], settings["starts"]
        hashes, rehearsal = settings["hashes"], settings["rehearsal"]
        known = isinstance(starts, int) and isinstance(task, str) and {*POLICIES} <= hashes.keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LeaderboardError(f"{path} is not that of `oc-residual real run` ({error!r})") from error
    if not known:
        raise LeaderboardError(f"{path} is not that of `oc-residual real run`")
    if rehearsal is not False:
        raise LeaderboardError(f"{path}: this was a rehearsal, with a simulated robot; the board lists real ones")
    if split != tracks.SPLIT:
        raise LeaderboardError(f"{path}: its starts are of the split {split!r}; the board lists {tracks.SPLIT!r}")
    if not 1 <= starts <= tracks.EPISODES:
        raise LeaderboardError(f"{path}: it has {starts} starts; the split has {tracks.EPISODES}")
    return settings


def count_trials(folder: Path, settings: Record) -> dict[str, dict[str, int]]:
    """Successes and judged trials per condition, as entry.json holds them.

    Args:
        folder: folder of the comparison.
        settings: from :func:`read_settings`.

    Raises:
        LeaderboardError: a file is not a trial or is of other policies, or trials are open or judged twice.
    """
    try:
        trials = read_trials(folder / TRIALS)
        judged = [_judged(trial, settings) for trial in trials if trial["verdict"] != "invalid"]
        counts = Counter((condition, seed) for condition, seed, _ in judged)
    except (SettingsError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise LeaderboardError(f"{folder / TRIALS} cannot be read: {error}") from error
    planned = {(condition, seed) for condition in CONDITIONS for seed in range(settings["starts"])}
    if still_open := planned - set(counts):
        raise LeaderboardError(f"{folder}: {len(still_open)} of {len(planned)} trials are open; the board lists all")
    if set(counts) != planned or max(counts.values()) > 1:
        raise LeaderboardError(f"{folder}: there are trials besides the {len(planned)} planned ones")
    return {
        condition: {
            "successes": sum(success for other, _, success in judged if other == condition),
            "trials": settings["starts"],
        }
        for condition in CONDITIONS
    }


def _judged(trial: dict[str, Any], settings: Record) -> tuple[str, int, bool]:
    """Condition, seed and success of a trial."""
    wanted = {"base": settings["hashes"]["base"] or ""}
    if trial["condition"] == "residual":
        wanted["residual"] = settings["hashes"]["residual"] or ""
    for policy, sha256 in wanted.items():
        if trial[f"{policy}_sha256"] != sha256:
            raise ValueError(f"{trial['path'].name} was not run with the {policy} policy of {SETTINGS_FILE}")
    if trial["verdict"] not in ("success", "fail"):
        raise ValueError(f"{trial['path'].name} has the verdict {trial['verdict']!r}")
    return trial["condition"], trial["seed"], trial["verdict"] == "success"


def files_of(folder: Path) -> list[Path]:
    """The files of a comparison that an entry keeps, relative to ``folder``."""
    trials = sorted((folder / TRIALS).glob(f"*{SUFFIX}"))
    return [Path(SETTINGS_FILE), *(path.relative_to(folder) for path in trials)]
