"""The picture of a comparison: each task a line, with a bar from one policy's success to the other's."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oc_residual_gym.evaluation.pairing import headline, mean_name
from oc_residual_gym.evaluation.report import save_figure
from oc_residual_gym.files import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAIN, LOSS = "#a9cbe8", "#f4b6b0"
"""Colours of the bar between the first two sides: to the better, and to the worse."""
MARKS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "color": "0.45", "markersize": 10},
    {"marker": "o", "color": "tab:blue", "markersize": 7},
    {"marker": "D", "color": "tab:orange", "markersize": 5},
    {"marker": "v", "color": "tab:green", "markersize": 6},
)
"""How each side is marked. Where the first two are equal, the first one is a ring around the second."""
LEVELS = (0.0, 0.0, -0.27, 0.27)
"""Heights of the marks in their line, which is 1 high: the third side below the bar, the fourth above it."""


def lines_of(panels: Mapping[str, Sequence[Record]]) -> list[str]:
    """Names of the picture's lines from top to bottom.

    The mean that sums up comes first, then the tasks by the first panel's "difference", the largest first. Tasks
    without one come last.
    """
    records = next(iter(panels.values()))
    summary = headline(records)
    tasks = [record for record in records if len(record["tasks"]) == 1]
    measured = [record for record in tasks if record["difference"] is not None]
    measured.sort(key=lambda record: -record["difference"]["mean"])
    ordered = [*measured, *(record for record in tasks if record["difference"] is None)]
    return [record["task"] for record in ([summary, *ordered] if summary not in tasks else ordered)]


def plot_dumbbells(path: Path, panels: Mapping[str, Sequence[Record]], sides: Mapping[str, str]) -> None:
    """Plot success rates with their 95 % intervals into a PNG file, one panel beside the other.

    A bar joins the first two sides, with their rates in numbers at the right; the others are marked below and above.

    Args:
        path: the file to write.
        panels: panel title to records of :func:`~oc_residual_gym.evaluation.pairing.paired_rates`, of the same tasks.
        sides: side name in the records to its label in the legend; two to four.
    """
    from matplotlib.figure import Figure  # slow to import, and used nowhere else

    lines = lines_of(panels)
    figure = Figure(figsize=(1.6 + 4.4 * len(panels), 1.3 + 0.52 * len(lines)), layout="constrained")
    for axes, (title, records) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        by_name = {record["task"]: record for record in records}
        for y, name in enumerate(reversed(lines)):
            _draw_line(axes, y, by_name[name], list(sides))
        axes.set_title(title, loc="left", fontsize="large", pad=10)
        axes.set_xlim(-2.0, 102.0)
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlabel("success in %, 95 % intervals")
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        first = axes is figure.axes[0]
        axes.set_yticks(range(len(lines)), [_label(by_name[name]) if first else "" for name in reversed(lines)])
    keys = [
        figure.axes[0].plot([], [], linestyle="none", label=label, **mark)[0]
        for (side, label), mark in zip(sides.items(), MARKS, strict=False)
        if any(record[side] for records in panels.values() for record in records)
    ]
    columns = len(keys) if len(panels) > 1 else 1
    figure.legend(handles=keys, loc="outside upper center", ncols=columns, frameon=False)
    save_figure(figure, path, dpi=150)


def _label(record: Record) -> str:
    return record["task"] if len(record["tasks"]) == 1 else textwrap.fill(f"mean of {mean_name(record)}", 18)


def _draw_line(axes: Axes, y: float, record: Record, sides: Sequence[str]) -> None:
    """Draw one task's bar, marks, and both ends in numbers at the right."""
    before, after = (record[side] and 100.0 * record[side]["mean"] for side in sides[:2])
    if len(record["tasks"]) > 1:
        axes.axhspan(y - 0.5, y + 0.5, color="0.95", zorder=0)
    if before is not None and after is not None:
        colour = GAIN if after >= before else LOSS
        axes.plot([before, after], [y, y], color=colour, linewidth=7, solid_capstyle="butt", zorder=2)
    for side, mark, level in zip(sides, MARKS, LEVELS, strict=False):
        if (rate := record[side]) is None:
            continue
        mean, low, high = (100.0 * rate[key] for key in ("mean", "low", "high"))
        spread = [[max(0.0, mean - low)], [max(0.0, high - mean)]]  # rounding may leave -1e-17
        axes.errorbar([mean], [y + level], xerr=spread, elinewidth=1.2, zorder=3, clip_on=False, **mark)
    numbers = [f"{round(value, 1):g}" for value in (before, after) if value is not None]
    axes.text(1.03, y, " \N{RIGHTWARDS ARROW} ".join(numbers), transform=axes.get_yaxis_transform(), va="center")
