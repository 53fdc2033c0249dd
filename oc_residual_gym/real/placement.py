"""The placement check: whether objects stand where and as the planned start has them, before the policy starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oc_residual_gym.geometry import norm
from oc_residual_gym.real.starts import turn_in_words
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import ObservedObject
from oc_residual_gym.tasks.symmetry import angle_between

POSITION_LIMIT, ROTATION_LIMIT = 0.02, np.radians(15.0)
"""Metres and radians from an object's planned pose, up to its symmetry, beyond which the operator is asked."""


@dataclass(frozen=True)
class Placement:
    """How K objects stand, compared with the plan."""

    offsets: Array
    """(K,) metres from the planned position."""
    turns: Array
    """(K,) radians from the planned rotation, up to the object's symmetry."""
    advice: list[str]
    """One line per misplaced object: how far it is off, and what to do."""


def compare(objects: Sequence[ObservedObject], planned: Array, seen: Array, as_wxyz: Array) -> Placement:
    """Compare the poses (K, 7) that were ``seen`` with the ``planned`` ones.

    Args:
        objects: the K objects.
        planned: planned poses in the base frame.
        seen: last used poses in the base frame.
        as_wxyz: the same poses, if the source's quaternions began with w.
    """
    offsets, turns, advice = norm(planned[:, :3] - seen[:, :3]), [], []
    for item, plan, pose, other, offset in zip(objects, planned, seen, as_wxyz, offsets, strict=True):
        turn, other_turn = (float(angle_between(plan[3:], p[3:], item.symmetry)) for p in (pose, other))
        turns.append(turn)
        steps = []
        if offset > POSITION_LIMIT:
            steps.append(f"move it by {_millimetres(plan[:3] - pose[:3])}")
        if turn > ROTATION_LIMIT:
            steps.append(f"it should be {turn_in_words(plan)}")
            if other_turn <= ROTATION_LIMIT:
                steps.append("it would fit if the tracker sent quaternions as wxyz: send x, y, z, w")
        if steps:
            where = f"{1000 * offset:.0f} mm and {np.degrees(turn):.0f} degrees"
            advice.append(f"{item.name} is {where} from its place: {'; '.join(steps)}")
    return Placement(offsets, np.array(turns), advice)


def _millimetres(move: Array) -> str:
    """Format a displacement in metres as "x +12, y -31 mm", with z if it is above 5 mm."""
    parts = [f"{axis} {1000 * part:+.0f}" for axis, part in zip("xyz", move, strict=True)]
    return ", ".join(parts if abs(move[2]) > 0.005 else parts[:2]) + " mm"
