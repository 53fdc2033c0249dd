"""Scripted experts as base policies: they turn a task's waypoints into chunks of targets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oc_residual_gym.geometry import quat_normalize, rotation_between, towards
from oc_residual_gym.policies.base import HORIZON, PolicyView
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks.base import Snapshot, Task, Waypoint

OFFSET = 0.010
"""Position offset of :class:`OffsetExpertPolicy` in metres."""
TURN_SPEED = 0.025
"""Rotation speed in radians per control step; below the rate limit, so that the arm keeps up."""


class ExpertPolicy:
    """The scripted expert of a task. It reads the true state and has no memory."""

    name = "expert"
    hash: str | None = None
    horizon = HORIZON
    needs = frozenset({"truth"})

    def __init__(self, task: Task):
        self._task = task

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Do nothing: it has no state."""

    def predict(self, view: PolicyView) -> Array:
        assert view.truth is not None
        return np.stack([self._chunk(snapshot) for snapshot in view.truth])

    def _chunk(self, state: Snapshot) -> Array:
        return follow(state.target, self._task.expert(state), self.horizon)


class OffsetExpertPolicy(ExpertPolicy):
    """The scripted expert with an offset of 10 mm on all targets: a base policy that a perfect residual fully corrects.

    The offset is horizontal; its direction is drawn once per episode.
    """

    name = "expert-offset"

    def __init__(self, task: Task):
        super().__init__(task)
        self._offsets: dict[int, Array] = {}

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        for world, generator in zip(worlds, generators, strict=True):
            angle = generator.uniform(-np.pi, np.pi)
            offset = OFFSET * np.array([np.cos(angle), np.sin(angle)])
            self._offsets[int(world)] = np.concatenate([offset, np.zeros(6)])

    def predict(self, view: PolicyView) -> Array:
        return super().predict(view) + np.stack([self._offsets[int(world)] for world in view.worlds])[:, None]


def follow(start: Array, legs: Sequence[Waypoint], steps: int, pace: float = 1.0) -> Array:
    """Targets (steps, 8) from ``start`` (8,) along the waypoints ``legs``, at their speeds times ``pace``.

    After the last waypoint, the last target repeats.
    """
    chunk = np.empty((steps, 8))
    target = start.copy()
    done = 0
    for leg in legs:
        pause = round(leg.wait / pace)
        target[7] = 0.0 if leg.closed else 1.0
        while done < steps:
            left = np.linalg.norm(leg.pose[:3] - target[:3])
            turn = np.linalg.norm(rotation_between(target[3:7], leg.pose[3:]))
            if left < 1e-6 and turn < 1e-5:
                if pause == 0:
                    break
                pause -= 1
            else:
                # Translation and rotation end together.
                count = max(np.ceil(left / (pace * leg.speed)), np.ceil(turn / (pace * TURN_SPEED)), 1.0)
                target[:3] = target[:3] + (leg.pose[:3] - target[:3]) / count
                target[3:7] = quat_normalize(towards(target[None, 3:7], leg.pose[None, 3:], turn / count)[0])
            chunk[done] = target
            done += 1
    chunk[done:] = target
    return chunk
