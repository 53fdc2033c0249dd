"""Read results of ``oc-residual evaluate`` and ``baselines compare`` as the cells of an entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboard import LeaderboardError, tracks
from leaderboard.platforms import differences
from leaderboard.tracks import ERRORS, SPLIT, BoardCell
from oc_residual_gym.evaluation.episodes import EPISODES_FILE, SETTINGS_FILE, finished_summary, read_episodes
from oc_residual_gym.files import Record
from oc_residual_gym.parsing import read_json

RUNS = "runs"
"""Subfolder of a comparison that holds its evaluations."""
_SETTINGS = {"tasks", "base", "residual", "domain", "errors", "split", "hashes", "versions"}
_SUMMARY = {"machine", "commit", "command"}
"""Keys of an evaluation's files from which an entry is made."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation on disk."""

    folder: Path
    settings: Record
    """Settings of the run, with "hashes" and "versions"."""
    summary: Record


@dataclass(frozen=True)
class CellRows:
    """All rows that the evaluations have for one cell."""

    cell: BoardCell
    base: str
    """Base policy, as the evaluation names it."""
    residual: str
    base_sha256: str | None
    residual_sha256: str | None
    episodes: dict[int, Record]
    """Seed to episode."""
    evaluations: tuple[Evaluation, ...]
    """The evaluations that the episodes are from."""

    @property
    def is_complete(self) -> bool:
        return set(range(tracks.EPISODES)) <= set(self.episodes)


def read_evaluations(folders: Sequence[Path], residual: str | None) -> list[Evaluation]:
    """Read the evaluations in ``folders``, which may hold comparisons; only those of ``residual``, if it is given.

    Raises:
        LeaderboardError: a folder holds no evaluation, none is of ``residual``, or one was not run under the conditions
            of the board.
        SettingsError: an evaluation is not finished.
    """
    found = [evaluation for folder in folders for evaluation in _in_folder(folder)]
    names = sorted({evaluation.settings["residual"] for evaluation in found})
    chosen = [e for e in found if residual in (None, e.settings["residual"])]
    if found and not chosen:
        raise LeaderboardError(f"no evaluation of the residual {residual!r}: there are {', '.join(names)}")
    for evaluation in chosen:
        _check_conditions(evaluation)
    return chosen


def _in_folder(folder: Path) -> list[Evaluation]:
    """The evaluation in ``folder``, or those of the comparison in it."""
    if not (folder / RUNS).is_dir():
        return [_read(folder)]
    hashes = finished_summary(folder, "python -m baselines compare ...")["hashes"]
    runs = [_read(path.parent) for path in sorted((folder / RUNS).glob(f"*/{SETTINGS_FILE}"))]
    return [run for run in runs if _was_compared(run.settings, hashes)]


def _was_compared(settings: Record, hashes: Record) -> bool:
    """Whether the comparison with these ``hashes`` used this run: its folder may also hold runs of earlier policies."""
    own = settings["hashes"]
    return own["simulation"] == hashes["simulation"] and all(
        own["base"][task] == hashes["base"].get(task) and own["residual"][task] in (None, hashes["residual"].get(task))
        for task in settings["tasks"]
    )


def _read(folder: Path) -> Evaluation:
    summary = finished_summary(folder)
    try:
        settings = read_json(folder / SETTINGS_FILE)
        known = settings.keys() >= _SETTINGS and summary.keys() >= _SUMMARY
    except (OSError, ValueError, AttributeError):
        known = False
    if not known:
        raise LeaderboardError(
            f"{folder} holds no evaluation of `oc-residual evaluate` in this version: give its --out, or run it again"
        )
    return Evaluation(folder, settings, summary)


def _check_conditions(evaluation: Evaluation) -> None:
    settings = evaluation.settings
    if settings["split"] != SPLIT:
        raise LeaderboardError(f"{evaluation.folder} ran the split {settings['split']!r}; the board has {SPLIT!r}")
    domain, errors = settings["domain"], settings["errors"]
    if errors != ERRORS[domain]:
        raise LeaderboardError(
            f"{evaluation.folder} ran {domain} under {errors!r} errors; the board has it under {ERRORS[domain]!r}"
        )


def cell_rows(evaluations: Sequence[Evaluation]) -> dict[BoardCell, CellRows]:
    """Cell to its rows in ``evaluations``.

    Raises:
        LeaderboardError: a cell was run with several policies, or a row has several results.
    """
    found: dict[BoardCell, CellRows] = {}
    for evaluation in evaluations:
        settings, rows = evaluation.settings, read_episodes(evaluation.folder / EPISODES_FILE)
        for task in settings["tasks"]:
            cell = BoardCell(task, settings["domain"])
            base, residual = (settings["hashes"][kind][task] for kind in ("base", "residual"))
            own = {row["seed"]: row for row in rows if row["task"] == task}
            new = CellRows(cell, settings["base"], settings["residual"], base, residual, own, (evaluation,))
            found[cell] = _joined(found[cell], new) if cell in found else new
    return found


def _joined(one: CellRows, other: CellRows) -> CellRows:
    """Join two parts of the same cell."""
    where = f"{one.cell.task} in {one.cell.domain}"
    for kind in ("base", "residual"):
        names = [getattr(part, kind) for part in (one, other)]
        hashes = [getattr(part, f"{kind}_sha256") for part in (one, other)]
        if hashes[0] != hashes[1] or (hashes[0] is None and names[0] != names[1]):
            choice = "choose one with --residual, or " if kind == "residual" else ""
            used = [f"{name} in {part.evaluations[-1].folder}" for name, part in zip(names, (one, other), strict=True)]
            raise LeaderboardError(
                f"{where} was run with several {kind} policies ({', '.join(used)}): {choice}give the evaluations of one"
            )
    for seed in set(one.episodes) & set(other.episodes):
        first, second = (
            {k: v for k, v in part.episodes[seed].items() if k not in ("base", "residual")} for part in (one, other)
        )
        if first != second:
            folders = " and ".join(str(part.evaluations[-1].folder) for part in (one, other))
            raise LeaderboardError(f"{where}, seed {seed}: {folders} have different results; give one of them")
    episodes, evaluations = one.episodes | other.episodes, one.evaluations + other.evaluations
    return CellRows(one.cell, one.base, one.residual, one.base_sha256, one.residual_sha256, episodes, evaluations)


def described(evaluations: Sequence[Evaluation]) -> Record:
    """Platform and commands of the evaluations, as entry.json holds them.

    Raises:
        LeaderboardError: the evaluations were run on different platforms.
    """
    first = evaluations[0]
    for other in evaluations:
        if found := differences(_platform(first), _platform(other)):
            raise LeaderboardError(
                f"{first.folder} and {other.folder} differ in {'; '.join(found)}: run the rows of one entry with one "
                "version of everything, on one kind of machine"
            )
    commits = {evaluation.summary["commit"] for evaluation in evaluations}
    return _platform(first) | {
        "commit": commits.pop() if len(commits) == 1 else None,  # commits do not matter if the simulation is the same
        "commands": sorted({str(e.summary["command"]) for e in evaluations if e.summary["command"]}),
    }


def _platform(evaluation: Evaluation) -> Record:
    return {
        "versions": evaluation.settings["versions"],
        "machine": evaluation.summary["machine"],
        "simulation": evaluation.settings["hashes"]["simulation"],
    }
