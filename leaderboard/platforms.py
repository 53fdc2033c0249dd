"""On what rows were run: the same platform gives the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco

from leaderboard import LeaderboardError
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.files import Record, differing

MUJOCO = "3.9.0"
"""The version of MuJoCo that all published figures were made with; others round otherwise, and some successes flip."""


def check_mujoco() -> None:
    """Check that this environment simulates as published figures were made. Raises ``LeaderboardError`` otherwise."""
    if mujoco.__version__ != MUJOCO:
        raise LeaderboardError(
            f"published figures were made with MuJoCo {MUJOCO}, and this environment has {mujoco.__version__}: "
            "pip install -c constraints.txt -e '.[leaderboard]' in an environment of its own"
        )


def current_platform() -> Record:
    """What rows are run on here, as verifications hold it."""
    return {
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "simulation": provenance.simulation_hash(),
        "commit": provenance.commit(),
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What is different in two platforms, in words, of what results depend on: nothing if they are the same.

    Both have "machine", "versions" and "simulation", as in entry.json and in verifications.
    """
    return [f"{key} ({mine}; {theirs})" for key, mine, theirs in differing(identity(one), identity(other))]


def identity(platform: Mapping[str, Any]) -> Record:
    """What results depend on, by name."""
    machine = platform["machine"]
    names = {"system": machine["system"], "processor": machine["processor"], "simulation": platform["simulation"]}
    return names | platform["versions"]
