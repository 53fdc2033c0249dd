"""The tracks of the board: which cells an entry must have run to be listed in each.

A cell of the board is one task in one physics domain under one pose error model, on all rows (seeds) of the split
``test``. The version of the package fixes the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from oc_residual_gym.envs.episodes import SPLITS
from oc_residual_gym.tasks import PAPER_TASKS

SPLIT = "test"
EPISODES = SPLITS[SPLIT] or 0
"""Rows per cell: all seeds of the split."""
REAL = "real-robot"
"""Name of the track without rows."""
ERRORS = {"nominal": "paper", "twin": "tracker"}
"""The pose error model that goes with each physics domain."""


@dataclass(frozen=True, order=True)
class BoardCell:
    """One cell of the board's tables: one task in one physics domain."""

    task: str
    domain: str

    @property
    def errors(self) -> str:
        """Its pose error model."""
        return ERRORS[self.domain]


@dataclass(frozen=True)
class Track:
    """One table of the board."""

    name: str
    """Name in entry files and URLs."""
    title: str
    about: str
    cells: tuple[BoardCell, ...]
    """Empty for real robots: their trials cannot be run again."""


TRACKS = {
    track.name: track
    for track in (
        Track(
            "simulation",
            "Simulation",
            "The paper's five tasks in nominal physics, under the pose errors of the paper.",
            tuple(BoardCell(task, "nominal") for task in PAPER_TASKS),
        ),
        Track(
            "zero-shot",
            "Zero-shot transfer",
            "The same five tasks in the held-out, shifted physics domain, under the errors of a pose tracker. "
            "Nothing is trained or tuned in it.",
            tuple(BoardCell(task, "twin") for task in PAPER_TASKS),
        ),
        Track(
            "precision",
            "Precision",
            "PegInsert, a round peg in a hole with 1 mm of play: in nominal physics under the pose errors of the "
            "paper, and in the shifted domain under those of a tracker.",
            tuple(BoardCell("PegInsert", domain) for domain in ERRORS),
        ),
        Track(
            REAL,
            "Real robot",
            "Blind trials on a Franka Research 3, as their authors recorded them. They cannot be run again here.",
            (),
        ),
    )
}
