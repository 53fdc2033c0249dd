"""Judge an entry's claim by its re-run rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest, hypergeom

from leaderboard.entry import row_of
from leaderboard.tracks import BoardCell
from oc_residual_gym.files import Record

ACCEPTED, DEVIATING, REJECTED = "accepted", "deviating", "rejected"
FLIP_RATE = 0.01
"""Fraction of rows whose success may differ on another platform. Measured on 2,400 rows (six tasks, both domains, "bc"
with and without its residual) with AVX2, AVX-512 and FMA disabled for the C library, NumPy and Numba: none flipped,
though up to 96 of 100 rows of a cell differed in other values. So the rate is below 0.13 % with 95 % confidence; the
margin is for what was not varied: kernels of ONNX Runtime, OpenGL drivers."""
LEVEL = 0.01
"""Significance level of the tests whether there are more flips than that, and whether they favour the claim."""
FALSE_SHARES = (0.01, 0.05, 0.1)
"""Fractions of false rows in a cell for which the risk of a sample is stated."""


@dataclass(frozen=True)
class Rerun:
    """Comparison of re-run rows with the claimed rows of one cell."""

    cell: BoardCell
    rows: int
    identical: int
    """Rows that are identical in all values."""
    gained: int
    """Rows that are claimed as a success but failed now."""
    lost: int
    """Rows that are claimed as a failure but succeeded now."""
    claimed_successes: int
    successes: int
    example: str | None
    """The first row that differs, in words."""

    @property
    def flips(self) -> int:
        return self.gained + self.lost

    @property
    def record(self) -> Record:
        """The comparison as a verification record holds it."""
        counts = ("rows", "identical", "flips", "claimed_successes", "successes")
        return {"task": self.cell.task, "domain": self.cell.domain} | {name: getattr(self, name) for name in counts}


def compare_rows(cell: BoardCell, claimed: Sequence[Record], run: Sequence[Record]) -> Rerun:
    """Compare the episodes ``run`` with those of their seeds among ``claimed``, both in the evaluator's form."""
    claims = {episode["seed"]: episode for episode in claimed}
    pairs = [(row_of(claims[episode["seed"]]), row_of(episode)) for episode in run]
    different = [(there, here) for there, here in pairs if there != here]
    return Rerun(
        cell,
        len(pairs),
        len(pairs) - len(different),
        sum(there["success"] and not here["success"] for there, here in pairs),
        sum(here["success"] and not there["success"] for there, here in pairs),
        sum(there["success"] for there, _ in pairs),
        sum(here["success"] for _, here in pairs),
        _difference(cell, *different[0]) if different else None,
    )


def _difference(cell: BoardCell, there: Record, here: Record) -> str:
    """How two rows of one seed differ, in words; names the most important value."""
    key = next(key for key in ("success", "failure", *here) if there[key] != here[key])
    values = f"{key} {there[key]} claimed, {here[key]} found"
    return f"{cell.task} in {cell.domain}, seed {here['seed']}: {values}"


def judge(reruns: Sequence[Rerun], same: bool) -> tuple[str, str]:
    """The verdict on a claim, and the reason in words.

    Args:
        reruns: the comparisons of all cells.
        same: whether the claim is from the platform on which the rows were run again.
    """
    rows = sum(rerun.rows for rerun in reruns)
    different = rows - sum(rerun.identical for rerun in reruns)
    if not different:
        return ACCEPTED, f"all {rows} rows that were run again are identical"
    example = next(rerun.example for rerun in reruns if rerun.example)
    differ = f"{different} of {rows} rows differ ({example})"
    if same:
        return REJECTED, f"{differ}, but on the platform of the claim all must be identical"
    for rerun in reruns:
        if binomtest(rerun.flips, rerun.rows, FLIP_RATE, "greater").pvalue < LEVEL:
            cell = f"{rerun.cell.task} in {rerun.cell.domain}"
            many = f"the success of {rerun.flips} of {rerun.rows} rows differs in {cell}"
            return REJECTED, f"{differ}; {many}, more than the {FLIP_RATE:.1%} of other platforms explain"
    gained, flips = sum(rerun.gained for rerun in reruns), sum(rerun.flips for rerun in reruns)
    if flips and (p := binomtest(gained, flips, 0.5, "greater").pvalue) < LEVEL:
        favour = f"{gained} of {flips} rows whose success differs favour the claim (sign test, p = {p:.1g})"
        return REJECTED, f"{differ}; {favour}, which chance does not explain"
    return DEVIATING, f"{differ}, {flips} in their success: within what another platform explains"


def risk(total: int, rows: int) -> dict[str, float]:
    """Fraction of false rows in a cell of ``total`` rows, to the chance that ``rows`` random ones include none of
    them."""
    return {f"{share:g}": float(hypergeom.pmf(0, total, math.ceil(share * total), rows)) for share in FALSE_SHARES}
