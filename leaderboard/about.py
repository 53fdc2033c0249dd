"""The TOML file in which a person describes an entry."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from leaderboard import LeaderboardError
from oc_residual_gym.parsing import read_text

EXAMPLE = '''\
# Description of an entry on the board. `python -m leaderboard submit --about about.toml ...` reads it.

name = "SAC residual"  # of the method, 3 to 60 characters
description = """
How it works, for somebody who knows the field. Plain text, at least 20 characters."""
authors = ["A. Author", "B. Author"]
code = "https://example.org/code"  # leave out if not public
paper = "https://example.org/paper"
# date = "2026-11-30"  # of the submission; today by default
# reference = true  # listed for comparison, not ranked: a base policy alone, or the oracle

# Names for your own policies, whose files the entry contains. Policies of the package keep their names.
residual = "sac-residual"
# base = "my-base"

# How the policies were trained. Leave this table out if the entry contains no policy files.
[training]
seed_named = "Seed 0, in the recipe, before the first training: https://example.org/commit"
data = "nothing besides the environments"
# With --trainings, the folders of `python -m baselines train-residual`, this is all: the rest is read from them.
# For any other training code:
# hardware = "two cores of an Intel Xeon"
# seed = 0  # the same for all tasks; the policy is the last checkpoint, not the best of many
# [training.tasks.Lift]
# steps = 300000  # environment steps, summed over all worlds
# minutes = 42.0  # wall time
# curve = [[0, 0.52], [150000, 0.81], [300000, 0.93]]  # steps, success rate on val; may be empty
'''


@dataclass(frozen=True)
class About:
    """Content of the TOML file; ``EXAMPLE`` explains its fields."""

    name: str
    description: str
    authors: list[str]
    code: str | None = None
    paper: str | None = None
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    reference: bool = False
    residual: str | None = None
    base: str | None = None
    training: dict[str, Any] | None = None


def read_about(path: Path) -> About:
    """Read the file at ``path``; its values are checked later, with the entry.

    Raises:
        LeaderboardError: the file cannot be read, or has unknown or missing keys.
    """
    try:
        content = tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise LeaderboardError(f"cannot read {path}: {error}; `submit --example` prints an example") from error
    known = [f.name for f in fields(About)]
    if unknown := [key for key in content if key not in known]:
        raise LeaderboardError(f"{path}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(known)}")
    if missing := [key for key in ("name", "description", "authors") if key not in content]:
        raise LeaderboardError(f"{path}: it lacks {', '.join(missing)}; `submit --example` prints an example")
    if not isinstance(content.get("training", {}), dict):
        raise LeaderboardError(f"{path}: training must be a table; `submit --example` prints an example")
    if isinstance(content["description"], str):
        content["description"] = content["description"].strip()
    if "date" in content:
        content["date"] = str(content["date"])  # TOML has a date type
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise LeaderboardError(f"{path}: it has a value that an entry cannot hold: {error}") from error
    return About(**content)
