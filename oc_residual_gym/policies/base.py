"""Base policies: what they see, what they return, and how their chunks are executed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.states import Array, BoolArray, IntArray
from oc_residual_gym.tasks.base import Snapshot

HORIZON = 16
"""Targets in a chunk of the base policies we ship, as in the paper."""


@dataclass(frozen=True)
class PolicyView:
    """What a base policy sees of the n worlds that need a new chunk."""

    worlds: IntArray
    """(n,) their numbers."""
    instruction: str
    tcp_pose: Array
    """(n, 7) measured, base frame."""
    joint_positions: Array
    """(n, 7) rad."""
    gripper_width: Array
    """(n,) metres."""
    gripper_closed: np.ndarray
    """(n,) bool, state of the latch."""
    wrench: Array
    """(n, 6) estimate of the external force and torque about the TCP, N and Nm, base frame."""
    previous_target: Array
    """(n, 8) last executed target."""
    objects: Mapping[str, Array] | None = None
    """Filtered poses (n, 7) by object name, if the policy's ``needs`` have "objects"."""
    images: Mapping[str, np.ndarray] | None = None
    """(n, 128, 128, 3) uint8 by camera name ("shoulder", "wrist"), if the policy's ``needs`` have "images"."""
    truth: Sequence[Snapshot] | None = None
    """True state, if the policy's ``needs`` have "truth": for scripted experts in simulation only."""


class BasePolicy(Protocol):
    """A frozen policy that gives chunks of absolute end-effector targets."""

    name: str
    hash: str | None
    """SHA-256 of the policy's file, where there is one."""
    needs: frozenset[str]
    """What of "objects", "images" and "truth" it wants to see."""

    @property
    def horizon(self) -> int:
        """Targets in a chunk, H."""

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """A new episode starts in ``worlds``; randomness there comes from these generators only."""

    def predict(self, view: PolicyView) -> Array:
        """Chunks (n, H, 8) of absolute targets: metres, quaternion xyzw, opening in [0, 1].

        Raises:
            BasePolicyError: there are no targets to give. Never return zeros instead.
        """


class HoldPolicy:
    """The last executed target again: the residual alone moves the robot (RL from scratch)."""

    name = "hold"
    hash: str | None = None
    horizon = 1
    needs: frozenset[str] = frozenset()

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Nothing to forget."""

    def predict(self, view: PolicyView) -> Array:
        return view.previous_target[:, None].copy()


class CallablePolicy:
    """A function ``view -> (n, H, 8)`` as a base policy; attributes ``horizon`` and ``needs`` of it are honoured."""

    hash: str | None = None

    def __init__(self, function: Callable[[PolicyView], Array]):
        self.name = getattr(function, "__name__", type(function).__name__)
        self.horizon = int(getattr(function, "horizon", HORIZON))
        self.needs = frozenset(getattr(function, "needs", ("objects",)))
        self._function = function

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Forward to the function's own ``reset``, where it has one."""
        reset = getattr(self._function, "reset", None)
        if reset is not None:
            reset(worlds, generators)

    def predict(self, view: PolicyView) -> Array:
        return np.asarray(self._function(view), np.float64)


@njit("void(float64[:,:,:],int64[:],float64[:,:],int64[:],int64,float64[:,:,:],int64[:],int64[:],boolean[:])")
def _load(
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
        for h in range(horizon):
            quat = chunks[n, h, 3:7]
            length = math.sqrt(quat[0] ** 2 + quat[1] ** 2 + quat[2] ** 2 + quat[3] ** 2)
            if not (1e-6 < length < 1e6 and np.isfinite(chunks[n, h]).all()):
                bad[n] = True
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


class ChunkRunner:
    """Executes chunks open loop, each world at its own phase.

    A domain's inference pause holds the last executed target for some steps before each chunk; a policy with a
    horizon of 1 has nothing to infer and is not paused.
    """

    def __init__(self, policy: BasePolicy, num_worlds: int, max_pause: int):
        self.policy = policy
        self._pauses = max_pause if policy.horizon > 1 else 0
        self._rows = np.arange(num_worlds)
        self._chunks = np.zeros((num_worlds, self._pauses + policy.horizon, 8))
        self._chunks[:, :, 6] = 1.0
        self._lengths = np.full(num_worlds, policy.horizon)
        self._phases = np.zeros(num_worlds, np.int64)

    def hold(self, worlds: IntArray, target: Array) -> None:
        """Stay at ``target`` (n, 8) in ``worlds``, in place of a chunk."""
        self._chunks[worlds] = target[:, None]
        self._lengths[worlds] = self.policy.horizon
        self._phases[worlds] = 0

    def load(self, worlds: IntArray, previous_target: Array, pauses: IntArray, chunks: Array) -> BoolArray:
        """Start new chunks (n, H, 8) in ``worlds``.

        Returns:
            (n,) which of them have a target that is not finite, or whose quaternion has no length; their worlds go
            on with the old chunk's last target.

        Raises:
            ValueError: the policy returned another shape.
        """
        shape = (len(worlds), self.policy.horizon, 8)
        if np.shape(chunks) != shape:
            raise ValueError(
                f"base policy {self.policy.name!r} returned an array of shape {np.shape(chunks)}; "
                f"expected {shape}: worlds, horizon, target (xyz, quaternion xyzw, opening)"
            )
        # A copy: Numba takes an array that may not be written for another type.
        chunks = np.array(chunks, np.float64)
        bad = np.zeros(len(worlds), bool)
        _load(chunks, worlds, previous_target, pauses, self._pauses, self._chunks, self._lengths, self._phases, bad)
        return bad

    def advance(self, rows: slice | IntArray) -> IntArray:
        """Go on by one step in the given worlds; returns those of them whose chunk has run out."""
        self._phases[rows] += 1
        worlds = self._rows[rows]
        return worlds[self._phases[rows] >= self._lengths[rows]]

    @property
    def phase(self) -> Array:
        """(N,) executed part of the chunk, from 0 to below 1."""
        return self._phases / self._lengths

    def targets(self, ahead: Array) -> Array:
        """(N, A, 8) targets the given steps ahead (A,), 1 for the next; beyond its end, the chunk's last one."""
        index = np.minimum(self._phases[:, None] + (ahead - 1), self._lengths[:, None] - 1)
        return self._chunks[self._rows[:, None], index]

    @property
    def current(self) -> Array:
        """(N, 8) the target of the coming step."""
        return self._chunks[self._rows, np.minimum(self._phases, self._lengths - 1)]
