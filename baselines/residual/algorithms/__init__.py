"""Algorithms that train residual policies: one file per algorithm, each with one record that describes it.

To add one, write ``NAME.py`` here with an ``ALGORITHM``, write ``settings/NAME.toml``, and add the name below.
Importing this package is cheap: an algorithm's file is imported only when needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baselines.residual.algorithms.base import Algorithm

ALGORITHMS = ("sac", "td3", "ppo")
TEACHERS = ("planner", "oracle", "none")
"""Residual policies that an algorithm can imitate first; PPO has no teacher."""


def load_algorithm(name: str) -> Algorithm:
    """Load the record of the algorithm ``name``, one of :data:`ALGORITHMS`."""
    algorithm: Algorithm = importlib.import_module(f"{__name__}.{name}").ALGORITHM
    return algorithm
