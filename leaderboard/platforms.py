"""On what rows were run: the same platform gives the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oc_residual_gym.evaluation import provenance
from oc_residual_gym.files import Record, differing


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
