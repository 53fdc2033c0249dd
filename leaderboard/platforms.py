"""On what rows were run: the same platform gives the same bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from oc_residual_gym.evaluation import results
from oc_residual_gym.evaluation.results import Record

_SYSTEM = re.compile(r"-(?P<architecture>[^-]+)-with-(?P<libc>.+)$")
"""The parts of "Linux-6.1.0-x86_64-with-glibc2.36" that matter: arithmetic does not depend on the kernel."""


def current_platform() -> Record:
    """What rows are run on here, as verifications hold it."""
    return {
        "machine": results.machine(),
        "versions": results.versions(),
        "simulation": results.simulation_hash(),
        "commit": results.commit(),
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What is different in two platforms, in words, of what results depend on: nothing if they are the same.

    Both have "machine", "versions" and "simulation", as in entry.json and in verifications.
    """
    mine, theirs = _identity(one), _identity(other)
    return [
        f"{key} ({mine.get(key)}; {theirs.get(key)})" for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)
    ]


def _identity(platform: Mapping[str, Any]) -> dict[str, Any]:
    machine = platform["machine"]
    found = _SYSTEM.search(machine["system"])
    system = found.groupdict() if found else {"system": machine["system"]}
    return system | {"processor": machine["processor"], "simulation": platform["simulation"]} | platform["versions"]
