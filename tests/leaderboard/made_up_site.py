"""A site of made-up entries, one of them hostile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up import HASH, make_entry

from leaderboard import tracks
from leaderboard.entry import Entry
from leaderboard.site.build import build
from oc_residual_gym.evaluation import statistics
from oc_residual_gym.files import write_json

EPISODES = 60
RESAMPLES = 500
HOSTILE = "constructor"
"""Id of the hostile entry: the name of a property of every JavaScript object."""
HOSTILE_NAME = "<img src=x onerror='window.hacked=1'></script>"
HOSTILE_TEXT = '</script><script>window.hacked = 1</script> \u2028 {{ 7 * 7 }} " onmouseover="window.hacked=1'
HOSTILE_LINK = "javascript:window.hacked=1"
TRIALS = {"Lift": {"base": {"successes": 4, "trials": 20}, "residual": {"successes": 15, "trials": 20}}}


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Few rows per cell and few resamples, for quick tests."""
    patch.setattr(tracks, "EPISODES", EPISODES)
    patch.setattr(statistics, "RESAMPLES", RESAMPLES)


def make_entries(root: Path, verifications: Path) -> list[Entry]:
    """A reference, four methods (two of them alike, one on another base, one rejected), and a hostile one."""
    base = make_entry(root / "base-alone", 0.45, reference=True, name="Base alone", training=None)
    strong = make_entry(root / "strong", 0.9, name="Strong residual", trials=TRIALS)
    alike = make_entry(
        root / "alike", 0.9, name="Alike residual", base={"name": "vla-v0", "files": False, "sha256": {}}
    )
    weak = make_entry(root / "weak", 0.6, name="Weak residual", tracks=("simulation",))
    false = make_entry(root / "false-claim", 0.98, name="False claim", tracks=("simulation",))
    hostile = make_entry(
        root / HOSTILE,
        0.55,
        name=HOSTILE_NAME,
        description=f"First paragraph,\nfolded.\n\n{HOSTILE_TEXT}",
        authors=[HOSTILE_TEXT],
        code=HOSTILE_LINK,
        paper="data:text/html,<script>window.hacked=1</script>",
    )
    sample = {"rows_per_cell": 30, "seed": 123, "risk": {"0.01": 0.5, "0.05": 0.09, "0.1": 0.01}}
    write_record(base, verifications, "accepted")
    write_record(strong, verifications, "accepted")
    write_record(alike, verifications, "accepted", sample=sample)
    write_record(weak, verifications, "deviating", same_platform=False)
    write_record(false, verifications, "rejected", reason="success differs in 12 rows of Lift, nominal")
    return [base, strong, alike, weak, false, hostile]


def write_record(entry: Entry, verifications: Path, verdict: str, **values: Any) -> None:
    """Write a verification record as ``verify`` would."""
    counted = {"rows": 60, "identical": 60, "flips": 0}
    cell = {"task": "Lift", "domain": "nominal", **counted, "claimed_successes": 50, "successes": 50}
    machine = {"system": "Linux", "processor": "another processor", "cores": 2}
    record = {
        "entry": entry.id,
        "entry_sha256": entry.sha256,
        "verdict": verdict,
        "reason": "what was found, in words",
        "date": "2026-12-01",
        **counted,
        "total": 60,
        "sample": None,
        "same_platform": True,
        "flip_rate": 0.0,
        "cells": [cell],
        "minutes": 31.5,
        "platform": {"machine": machine, "versions": {}, "simulation": HASH, "commit": None},
    }
    write_json(verifications / f"{entry.id}.json", record | values)


def make_site(folder: Path) -> Path:
    """Build the site of the made-up entries in ``folder``; return where it is."""
    build(make_entries(folder / "entries", folder / "verifications"), folder / "site", folder / "verifications")
    return folder / "site"
