"""The result of a comparison in one sentence, which claims no more than the paired intervals do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oc_residual_gym.evaluation.pairing import headline, mean_name
from oc_residual_gym.evaluation.report import percent
from oc_residual_gym.files import Record


def sentence(scenarios: Mapping[str, Sequence[Record]]) -> str:
    """Say what the residual does to the success rate, and how the planner does beside it.

    Args:
        scenarios: place, such as "in the training world", to its records of
            :func:`~oc_residual_gym.evaluation.pairing.paired_rates` with the sides "base", "residual", "planner" and
            "oracle" and the differences "difference" (residual minus base) and "over_planner" (residual minus planner).
    """
    clauses = [f"{place}, {_clause(headline(records))}" for place, records in scenarios.items()]
    text = "; ".join(clauses).replace("the planner", "the planner, which learns nothing,", 1)
    return f"{text[0].upper()}{text[1:]}."


def _clause(record: Record) -> str:
    task = record["task"]
    what = f"success in {task}" if len(record["tasks"]) == 1 else f"the mean success of {mean_name(record)}"
    rates = {side: f"{100.0 * record[side]['mean']:.1f} %" for side in ("base", "residual", "planner") if record[side]}
    change = record["difference"]
    if change is None:
        return f"{what} is {rates['base']} with the base policy alone, and the planner reaches {rates['planner']}"
    interval = f"{percent(change, '+')} points"
    if change["low"] > 0.0:
        effect = f"raises {what} from {rates['base']} to {rates['residual']} ({interval})"
    elif change["high"] < 0.0:
        effect = f"lowers {what} from {rates['base']} to {rates['residual']} ({interval})"
    else:
        effect = f"does not measurably change {what}: {rates['base']} without it, {rates['residual']} with it"
        effect = f"{effect} ({interval})"
    against = record["over_planner"]
    if against["low"] > 0.0:
        rival = "measurably less"
    elif against["high"] < 0.0:
        rival = "measurably more"
    else:
        rival = "which is not measurably different"
    return f"the residual {effect}, and the planner reaches {rates['planner']}, {rival}"
