"""The result of a verification: in words, and as a file beside the entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from leaderboard.entry import ENTRIES, VERIFICATIONS, Entry, verification_of
from leaderboard.verdict import REJECTED, Rerun
from oc_residual_gym.files import Record, write_json

LISTED, NOT_VERIFIED = "listed", "not verified"
"""Outcomes that are not verdicts: for entries of real trials only, and if verification itself failed."""


@dataclass(frozen=True)
class Outcome:
    """Result of the verification of one entry."""

    id: str
    verdict: str
    reason: str

    @property
    def is_fine(self) -> bool:
        return self.verdict not in (REJECTED, NOT_VERIFIED)


def record_of(
    entry: Entry,
    platform: Record,
    verdict: str,
    reason: str,
    reruns: Sequence[Rerun] = (),
    same: bool | None = None,
) -> Record:
    """The record of a verification; by default one in which no rows were run."""
    rows, flips = sum(rerun.rows for rerun in reruns), sum(rerun.flips for rerun in reruns)
    return {
        "entry": entry.id,
        "entry_sha256": entry.sha256,
        "verdict": verdict,
        "reason": reason,
        "date": datetime.now(UTC).date().isoformat(),
        "rows": rows,
        "total": 0,
        "sample": None,
        "same_platform": same,
        "identical": sum(rerun.identical for rerun in reruns),
        "flips": flips,
        "flip_rate": flips / rows if rows else None,
        "cells": [rerun.record for rerun in reruns],
        "minutes": 0.0,
        "platform": platform,
    }


def recorded(entry: Entry, record: Record, root: Path | None) -> Outcome:
    """Write the record, unless there is one of more rows of the same content.

    Args:
        entry: the entry that was verified.
        record: from :func:`record_of`.
        root: folder of the records; by default the board's, and then entries in other folders get no record.
    """
    known, kept = verification_of(entry, root or VERIFICATIONS), ""
    if root is None and entry.folder.absolute().parent != ENTRIES:
        kept = f" (not recorded: it is not in {ENTRIES})"
    elif known and record["verdict"] != REJECTED and _shows_more(known, record):
        kept = f" (the record of {known['rows']} rows, {known['verdict']}, stays)"
    else:
        write_json((root or VERIFICATIONS) / f"{entry.id}.json", record)
    return Outcome(entry.id, record["verdict"], record["reason"] + kept)


def _shows_more(one: Record, other: Record) -> bool:
    """Whether ``one`` has more rows than ``other``, of the same simulation."""
    return one["platform"]["simulation"] == other["platform"]["simulation"] and one["rows"] > other["rows"]
