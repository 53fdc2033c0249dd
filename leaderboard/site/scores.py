"""Scores of entries in a track: success rates, their mean, paired differences, and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leaderboard.entry import Entry
from leaderboard.tracks import TRACKS, BoardCell
from oc_residual_gym.evaluation.episodes import cells
from oc_residual_gym.evaluation.statistics import Estimate, stratified_bootstrap
from oc_residual_gym.files import Record


@dataclass(frozen=True)
class Score:
    """Results of one entry in one track in simulation."""

    cells: dict[BoardCell, Record]
    """The evaluator's summary of each cell, in the order of the track."""
    successes: dict[BoardCell, NDArray[np.float64]]
    """Cell to (episodes,) of 0 or 1, in the order of seeds."""
    mean: Estimate
    """Mean of the success rates of all cells."""


@dataclass(frozen=True)
class Difference:
    """Success rate of a second entry minus that of a first one, on the same rows."""

    cells: dict[BoardCell, Estimate]
    mean: Estimate

    @property
    def first_is_better(self) -> bool:
        return self.mean.high < 0

    @property
    def second_is_better(self) -> bool:
        return self.mean.low > 0


Differences = Mapping[tuple[str, str], Difference]
"""Ids of the first and the second entry, in alphabetical order, to their difference."""


def score(entry: Entry, track: str) -> Score:
    """Read the rows of an entry in ``track`` and compute its score."""
    rows = entry.rows(track)
    summaries = {BoardCell(summary["task"], summary["domain"]): summary for summary in cells(rows)}
    successes = {cell: _successes(rows, cell) for cell in TRACKS[track].cells}
    return Score(
        {cell: summaries[cell] for cell in TRACKS[track].cells},
        successes,
        stratified_bootstrap({str(cell): values for cell, values in successes.items()}, (0.0, 1.0)),
    )


def difference(first: Score, second: Score) -> Difference:
    """Compare two entries as ``oc_residual_gym.evaluation.pairing.paired_rates`` does, per cell and in the mean."""
    by_cell = {cell: second.successes[cell] - values for cell, values in first.successes.items()}
    return Difference(
        {cell: stratified_bootstrap({"": values}, (-1.0, 1.0)) for cell, values in by_cell.items()},
        stratified_bootstrap({str(cell): values for cell, values in by_cell.items()}, (-1.0, 1.0)),
    )


def ranks(ids: Sequence[str], differences: Differences) -> dict[str, int]:
    """Rank of each entry: one plus the number of entries in ``ids`` that are better with an interval that excludes
    zero.

    Entries of the same rank are beaten by the same number of others; one of them may still be better than the other.
    Entries of neighbouring ranks need not differ significantly.
    """

    def is_better(one: str, other: str) -> bool:
        if one < other:
            return differences[one, other].first_is_better
        return differences[other, one].second_is_better

    return {mine: 1 + sum(is_better(other, mine) for other in ids if other != mine) for mine in ids}


def _successes(rows: Sequence[Record], cell: BoardCell) -> NDArray[np.float64]:
    values = [(row["seed"], row["success"]) for row in rows if (row["task"], row["domain"]) == (cell.task, cell.domain)]
    return np.array([success for _, success in sorted(values)], dtype=np.float64)
