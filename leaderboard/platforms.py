"""The platform on which rows are run: the same platform gives bitwise identical rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco

from leaderboard import LeaderboardError
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.evaluation.provenance import MEASURED_MUJOCO
from oc_residual_gym.files import Record


def check_mujoco() -> None:
    """Check that this environment simulates as published figures were made. Raises ``LeaderboardError`` otherwise."""
    if mujoco.__version__ != MEASURED_MUJOCO:
        here = f"this environment has {mujoco.__version__}"
        raise LeaderboardError(
            f"published figures were made with MuJoCo {MEASURED_MUJOCO}, and {here}: "
            "pip install -c constraints.txt -e '.[leaderboard]' in an environment of its own"
        )


def current_platform() -> Record:
    """The platform of this machine, as verifications hold it."""
    return {
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "simulation": provenance.simulation_hash(),
        "commit": provenance.commit(),
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Differences of two platforms on which results depend, in words; empty if they are the same.

    Both have "machine", "versions" and "simulation", as in entry.json and in verifications.
    """
    mine, theirs = identity(one), identity(other)
    names = {**mine, **theirs}
    return [f"{n} ({mine.get(n)}; {theirs.get(n)})" for n in names if mine.get(n) != theirs.get(n)]


def identity(platform: Mapping[str, Any]) -> Record:
    """Name to value of everything in ``platform`` on which results depend."""
    machine = platform["machine"]
    names = {"system": machine["system"], "processor": machine["processor"], "simulation": platform["simulation"]}
    return names | platform["versions"]
