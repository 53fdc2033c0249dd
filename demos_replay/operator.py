"""The scripted operator: the task's expert with the pace, pauses and errors of a person at a teleoperation device.

Habits are drawn once per demonstration, from its seed. Numbers without a source are plausible choices, now frozen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.geometry import pose_multiply, quat_from_rotvec, quat_multiply
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.policies.expert import follow
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks.base import Snapshot, Task

PACE = (0.55, 0.95)
"""Range of the operator's speed, as a fraction of the expert's."""
ATTENTION = (8, 20)
"""Range of control steps (0.4 to 1.0 s) after which the operator looks again and plans anew."""
PAUSE_CHANCE, PAUSE = 0.08, (4, 16)
"""Probability of a pause at each look, and the range of its length in control steps (0.2 to 0.8 s)."""
MISJUDGED_POSITION, MISJUDGED_ANGLE = 0.004, 0.05
"""Standard deviations of the operator's error about an object's pose from afar: metres per axis, and radians."""
CLOSE_LOOK, FAR = 0.15, 0.15
"""Fraction of that error that remains at the object, and the distance in metres from which the full error applies: the
operator corrects it on approach."""
NOISE_SHARE, NOISE_FLOOR = 0.2, 0.0002
"""Standard deviation of the hand noise per axis: metres per metre moved in a control step, and metres at rest. Human
motor noise grows with the command (Harris and Wolpert, Nature 394, 1998)."""
NOISE_MEMORY = 0.8
"""Correlation of the hand noise between consecutive control steps: it changes within about 0.2 s."""
LEVER = 0.15
"""Lever arm in metres: the standard deviation of the angular noise (rad) is that of the position noise divided by
it."""


@dataclass
class Habits:
    """Habits of the operator in one demonstration."""

    rng: np.random.Generator
    pace: float
    misjudged: Mapping[str, Array]
    """Object name to the error (6,) in its pose: metres, and rotation vector in radians."""
    grasp: Array
    """(3,) offset of the grasp along the grasped object's axes, metres."""
    noise: Array
    """(6,) current hand noise: metres in the base frame, and rotation vector in radians in the tool frame."""
    intended: Array
    """(8,) target without hand noise."""
    plan: list[Array]
    """Targets (8,) left to execute before the operator looks again."""


class OperatorPolicy:
    """The scripted operator of a task as a base policy; it reads the true state and keeps a plan per world."""

    name = "operator"
    hash: str | None = None
    horizon = 1
    needs = frozenset({"truth"})

    def __init__(self, task: Task):
        self._task = task
        self._habits: dict[int, Habits] = {}

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        for world, rng in zip(worlds, generators, strict=True):
            spread = (0.0, 0.0, 0.0) if self._task.grasped is None else self._task.grasped.spread
            self._habits[int(world)] = Habits(
                rng=rng,
                pace=rng.uniform(*PACE),
                misjudged={
                    spec.name: rng.normal(scale=[MISJUDGED_POSITION] * 2 + [0.0] * 3 + [MISJUDGED_ANGLE])
                    for spec in self._task.specs
                },
                grasp=rng.normal(scale=spread),
                noise=np.zeros(6),
                intended=np.empty(0),
                plan=[],
            )

    def predict(self, view: PolicyView) -> Array:
        assert view.truth is not None
        rows = zip(view.worlds.tolist(), view.truth, strict=True)
        return np.stack([self._next(self._habits[world], state) for world, state in rows])[:, None]

    def _next(self, habits: Habits, state: Snapshot) -> Array:
        if not habits.intended.size:
            habits.intended = state.target.copy()
        if not habits.plan:
            habits.plan = self._look(habits, state)
        before, habits.intended = habits.intended, habits.plan.pop(0)
        moved = np.linalg.norm(habits.intended[:3] - before[:3])
        scale = NOISE_FLOOR + NOISE_SHARE * moved
        fresh = habits.rng.normal(scale=[scale] * 3 + [scale / LEVER] * 3)
        habits.noise = NOISE_MEMORY * habits.noise + np.sqrt(1.0 - NOISE_MEMORY**2) * fresh
        target = habits.intended.copy()
        target[:3] += habits.noise[:3]
        target[3:7] = quat_multiply(target[3:7], quat_from_rotvec(habits.noise[3:]))
        return target

    def _look(self, habits: Habits, state: Snapshot) -> list[Array]:
        """Plan the next targets: sometimes a pause first, then the task."""
        seen = replace(state, poses=self._perceive(habits, state), target=habits.intended)
        steps = int(habits.rng.integers(*ATTENTION, endpoint=True))
        plan = list(follow(habits.intended, self._task.expert(seen), steps, habits.pace))
        if habits.rng.random() < PAUSE_CHANCE:
            plan = [habits.intended.copy()] * int(habits.rng.integers(*PAUSE, endpoint=True)) + plan
        return plan

    def _perceive(self, habits: Habits, state: Snapshot) -> dict[str, Array]:
        """True poses with the operator's error, which shrinks as the hand approaches. The object to grasp is shifted to
        the intended grasp until it is held."""
        owners = {name: spec.name for spec in self._task.specs for name in (spec.name, *(d.name for d in spec.drawers))}
        held = state.contacts.get("left", False) and state.contacts.get("right", False)
        grasped = None if self._task.grasped is None else self._task.grasped.name
        seen = {}
        for name, pose in state.poses.items():
            distance = np.linalg.norm(pose[:3] - state.tcp_pose[:3])
            error = np.clip(distance / FAR, CLOSE_LOOK, 1.0) * habits.misjudged[owners[name]]
            turn = Rotation.from_rotvec(error[3:]) * Rotation.from_quat(pose[3:])
            seen[name] = np.concatenate([pose[:3] + error[:3], turn.as_quat()])
            if name == grasped and not held:
                seen[name] = pose_multiply(seen[name], np.array([*habits.grasp, 0.0, 0.0, 0.0, 1.0]))
        return seen
