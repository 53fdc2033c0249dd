"""What the arm's process may do next: its phases, and the steps between them that are legal."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Phase(StrEnum):
    """What the arm is doing."""

    REST = "rest"
    """Nothing moves it, and nothing is wrong."""
    TRACKING = "tracking"
    """It follows targets."""
    HOMING = "homing"
    """It is on the way to the home posture."""
    STOPPING = "stopping"
    """Control is being given up, after a fault or at an episode's end."""
    STOPPED = "stopped"
    """At rest after a fault, or out of reach: no target moves it."""


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
"""For each phase, those that may follow, and when they do."""


def follow(phase: Phase, after: Phase) -> Phase:
    """``after``, which may follow ``phase``; a phase may follow itself. Raises ``RuntimeError`` where it may not."""
    if after is not phase and after not in NEXT[phase]:
        raise RuntimeError(f"an arm in the phase {phase.value!r} cannot go on to {after.value!r}")
    return after
