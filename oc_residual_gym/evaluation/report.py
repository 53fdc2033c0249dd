"""Output of comparisons: Markdown tables, and figures as files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oc_residual_gym.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def percent(estimate: Mapping[str, float] | None, sign: str = "") -> str:
    """Format a mean and its interval in percent, as "87.0 [83.8, 89.7]"; with ``sign="+"`` the mean has a sign.

    ``None``, which was not measured, is an empty text.
    """
    if estimate is None:
        return ""
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


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure as a PNG file, atomically."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=dpi)
    write_bytes(path, image.getvalue())
