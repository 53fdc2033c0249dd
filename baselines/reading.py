"""Tables on a comparison's episodes beyond success rates: failures by kind, corrections, contact forces, time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from oc_residual_gym.evaluation.episodes import cells
from oc_residual_gym.evaluation.pairing import means_of
from oc_residual_gym.evaluation.report import markdown_table
from oc_residual_gym.files import Record

Sides = Mapping[str, Sequence[Record]]
"""Episodes by side: "base", "residual" and "oracle"."""

_HEAD = ("world, pose errors", "task")
_FAILURES = """### Failures

Failed episodes by kind. `no_...` names the first milestone that was never reached; in `not_held` all were reached, but
success did not last, or came too late; in `robot_reflex` the arm pressed too hard. "Removed" is the share of the base
policy's failures that the residual avoids, net of new ones."""
_CORRECTIONS = """### Corrections

Mean size of the residual's correction, and of its change between control steps (50 ms), which is small if the residual
moves smoothly. The oracle's values are in brackets."""
_FORCES = """### Contact force

Peak net contact force on the hand per episode, in N: mean over episodes, with the maximum in brackets."""
_STEPS = """### Steps to success

Mean number of control steps (50 ms) of successful episodes, including the 0.5 s for which success must hold. The
policies succeed in different episodes."""


def reading(scenarios: Mapping[str, Sides]) -> str:
    """Write the section "Reading the results" in Markdown, from the episodes of each scenario."""
    sides = list(next(iter(scenarios.values())))
    summaries = {
        scenario: {side: {cell["task"]: cell for cell in cells(episodes)} for side, episodes in group.items()}
        for scenario, group in scenarios.items()
    }

    def table(columns: Sequence[str], entries: Callable[[Mapping[str, Record]], list[str]]) -> str:
        """One line per scenario and task; ``entries`` gets the task's summaries by side."""
        lines = [
            [scenario, task, *entries({side: by_task[task] for side, by_task in by_side.items()})]
            for scenario, by_side in summaries.items()
            for task in by_side["base"]
        ]
        return markdown_table([*_HEAD, *columns], lines, names=2)

    return "\n".join(
        [
            "## Reading the results",
            "",
            _FAILURES,
            "",
            _failures_table(summaries, sides),
            _CORRECTIONS,
            "",
            table(["size, mm", "size, degrees", "change, mm", "change, degrees"], _corrections),
            _FORCES,
            "",
            table(sides, lambda group: [_force(group[side]) for side in sides]),
            _STEPS,
            "",
            table(sides, lambda group: [_steps(group[side]) for side in sides]),
        ]
    )


def _failures_table(summaries: Mapping[str, Mapping[str, Mapping[str, Record]]], sides: Sequence[str]) -> str:
    """Table of failures per task, and summed over the tasks of each mean."""
    lines = []
    for scenario, by_side in summaries.items():
        tasks = list(by_side["base"])
        for name, members in ({task: [task] for task in tasks} | dict(means_of(tasks))).items():
            failures = {
                side: sum((Counter(by_task[task]["failures"]) for task in members), Counter[str]())
                for side, by_task in by_side.items()
            }
            before, after = failures["base"].total(), failures["residual"].total()
            removed = f"{100.0 * (before - after) / before:.0f} %" if before else ""
            lines.append([scenario, name, *(_kinds(failures[side], name in tasks) for side in sides), removed])
    return markdown_table([*_HEAD, *sides, "removed"], lines, names=2)


def _kinds(failures: Counter[str], named: bool) -> str:
    """Format failures as "7: no_grasp 5, not_held 2", or as the number alone."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in failures.most_common())
    return f"{failures.total()}: {kinds}" if kinds and named else str(failures.total())


def _corrections(group: Mapping[str, Record]) -> list[str]:
    entries = []
    for key in ("mean_correction", "mean_correction_change"):
        mm = [group[side][f"{key}_mm"] for side in ("residual", "oracle")]
        degrees = [math.degrees(group[side][f"{key}_rad"]) for side in ("residual", "oracle")]
        entries += [f"{residual:.2f} ({oracle:.2f})" for residual, oracle in (mm, degrees)]
    return entries


def _force(cell: Record) -> str:
    return f"{cell['mean_peak_contact_force']:.1f} ({cell['max_peak_contact_force']:.0f})"


def _steps(cell: Record) -> str:
    return "none succeeded" if cell["mean_steps"] is None else f"{cell['mean_steps']:.0f}"
