"""The algorithms that train residual policies: one file per algorithm, each with one record that says all of it.

To add one, write ``NAME.py`` here with its ``ALGORITHM``, ``settings/NAME.toml`` with its settings, and its name below.
Importing this package is cheap: an algorithm's file is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baselines.residual.algorithms.base import Algorithm

ALGORITHMS = ("sac", "td3", "ppo")


def load_algorithm(name: str) -> Algorithm:
    """The record of the algorithm ``name``, one of ``ALGORITHMS``."""
    algorithm: Algorithm = importlib.import_module(f"{__name__}.{name}").ALGORITHM
    return algorithm
