"""Statistics that LeRobot and GR00T store beside their data, as nested lists for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Table = dict[str, np.ndarray]
"""Column name to (T,) or (T, n)."""
QUANTILES = {"q01": 0.01, "q99": 0.99}


def of_columns(values: np.ndarray) -> dict[str, list[Any]]:
    """Statistics over the rows of (T,) or (T, n): lists of one or n numbers."""
    rows = _rows(values)
    summary = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    return {**{name: value.tolist() for name, value in summary.items()}, "count": [len(rows)]}


def of_pictures(pictures: np.ndarray) -> dict[str, list[Any]]:
    """Statistics of images (T, height, width, channels) uint8, scaled to [0, 1]: lists of shape (channels, 1, 1)."""
    levels = np.arange(256) / 255.0
    summary: dict[str, list[float]] = {"min": [], "max": [], "mean": [], "std": []}
    for channel in range(pictures.shape[-1]):
        # Counting the 256 levels is exact and needs no copy in floating point.
        counts = np.bincount(pictures[..., channel].ravel(), minlength=256)
        mean = np.average(levels, weights=counts)
        summary["min"].append(levels[counts > 0].min())
        summary["max"].append(levels[counts > 0].max())
        summary["mean"].append(mean)
        summary["std"].append(np.sqrt(np.average((levels - mean) ** 2, weights=counts)))
    return {**{name: np.reshape(v, (-1, 1, 1)).tolist() for name, v in summary.items()}, "count": [len(pictures)]}


def of_dataset(tables: Sequence[Table]) -> dict[str, dict[str, list[Any]]]:
    """Statistics over all rows of ``tables``, with the quantiles that GR00T normalises by."""
    result = {}
    for name in tables[0]:
        joined = np.concatenate([table[name] for table in tables])
        quantiles = np.quantile(_rows(joined), list(QUANTILES.values()), axis=0).tolist()
        result[name] = {**of_columns(joined), **dict(zip(QUANTILES, quantiles, strict=True))}
    return result


def _rows(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).astype(np.float64)
