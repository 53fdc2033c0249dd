"""Learning from a teacher: imitation on the states that the student visits (DAgger), then help in reinforcement.

The teacher's action for each state is part of the observation in training (see ``TrainingWorlds``). The gripper is a
decision, so it is learned as one: by cross-entropy, not by distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from baselines.residual.worlds import ADVICE

DECISION_WEIGHT = 0.25
"""Weight of the gripper's cross-entropy beside the mean absolute error of the motion."""


@dataclass(frozen=True)
class Teaching:
    """How to learn from a teacher; table ``[teacher]`` of an algorithm's settings."""

    steps: int
    """Environment steps of imitation, after which reinforcement begins."""
    drive: tuple[float, float]
    """Share of episodes in which the teacher acts: at first, and from ``drive_steps`` on; linear in between."""
    drive_steps: int
    """Environment steps until the last share."""
    learning_rate: float
    """First learning rate of the imitation; it falls to zero at its end."""
    updates: int
    """Updates per step of all worlds during imitation."""
    pull: tuple[float, float]
    """Weight of the imitation in the reinforcement: at its beginning and at its end, linear in between."""

    def drive_share(self, steps: int) -> float:
        """Share of episodes in which the teacher acts, after this number of environment steps."""
        return _between(*self.drive, steps / self.drive_steps)

    def rate(self, steps: int) -> float:
        """Learning rate of the imitation after this number of environment steps."""
        return self.learning_rate * _between(1.0, 0.0, steps / self.steps)

    def pull_at(self, steps: int, total: int) -> float:
        """Weight of the imitation in the reinforcement, after ``steps`` of ``total`` environment steps."""
        return _between(*self.pull, (steps - self.steps) / max(total - self.steps, 1))


def _between(first: float, last: float, share: float) -> float:
    return first + (last - first) * min(max(share, 0.0), 1.0)


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
