"""Try the policies of an entry on made-up inputs: each file in its own process, within limits."""

from __future__ import annotations

from contextlib import closing

from leaderboard.entry import Entry
from leaderboard.limits import Limits, PolicyFailure, run_limited

ANSWER_SECONDS = 60.0
"""Seconds for loading a file, and for each round of answers: one answer per input, for as many inputs as worlds."""


def probe_policies(entry: Entry) -> list[str]:
    """Problems of the policies in ``entry``, each with its file. Call ``check_files`` first.

    Raises:
        LeaderboardError: they could not be tried, for a reason that is not theirs.
    """
    problems = []
    for kind in ("base", "residual"):
        for task in entry.tasks if entry.content[kind]["files"] else []:
            problem = _probe(entry, kind, task)
            if problem is not None:
                problems.append(f"{kind}/{task}.onnx: {problem}")
    return problems


def _probe(entry: Entry, kind: str, task: str) -> str | None:
    limits = Limits(ANSWER_SECONDS, f"it took more than {ANSWER_SECONDS:g} s to load, or for one round of answers")
    request = {"kind": kind, "task": task, "file": str(entry.policy_file(kind, task).absolute())}
    try:
        with closing(run_limited("leaderboard.probe_worker", request, limits)) as messages:
            for _ in messages:
                pass
    except PolicyFailure as error:
        return str(error)
    return None
