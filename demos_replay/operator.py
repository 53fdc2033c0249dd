"""The scripted operator: the task's expert, made to work as a person does at a teleoperation device.

Habits are drawn once a demonstration from its seed; figures without a source are plausible choices, and frozen.
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
"""Share of the expert's speed at which the operator works."""
ATTENTION = (8, 20)
"""Control steps, 0.4 to 1.0 s, after which the operator looks again and changes the plan."""
PAUSE_CHANCE, PAUSE = 0.08, (4, 16)
"""Chance of a pause whenever the operator looks, and its control steps, 0.2 to 0.8 s."""
MISJUDGED_POSITION, MISJUDGED_ANGLE = 0.004, 0.05
"""Metres and radians, standard deviations an axis, by which an operator misjudges where an object is, from afar."""
CLOSE_LOOK, FAR = 0.15, 0.15
"""Share of that error that is left at the object, and metres from it at which all of it is: what is seen from afar is
corrected on the way."""
NOISE_SHARE, NOISE_FLOOR = 0.2, 0.0002
"""Standard deviation of the hand's deviation an axis, per metre that it moves in a control step, and metres at rest:
people's motor noise grows with the command (Harris and Wolpert, Nature 394, 1998)."""
NOISE_MEMORY = 0.8
"""Correlation of that deviation from one control step to the next: it changes within about 0.2 s."""
LEVER = 0.15
"""Metres: a deviation of 1 mm comes with one of 1 mm / LEVER in angle."""


@dataclass
class Habits:
    """How one demonstration is given."""

    rng: np.random.Generator
    pace: float
    misjudged: Mapping[str, Array]
    """Object name to (6,): metres, and rotation vector in radians."""
    grasp: Array
    """(3,) metres along the grasped object's axes."""
    noise: Array
    """(6,) deviation of the hand at present: metres, and radians in the tool frame."""
    intended: Array
    """(8,) target without that deviation."""
    plan: list[Array]
    """Targets (8,) that are still to come before the operator looks again."""


class OperatorPolicy:
    """The scripted operator of a task as a base policy; it reads true state, and remembers what it is about to do."""

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
        """What to do in the next moments: a pause now and then, then on with the task."""
        seen = replace(state, poses=self._perceive(habits, state), target=habits.intended)
        steps = int(habits.rng.integers(*ATTENTION, endpoint=True))
        plan = list(follow(habits.intended, self._task.expert(seen), steps, habits.pace))
        if habits.rng.random() < PAUSE_CHANCE:
            plan = [habits.intended.copy()] * int(habits.rng.integers(*PAUSE, endpoint=True)) + plan
        return plan

    def _perceive(self, habits: Habits, state: Snapshot) -> dict[str, Array]:
        """True poses, misjudged by less the nearer the hand is; an object that is not held, as if it were where the
        operator means to grasp it."""
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
