"""The board: all entries with their scores, ranks and verification status."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm.contrib.concurrent import thread_map

from leaderboard.entry import Entry, verification_of
from leaderboard.site.markup import by_task
from leaderboard.site.scores import Difference, Score, difference, ranks, score
from leaderboard.tracks import REAL, TRACKS, BoardCell, Track
from leaderboard.verdict import ACCEPTED, DEVIATING
from oc_residual_gym.evaluation.statistics import wilson
from oc_residual_gym.files import Record

VERIFIED = (ACCEPTED, DEVIATING)
"""Verdicts that confirm an entry."""
MOST_RISK = 0.1
"""Maximum chance, for a ranked entry, that the verified sample misses 5 % false rows in a cell; 43 rows of 500 are
enough."""
MOST_THREADS = 8
"""Maximum number of threads that compare entries; each needs some 100 MB."""


@dataclass(frozen=True)
class Status:
    """What the board says about the verification of an entry."""

    kind: str
    """Class of the badge: verified, deviating, rejected, open or real."""
    word: str
    about: str
    """One sentence."""


AS_RECORDED = Status("real", "cannot be re-run", "Trials on a real robot, as the authors recorded them.")


@dataclass(frozen=True)
class Method:
    """One entry as the site shows it."""

    entry: Entry
    verification: Record | None
    scores: dict[str, Score]
    """Track in simulation to its score."""

    @property
    def id(self) -> str:
        return self.entry.id

    @property
    def content(self) -> dict[str, Any]:
        return self.entry.content

    @property
    def status(self) -> Status:
        return status(self.verification, bool(self.scores))

    @property
    def is_verified(self) -> bool:
        return self.verification is not None and self.verification["verdict"] in VERIFIED

    @property
    def is_ranked(self) -> bool:
        return self.is_verified and not self.content["reference"] and self._is_sampled_enough

    @property
    def _is_sampled_enough(self) -> bool:
        sample = self.verification and self.verification["sample"]
        return sample is None or sample["risk"]["0.05"] <= MOST_RISK

    @property
    def trials(self) -> dict[str, dict[str, Record]]:
        """Task to condition to "successes", "trials" and the success rate "mean", "low", "high"."""
        claimed = self.content["tracks"].get(REAL, {"trials": {}})["trials"]
        return {
            task: {
                condition: counts | asdict(wilson(counts["successes"], counts["trials"]))
                for condition, counts in conditions.items()
            }
            for task, conditions in by_task(claimed)
        }


@dataclass(frozen=True)
class Line:
    """One line of a track's table."""

    method: Method
    score: Score
    rank: int | None
    """None for references and for entries that are not verified."""
    shared: bool
    """Whether others have the same rank."""


@dataclass(frozen=True)
class Board:
    """Everything that the pages show."""

    methods: list[Method]
    """Sorted by id."""
    differences: dict[str, dict[tuple[str, str], Difference]]
    """Track to the ids of two entries, in alphabetical order, to the success of the second minus that of the first."""

    def lines(self, track: str) -> list[Line]:
        """The table of a track in simulation: best mean first, unverified entries last."""
        methods = [method for method in self.methods if track in method.scores]
        placed = ranks([method.id for method in methods if method.is_ranked], self.differences[track])
        taken = list(placed.values())
        lines = [
            Line(method, method.scores[track], placed.get(method.id), taken.count(placed.get(method.id, 0)) > 1)
            for method in methods
        ]
        return sorted(lines, key=lambda line: (not line.method.is_verified, -line.score.mean.mean, line.method.id))

    def real(self) -> list[Method]:
        """The entries with trials on real robots."""
        return [method for method in self.methods if method.trials]


def make_board(entries: Sequence[Entry], verifications: Path) -> Board:
    """Score all entries and compare every pair of them, with a progress bar."""
    methods = [
        Method(
            entry,
            verification_of(entry, verifications),
            {track: score(entry, track) for track in entry.tracks if TRACKS[track].cells},
        )
        for entry in sorted(entries, key=lambda entry: entry.id)
    ]
    pairs = [
        (track, first, second)
        for first, second in combinations(methods, 2)
        for track in first.scores
        if track in second.scores
    ]
    # NumPy releases Python's lock while it draws, so threads are enough.
    found = thread_map(
        lambda pair: difference(pair[1].scores[pair[0]], pair[2].scores[pair[0]]),
        pairs,
        desc="comparing",
        unit="pair",
        max_workers=min(MOST_THREADS, os.cpu_count() or 1),
        disable=None,
    )
    differences: dict[str, dict[tuple[str, str], Difference]] = {track: {} for track in TRACKS}
    for (track, first, second), result in zip(pairs, found, strict=True):
        differences[track][first.id, second.id] = result
    return Board(methods, differences)


def status(verification: Record | None, simulated: bool) -> Status:
    """The status of an entry with this record of its verification.

    Args:
        verification: the record of ``verify`` for exactly this content; None if there is none.
        simulated: whether the entry has any track that can be run again.
    """
    if not simulated:
        return AS_RECORDED
    if verification is None:
        return Status("open", "not verified", "The maintainers have not run it again yet.")
    rows, total, verdict = verification["rows"], verification["total"], verification["verdict"]
    extent = f"all {total} rows" if verification["sample"] is None else f"a random sample of {rows} of {total} rows"
    word = "" if verification["sample"] is None else ", sample"
    if verdict == ACCEPTED:
        about = f"The maintainers ran {extent} again: identical in all values."
        return Status("verified", f"verified{word}", about)
    if verdict == DEVIATING:
        about = f"The maintainers ran {extent} again on another platform, where only success can be judged: "
        about += f"{verification['reason']}."
        return Status("deviating", f"deviating{word}", about)
    return Status("rejected", "rejected", f"The maintainers could not confirm it: {verification['reason']}.")


def cell_name(track: Track, cell: BoardCell) -> str:
    """Name of a cell in the tables of ``track``."""
    worlds = {other.domain for other in track.cells}
    return cell.task if len(worlds) == 1 else f"{cell.task}, {cell.domain}"
