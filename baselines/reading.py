"""Tables on a comparison's episodes beyond success rates: failures by kind, corrections, contact forces, time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

from oc_residual_gym.evaluation.episodes import cells
from oc_residual_gym.evaluation.pairing import means_of
from oc_residual_gym.evaluation.report import markdown_table, percent
from oc_residual_gym.evaluation.statistics import stratified_bootstrap
from oc_residual_gym.files import Record

Sides = Mapping[str, Sequence[Record]]
"""Episodes by side: "base", "residual", "planner" and "oracle"; the residual may lack tasks."""

Group = Mapping[str, Record | None]
"""A task's summaries by side; ``None`` where the side lacks the task."""

_HEAD = ("world, pose errors", "task")
_FAILURES = """### Failures

Failed episodes by kind. `no_...` names the first milestone that was never reached; in `not_held` all were reached, but
success did not last, or came too late; in `robot_reflex` the arm pressed too hard. "Removed" is the share of the base
policy's failures that the residual avoids, net of new ones."""
_CORRECTIONS = """### Corrections

Mean size of the residual's correction, and of its change between control steps (50 ms), which is small if the residual
moves smoothly. In brackets: the planner's, the oracle's."""
_RIVALS = """### Residual against planner

The planner learns nothing: what the residual does better is what learning is worth. Residual minus planner, paired by
episode: success in points, peak contact force in N, and control steps where both succeed."""
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

    def table(columns: Sequence[str], entries: Callable[[Group], list[str]]) -> str:
        """One line per scenario and task."""
        lines = [
            [scenario, task, *entries({side: by_task.get(task) for side, by_task in by_side.items()})]
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
            _RIVALS,
            "",
            _rivals_table(scenarios),
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
        means = means_of(tasks, list(by_side["residual"]))
        for name, members in ({task: [task] for task in tasks} | means).items():
            failures = {
                side: sum((Counter(by_task[task]["failures"]) for task in members), Counter[str]())
                for side, by_task in by_side.items()
                if set(members) <= set(by_task)
            }
            removed = ""
            if "residual" in failures and (before := failures["base"].total()):
                removed = f"{100.0 * (before - failures['residual'].total()) / before:.0f} %"
            kinds = [_kinds(failures[side], name in tasks) if side in failures else "" for side in sides]
            lines.append([scenario, name, *kinds, removed])
    return markdown_table([*_HEAD, *sides, "removed"], lines, names=2)


def _kinds(failures: Counter[str], named: bool) -> str:
    """Format failures as "7: no_grasp 5, not_held 2", or as the number alone."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in failures.most_common())
    return f"{failures.total()}: {kinds}" if kinds and named else str(failures.total())


def _rivals_table(scenarios: Mapping[str, Sides]) -> str:
    """Residual minus planner per task: success, peak contact force, and steps in the episodes that both solve."""
    lines = []
    for scenario, sides in scenarios.items():
        planned = {(episode["task"], episode["seed"]): episode for episode in sides["planner"]}
        pairs: dict[str, list[tuple[Record, Record]]] = {}
        for episode in sides["residual"]:
            pairs.setdefault(episode["task"], []).append((planned[episode["task"], episode["seed"]], episode))
        for task, group in pairs.items():
            success = [after["success"] - before["success"] for before, after in group]
            force = [after["peak_contact_force"] - before["peak_contact_force"] for before, after in group]
            steps = [
                after["steps"] - before["steps"] for before, after in group if before["success"] and after["success"]
            ]
            points = percent(asdict(stratified_bootstrap({task: success}, (-1.0, 1.0))), "+")
            lines.append([scenario, task, points, f"{fmean(force):+.1f}", f"{fmean(steps):+.0f}" if steps else ""])
    return markdown_table([*_HEAD, "success, points", "force, N", "steps"], lines, names=2)


def _corrections(group: Group) -> list[str]:
    def size(side: str, key: str, scale: float) -> str:
        cell = group[side]
        return f"{scale * cell[key]:.2f}" if cell else ""

    return [
        f"{size('residual', key, scale)} ({size('planner', key, scale)}, {size('oracle', key, scale)})".strip()
        for quantity in ("mean_correction", "mean_correction_change")
        for key, scale in ((f"{quantity}_mm", 1.0), (f"{quantity}_rad", math.degrees(1.0)))
    ]


def _force(cell: Record | None) -> str:
    return f"{cell['mean_peak_contact_force']:.1f} ({cell['max_peak_contact_force']:.0f})" if cell else ""


def _steps(cell: Record | None) -> str:
    if cell is None:
        return ""
    return "none succeeded" if cell["mean_steps"] is None else f"{cell['mean_steps']:.0f}"
