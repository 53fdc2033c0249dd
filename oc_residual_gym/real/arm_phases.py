"""Phases of the arm process, and the legal transitions between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Phase(StrEnum):
    """What the arm is doing."""

    REST = "rest"
    """At rest, without a fault."""
    TRACKING = "tracking"
    """Following targets."""
    HOMING = "homing"
    """Moving to the home posture."""
    STOPPING = "stopping"
    """Giving up control, after a fault or at the end of an episode."""
    STOPPED = "stopped"
    """At rest after a fault, or unreachable: targets are ignored."""


NEXT: Mapping[Phase, Mapping[Phase, str]] = {
    Phase.REST: {
        Phase.TRACKING: "a target came",
        Phase.HOMING: "asked to move home",
        Phase.STOPPING: "an error: whether the arm moves is not known",
        Phase.STOPPED: "asked to stop, or could not recover",
    },
    Phase.TRACKING: {
        Phase.STOPPING: "a fault, asked to stop, or the episode is over",
    },
    Phase.HOMING: {
        Phase.REST: "arrived",
        Phase.STOPPING: "a fault, or asked to stop",
    },
    Phase.STOPPING: {
        Phase.REST: "came to rest at an episode's end",
        Phase.STOPPED: "came to rest after a fault, or did not in time",
    },
    Phase.STOPPED: {
        Phase.REST: "recovered, or only targets had been missing",
        Phase.STOPPING: "another error: whether the arm moves is not known",
    },
}
"""For each phase, the phases that may follow, and when."""


def follow(phase: Phase, after: Phase) -> Phase:
    """Return ``after`` if it may follow ``phase`` or is the same; raises ``RuntimeError`` otherwise."""
    if after is not phase and after not in NEXT[phase]:
        raise RuntimeError(f"an arm in the phase {phase.value!r} cannot go on to {after.value!r}")
    return after
