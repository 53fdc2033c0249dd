"""Learning from a teacher: imitation on the states that the student visits (DAgger), then help in reinforcement.

The teacher's action for each state is part of the observation in training (see ``TrainingWorlds``). The gripper is a
decision, so it is learned as one: by cross-entropy, not by distance.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from baselines.residual.worlds import ADVICE

DECISION_WEIGHT = 0.25
"""Weight of the gripper's cross-entropy beside the mean absolute error of the motion."""


def advice_of(observations: Tensor) -> Tensor:
    """The teacher's actions (n, 7)."""
    return observations[:, -ADVICE:]


def imitation_errors(means: Tensor, advice: Tensor) -> Tensor:
    """(n,) errors of an actor's ``means`` (n, 7), before the tanh, relative to the teacher's actions (n, 7)."""
    motion = (torch.tanh(means[:, :-1]) - advice[:, :-1]).abs().mean(dim=1)
    # sigmoid(2 x) = (tanh(x) + 1) / 2, the opening.
    opening = (advice[:, -1] + 1.0) / 2.0
    decision = functional.binary_cross_entropy_with_logits(2.0 * means[:, -1], opening, reduction="none")
    return motion + DECISION_WEIGHT * decision
