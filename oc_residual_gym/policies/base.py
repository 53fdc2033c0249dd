"""Base policies: their inputs and outputs, and the two simplest ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks.base import Snapshot

HORIZON = 16
"""Targets per chunk of the shipped base policies, as in the paper."""
MAX_HORIZON = 256
"""Largest number of targets per chunk, which takes 12.8 s to execute."""


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

        The first target of a chunk must lie near the tool, see :mod:`oc_residual_gym.policies.conventions`.

        Raises:
            BasePolicyError: it cannot predict targets. Never return zeros instead. This and ``OSError`` (a lost
                connection) truncate the episode; any other exception is a programming error and is passed on.
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
