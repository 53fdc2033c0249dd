"""How chunks of targets are requested from a base policy, checked, and executed."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.errors import BasePolicyError, SettingsError, outside_text
from oc_residual_gym.policies.base import MAX_HORIZON, BasePolicy, PolicyView
from oc_residual_gym.policies.conventions import GripperWatch, problem_of, violates
from oc_residual_gym.states import Array, BoolArray, IntArray, RobotState

_log = logging.getLogger(__name__)


@njit("void(float64[:,:,:],int64[:],float64[:,:],int64[:],int64,float64[:,:,:],int64[:],int64[:],boolean[:])")
def _store(
    chunks: Array,
    worlds: IntArray,
    previous: Array,
    pauses: IntArray,
    max_pause: int,
    stored: Array,
    lengths: IntArray,
    phases: IntArray,
    bad: BoolArray,
) -> None:
    for n in range(len(worlds)):
        world, pause, horizon = worlds[n], min(pauses[n], max_pause), chunks.shape[1]
        if bad[n]:
            continue
        for h in range(pause + horizon):
            target = stored[world, h]
            if h < pause:
                target[:] = previous[n]
                continue
            target[:] = chunks[n, h - pause]
            target[7] = min(max(target[7], 0.0), 1.0)
            target[3:7] /= math.sqrt(target[3] ** 2 + target[4] ** 2 + target[5] ** 2 + target[6] ** 2)
        lengths[world] = pause + horizon
        phases[world] = 0


EXPECTED = (BasePolicyError, OSError)
"""Exceptions with which a base policy says that it cannot return targets; all others are programming errors."""


def failure_text(policy: BasePolicy, cause: Exception | str) -> str:
    """How a failure of a base policy is reported: an exception, or what is wrong with its targets."""
    if isinstance(cause, Exception):
        cause = outside_text(cause if isinstance(cause, EXPECTED) else f"{type(cause).__name__}: {cause}")
    return f"base policy {policy.name!r} failed: {cause}"


class ChunkRunner:
    """Requests chunks from a base policy and executes them open loop, each world at its own phase.

    A domain's inference pause holds the last executed target for some steps before each chunk. A policy with a horizon
    of 1 is not paused.

    Args:
        policy: the base policy.
        num_worlds: number of worlds N.
        max_pause: longest inference pause in control steps.
        watch: looks at the gripper openings of all chunks; ``None`` where there is nothing to grasp.

    Raises:
        SettingsError: the policy's horizon is not from 1 to ``MAX_HORIZON``.
    """

    def __init__(self, policy: BasePolicy, num_worlds: int, max_pause: int, watch: GripperWatch | None = None):
        horizon = policy.horizon
        if not 1 <= horizon <= MAX_HORIZON:
            raise SettingsError(f"base policy {policy.name!r} has horizon {horizon}: give 1 to {MAX_HORIZON}")
        self.policy = policy
        self.failed = np.zeros(num_worlds, bool)
        """(N,) whether the policy has failed to give targets in the current episode."""
        self.problems = [""] * num_worlds
        """Per world: how it failed, or ""."""
        self.error: Exception | None = None
        """Last exception of the policy. A chunk that violates a convention raises none."""
        self._watch, self._is_logged = watch, False
        self._max_pause = max_pause if horizon > 1 else 0
        self._pauses = np.zeros(num_worlds, np.int64)
        self._rows = np.arange(num_worlds)
        self._chunks = np.zeros((num_worlds, self._max_pause + horizon, 8))
        self._chunks[:, :, 6] = 1.0
        self._lengths = np.full(num_worlds, horizon)
        self._phases = np.zeros(num_worlds, np.int64)

    def start(
        self, worlds: IntArray, target: Array, pauses: Sequence[int], generators: Sequence[np.random.Generator]
    ) -> None:
        """Start episodes in ``worlds`` (n,): reset the policy, and hold ``target`` (n, 8) until there is a chunk.

        Args:
            worlds: (n,) indices of the worlds.
            target: (n, 8) targets to hold.
            pauses: (n,) inference pauses in control steps.
            generators: (n,) sources of the policy's random numbers.

        Raises:
            Exception: as :meth:`request`.
        """
        self._pauses[worlds] = pauses
        self._chunks[worlds] = target[:, None]
        self._lengths[worlds] = self.policy.horizon
        self._phases[worlds] = 0
        self.failed[worlds] = False
        for world in worlds.tolist():
            self.problems[world] = ""
        if self._watch is not None:
            self._watch.start(worlds, target[:, 7])
        try:
            self.policy.reset(worlds, generators)
        except Exception as error:
            self._fail_by(worlds, error)

    def request(
        self,
        worlds: IntArray,
        view: Callable[[IntArray, frozenset[str]], PolicyView],
        previous_target: Array,
        robot: RobotState,
    ) -> None:
        """Request new chunks for ``worlds`` and start them.

        Where that fails, ``failed`` and ``problems`` say so, and the world keeps executing the last target of its old
        chunk. The first failure is logged.

        Args:
            worlds: (n,) indices of the worlds.
            view: function of the worlds and the policy's needs that returns its input.
            previous_target: (n, 8) last executed targets.
            robot: measured state of all N worlds.

        Raises:
            ValueError: the policy returned another shape.
            Exception: any exception of the policy but ``BasePolicyError`` and ``OSError``: a programming error.
        """
        try:
            chunks = self.policy.predict(view(worlds, self.policy.needs))
            problems = self._load(worlds, previous_target, chunks, robot)
        except Exception as error:
            self._fail_by(worlds, error)
        else:
            self._fail(problems)

    def _fail_by(self, worlds: IntArray, error: Exception) -> None:
        """Note an exception of the policy; pass it on if it is a programming error."""
        self.error = error
        self._fail(dict.fromkeys(worlds.tolist(), error))
        if not isinstance(error, EXPECTED):
            raise error

    def _fail(self, causes: Mapping[int, Exception | str]) -> None:
        for world, cause in causes.items():
            self.failed[world] = True
            self.problems[world] = failure_text(self.policy, cause)
        if causes and not self._is_logged:
            self._is_logged = True
            _log.warning("%s", self.problems[next(iter(causes))])

    def _load(self, worlds: IntArray, previous_target: Array, chunks: Array, robot: RobotState) -> Mapping[int, str]:
        """Start new chunks (n, H, 8) in ``worlds``, but for those that violate a convention: return their problems."""
        shape = (len(worlds), self.policy.horizon, 8)
        if np.shape(chunks) != shape:
            raise ValueError(
                f"base policy {self.policy.name!r} returned an array of shape {np.shape(chunks)}; "
                f"expected {shape}: worlds, horizon, target (xyz, quaternion xyzw, opening)"
            )
        # A copy, because to Numba a read-only array has another type.
        chunks = np.array(chunks, np.float64)
        bad = np.zeros(len(worlds), bool)
        violates(chunks, robot.tcp_pose[worlds], bad)
        pauses = self._pauses[worlds]
        _store(chunks, worlds, previous_target, pauses, self._max_pause, self._chunks, self._lengths, self._phases, bad)
        if self._watch is not None:
            self._watch.look(worlds[~bad], chunks[~bad, :, 7])
        return {
            int(worlds[row]): problem_of(chunks[row], robot.tcp_pose[worlds[row]], robot.joint_positions[worlds[row]])
            for row in np.flatnonzero(bad)
        }

    def advance(self, rows: slice | IntArray) -> IntArray:
        """Advance by one step in the given worlds; return those whose chunk has run out."""
        self._phases[rows] += 1
        worlds = self._rows[rows]
        return worlds[self._phases[rows] >= self._lengths[rows]]

    @property
    def phase(self) -> Array:
        """(N,) executed share of the chunk, in [0, 1)."""
        return self._phases / self._lengths

    @property
    def starts(self) -> BoolArray:
        """(N,) whether the next step is the first of a chunk. Without chunks (a horizon of 1), never."""
        return (self._phases == 0) & (self.policy.horizon > 1)

    def targets(self, ahead: Array) -> Array:
        """(N, A, 8) targets ``ahead`` (A,) steps ahead, 1 for the next step; past its end, the chunk's last target."""
        index = np.minimum(self._phases[:, None] + (ahead - 1), self._lengths[:, None] - 1)
        return self._chunks[self._rows[:, None], index]

    @property
    def current(self) -> Array:
        """(N, 8) target of the next step."""
        return self._chunks[self._rows, np.minimum(self._phases, self._lengths - 1)]
