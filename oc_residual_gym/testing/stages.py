"""Tools for tests of single tasks: place objects anywhere, follow a script, and check success at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mujoco
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.evaluation.provenance import MEASURED_MUJOCO
from oc_residual_gym.policies.base import HORIZON, PolicyView
from oc_residual_gym.policies.expert import follow
from oc_residual_gym.states import Array, BoolArray, IntArray, TrueState
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import Snapshot, Waypoint

Stop = Callable[[Snapshot], bool]
"""When to stop the expert."""
Then = Callable[[Snapshot], Sequence[Waypoint]]
"""Legs to follow after that."""


class Script:
    """A base policy: it follows the expert until ``stop`` holds, then the legs of ``then``, and stays at their end."""

    horizon = 1
    needs = frozenset({"truth"})

    def __init__(self, task: str, stop: Stop, then: Then):
        self._task, self._stop, self._then = TASKS[task], stop, then
        self._targets: list[Array] = []
        self.stopped = False

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        self._targets, self.stopped = [], False

    def __call__(self, view: PolicyView) -> Array:
        assert view.truth is not None
        state = view.truth[0]
        if not self.stopped and self._stop(state):
            self.stopped = True
            self._targets = list(follow(state.target, self._then(state), 600))
        if not self._targets:
            legs = [] if self.stopped else self._task.expert(state)
            self._targets = list(follow(state.target, legs, HORIZON))
        return self._targets.pop(0)[None, None]


class Stage:
    """One world of a task in the nominal domain, which a test can arrange, run and inspect."""

    def __init__(self, task: str, policy: Any, seed: int):
        steps = TASKS[task].max_episode_steps
        self.core = ResidualWorlds(task, 1, base_policy=policy, errors="clean", split="val", max_episode_steps=steps)
        self.core.reset(np.arange(1), [seed])
        self.rewards: list[float] = []
        """Reward of every step so far."""
        self.milestones: list[Array] = []
        """Milestone values, in order, after every step so far."""

    @property
    def state(self) -> TrueState:
        """True state of the world."""
        return self.core.simulation.true

    @property
    def succeeded(self) -> bool:
        """Whether the success condition has held for ``SUCCESS_STEPS``."""
        return bool(self.core.success[0])

    def touching(self, contact: str) -> bool:
        """Whether the two bodies of a contact in ``Task.contacts`` touch."""
        return bool(self.state.contacts[contact][0])

    def put(self, velocity: float = 0.0, **poses: Array) -> None:
        """Place objects at poses (7,), moving along +x at ``velocity`` in m/s; ``state`` follows after a step."""
        world = self.core.mujoco
        model, state = world.scene.model, world._state[0]
        for name, pose in poses.items():
            joint = model.joint(f"{name}_joint0").id
            at = 1 + model.jnt_qposadr[joint]
            state[at : at + 7] = [*pose[:3], pose[6], *pose[3:6]]
            at = 1 + model.nq + model.jnt_dofadr[joint]
            state[at : at + 6] = [velocity, 0, 0, 0, 0, 0]

    def run(self, steps: int) -> BoolArray:
        """Run up to ``steps`` steps, or to the end of the episode. Returns whether success held after each step."""
        met = []
        for _ in range(steps):
            self.core.step(np.zeros((1, 7)))
            met.append(bool(self.core.task.success(self.state)[0]))
            self.rewards.append(float(self.core.reward[0]))
            progress = self.core.task.progress(self.state)
            self.milestones.append(np.array([value[0] for value in progress.values()], np.float64))
            if self.core.terminated[0] or self.core.truncated[0]:
                break
        return np.array(met)

    def run_to_the_end(self) -> BoolArray:
        """As :meth:`run`, to the end of the episode."""
        return self.run(self.core.task.max_episode_steps)

    def greatest_fall(self) -> float:
        """Largest fall of a milestone below its earlier best value, so far."""
        values = np.array(self.milestones)
        return float((np.maximum.accumulate(values, axis=0) - values).max())


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    """``stage(task, policy="hold", seed=0)`` creates a :class:`Stage`; by default, the arm holds still."""
    stages = []

    def make(task: str, policy: Any = "hold", seed: int = 0) -> Stage:
        stages.append(Stage(task, policy, seed))
        return stages[-1]

    yield make
    for made in stages:
        made.core.close()


@pytest.fixture
def stopped(stage: Callable[..., Stage]) -> Callable[..., Stage]:
    """``stopped(task, stop, then, seed=0)`` creates a :class:`Stage` and runs the expert until ``stop`` holds."""

    def make(task: str, stop: Stop, then: Then, seed: int = 0) -> Stage:
        script = Script(task, stop, then)
        made = stage(task, script, seed)
        while not script.stopped:
            assert len(made.run(1)), "the expert finished before `stop` held"
            assert not made.core.terminated[0], "the expert finished before `stop` held"
        return made

    return make


def discounted(rewards: Sequence[float], gamma: float) -> float:
    """Discounted return."""
    return float(np.sum(np.array(rewards) * gamma ** np.arange(len(rewards))))


@pytest.fixture
def expert_beats(stage: Callable[..., Stage]) -> Callable[..., None]:
    """``expert_beats(other, margin)`` asserts that the expert has a higher return than ``other``, on the same seed.

    This must hold for gamma 0.95 and 0.99, over the whole episode, and by ``margin`` from the first step that differs.
    Margins are figures of the version of MuJoCo that published figures are made with; on others the sign counts.
    """

    def check(other: Stage, margin: float) -> None:
        expert = stage(other.core.task.name, "expert", int(other.core.seeds[0]))
        expert.run_to_the_end()
        assert expert.succeeded
        assert not other.succeeded
        assert other.core.truncated[0]
        both = min(len(expert.rewards), len(other.rewards))
        parting = int(np.argmin(np.array(expert.rewards[:both]) == np.array(other.rewards[:both])))
        assert parting > 20, "the two episodes differ too early to be compared"
        for gamma in (0.95, 0.99):
            assert discounted(expert.rewards, gamma) > discounted(other.rewards, gamma)
            ahead = discounted(expert.rewards[parting:], gamma) - discounted(other.rewards[parting:], gamma)
            assert ahead > (margin if mujoco.__version__ == MEASURED_MUJOCO else 0.0), (
                f"gamma {gamma}: the expert is ahead by only {ahead:.3f}"
            )

    return check
