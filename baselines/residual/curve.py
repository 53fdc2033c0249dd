"""The learning curve of a training, as a table and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from oc_residual_gym.evaluation.report import save_figure
from oc_residual_gym.files import Record, write_text

TABLE_FILE, PLOT_FILE = "learning_curve.csv", "learning_curve.png"


def write_curve(folder: Path, curve: Sequence[Record]) -> None:
    """Write learning_curve.csv and learning_curve.png; ``curve`` has one record per evaluation."""
    from matplotlib.figure import Figure

    text = io.StringIO()
    writer = csv.DictWriter(text, list(curve[0]))
    writer.writeheader()
    writer.writerows(curve)
    write_text(folder / TABLE_FILE, text.getvalue())
    figure = Figure(figsize=(6.0, 3.5), layout="constrained")
    axes = figure.add_subplot()
    steps = [record["steps"] for record in curve]
    axes.plot(steps, [record["success_rate"] for record in curve], ".-")
    axes.set(xlabel="environment steps", ylabel="success on val", ylim=(-0.03, 1.03))
    save_figure(figure, folder / PLOT_FILE, dpi=120)
