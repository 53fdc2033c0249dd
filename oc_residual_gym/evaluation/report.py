"""Output of comparisons: Markdown tables and a bar plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oc_residual_gym.files import Record, write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("0.72", "tab:blue", "tab:green")
"""Bar colours, in the order of the sides."""


def percent(estimate: Mapping[str, float], sign: str = "") -> str:
    """Format a mean and its interval in percent, as "87.0 [83.8, 89.7]"; with ``sign="+"`` the mean has a sign."""
    mean, low, high = (100.0 * estimate[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.1f} [{low:.1f}, {high:.1f}]"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Markdown table, padded for reading as text; the first ``names`` columns are left-aligned, the rest right."""
    rule = ["---" if column < names else "---:" for column in range(len(head))]
    lines = [head, rule, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "| "
        + " | ".join(
            f"{text:{'<' if column < names else '>'}{width}}"
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |\n"
        for line in lines
    )


def plot_rates(path: Path, panels: Mapping[str, Sequence[Record]], sides: Mapping[str, str]) -> None:
    """Plot success rates with their intervals as grouped bars, into a PNG file.

    Args:
        path: the file to write.
        panels: panel title to records of :func:`~oc_residual_gym.evaluation.pairing.paired_rates`, from top to bottom.
        sides: side name in the records to its label in the legend.
    """
    from matplotlib.figure import Figure  # slow to import, and used nowhere else

    columns = max(map(len, panels.values()))
    figure = Figure(figsize=(1.35 * columns + 2.0, 2.7 * len(panels) + 0.6), layout="constrained")
    width = 0.8 / len(sides)
    for axes, (title, records) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        for i, ((side, label), colour) in enumerate(zip(sides.items(), COLOURS, strict=False)):
            rates = [record[side] for record in records]
            heights = [rate["mean"] for rate in rates]
            below = [max(0.0, rate["mean"] - rate["low"]) for rate in rates]  # rounding may leave -1e-17
            above = [max(0.0, rate["high"] - rate["mean"]) for rate in rates]
            positions = [column + width * (i - 0.5 * (len(sides) - 1)) for column in range(len(records))]
            bars = {"yerr": [below, above], "capsize": 2.5, "ecolor": "0.25", "color": colour, "label": label}
            axes.bar(positions, heights, 0.92 * width, **bars)
        axes.set_xticks(range(len(records)), [record["task"].replace(" five ", " five\n") for record in records])
        axes.set_xlim(-0.6, len(records) - 0.4)
        axes.set_ylim(0.0, 1.05)
        axes.set_ylabel("success rate, 95 % interval")
        axes.set_title(title, loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(sides), frameon=False)
    save_figure(figure, path, dpi=150)


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as a PNG file, atomically."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    write_bytes(path, image.getvalue())
