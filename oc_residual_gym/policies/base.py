"""Base policies: their inputs and outputs, and how their action chunks are executed."""

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
"""Targets per chunk of the shipped base policies, as in the paper."""


@dataclass(frozen=True)
class PolicyView:
    """Input of a base policy: a batch of the n worlds that are due for a new chunk."""

    worlds: IntArray
    """(n,) indices of the worlds."""
    instruction: str
    tcp_pose: Array
    """(n, 7) measured TCP pose in the base frame: metres, quaternion xyzw."""
    joint_positions: Array
    """(n, 7) rad."""
    gripper_width: Array
    """(n,) metres between the fingers."""
    gripper_closed: np.ndarray
    """(n,) bool, state of the gripper's latch."""
    wrench: Array
    """(n, 6) estimated external force (N) and torque (Nm) about the TCP, base frame."""
    previous_target: Array
    """(n, 8) last executed target: TCP pose in the base frame, and opening."""
    objects: Mapping[str, Array] | None = None
    """Filtered poses (n, 7) by object name, if the policy's ``needs`` contain "objects"."""
    images: Mapping[str, np.ndarray] | None = None
    """(n, 128, 128, 3) uint8 by camera name ("shoulder", "wrist"), if the policy's ``needs`` contain "images"."""
    truth: Sequence[Snapshot] | None = None
    """True state, if the policy's ``needs`` contain "truth": for scripted experts in simulation only."""


class BasePolicy(Protocol):
    """A frozen policy that returns chunks of absolute end-effector targets."""

    name: str
    hash: str | None
    """SHA-256 of the policy's file; ``None`` without a file."""
    needs: frozenset[str]
    """Optional inputs that it uses, out of "objects", "images" and "truth"."""

    @property
    def horizon(self) -> int:
        """Number of targets per chunk, H."""

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Start a new episode in ``worlds``; draw random numbers for them from these generators only."""

    def predict(self, view: PolicyView) -> Array:
        """Chunks (n, H, 8) of absolute targets in the base frame: metres, quaternion xyzw, opening in [0, 1].

        Raises:
            BasePolicyError: it cannot predict targets. Never return zeros instead.
        """


class HoldPolicy:
    """Repeats the last executed target, so that only the residual moves the robot (RL from scratch)."""

    name = "hold"
    hash: str | None = None
    horizon = 1
    needs: frozenset[str] = frozenset()

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Do nothing: it has no state."""

    def predict(self, view: PolicyView) -> Array:
        return view.previous_target[:, None].copy()


class CallablePolicy:
    """Wraps a function ``view -> (n, H, 8)`` as a base policy; uses its attributes ``horizon`` and ``needs`` if set."""

    hash: str | None = None

    def __init__(self, function: Callable[[PolicyView], Array]):
        self.name = getattr(function, "__name__", type(function).__name__)
        self.horizon = int(getattr(function, "horizon", HORIZON))
        self.needs = frozenset(getattr(function, "needs", ("objects",)))
        self._function = function

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Call the function's own ``reset`` if it has one."""
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

    A domain's inference pause holds the last executed target for some steps before each chunk. A policy with a horizon
    of 1 is not paused.

    Args:
        policy: the base policy.
        num_worlds: number of worlds N.
        max_pause: longest inference pause in control steps.
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
        """Hold ``target`` (n, 8) in ``worlds`` instead of executing a chunk."""
        self._chunks[worlds] = target[:, None]
        self._lengths[worlds] = self.policy.horizon
        self._phases[worlds] = 0

    def load(self, worlds: IntArray, previous_target: Array, pauses: IntArray, chunks: Array) -> BoolArray:
        """Start new chunks (n, H, 8) in ``worlds``.

        Returns:
            (n,) bool, true for chunks with a target that is not finite or a quaternion of length zero. Their worlds
            keep executing the last target of the old chunk.

        Raises:
            ValueError: the policy returned another shape.
        """
        shape = (len(worlds), self.policy.horizon, 8)
        if np.shape(chunks) != shape:
            raise ValueError(
                f"base policy {self.policy.name!r} returned an array of shape {np.shape(chunks)}; "
                f"expected {shape}: worlds, horizon, target (xyz, quaternion xyzw, opening)"
            )
        # A copy, because to Numba a read-only array has another type.
        chunks = np.array(chunks, np.float64)
        bad = np.zeros(len(worlds), bool)
        _load(chunks, worlds, previous_target, pauses, self._pauses, self._chunks, self._lengths, self._phases, bad)
        return bad

    def advance(self, rows: slice | IntArray) -> IntArray:
        """Advance by one step in the given worlds; return those whose chunk has run out."""
        self._phases[rows] += 1
        worlds = self._rows[rows]
        return worlds[self._phases[rows] >= self._lengths[rows]]

    @property
    def phase(self) -> Array:
        """(N,) executed share of the chunk, in [0, 1)."""
        return self._phases / self._lengths

    def targets(self, ahead: Array) -> Array:
        """(N, A, 8) targets ``ahead`` (A,) steps ahead, 1 for the next step; past its end, the chunk's last target."""
        index = np.minimum(self._phases[:, None] + (ahead - 1), self._lengths[:, None] - 1)
        return self._chunks[self._rows[:, None], index]

    @property
    def current(self) -> Array:
        """(N, 8) target of the next step."""
        return self._chunks[self._rows, np.minimum(self._phases, self._lengths - 1)]
