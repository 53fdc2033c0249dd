"""What a world is: it takes end-effector targets and reports the robot's state, in simulation or in reality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.states import Array, BoolArray, IntArray, RobotState, TrueState

if TYPE_CHECKING:
    from oc_residual_gym.tasks.base import InitialState, Task
    from oc_residual_gym.worlds.domains import EpisodePhysics


class Tracker(Protocol):
    """Where the observed object poses of N worlds come from."""

    @property
    def newest_stamp(self) -> float:
        """``time.monotonic()`` of the newest reading, of the object that was heard of least recently."""

    def reset(
        self, worlds: IntArray, generators: Sequence[np.random.Generator], physics: Sequence[EpisodePhysics]
    ) -> None:
        """Start an episode in ``worlds``."""

    def observe(self, tcp_pose: Array, closed: BoolArray, worlds: IntArray | None) -> tuple[Array, BoolArray]:
        """What was seen after a control step of ``worlds`` (all by default).

        Args:
            tcp_pose: (N, 7) measured.
            closed: (N,) state of the gripper latch.
            worlds: their numbers.

        Returns:
            Poses (N, K, 7) in the base frame, in the order of ``Task.objects``, NaN where an object was not seen, and
            whether it was (N, K).
        """

    def wrench_noise(self) -> Array:
        """(N, 6) what is added to the wrench estimate to make it as bad as a real one; zeros in reality."""


class World(Protocol):
    """N worlds that track end-effector targets, in simulation or in reality."""

    task: Task
    """What is in them."""
    num_worlds: int
    robot: RobotState
    """State after the last step."""
    stopped: BoolArray
    """(N,): can the world not go on? It then stays as it is until its next reset."""
    speed: float
    """Share of the rate limit that targets may use: 1, but for a robot in its first trials."""
    peak_contact_force: Array
    """(N,) largest force on the hand within the last step, N."""

    @property
    def true(self) -> TrueState | None:
        """What a simulation knows besides; ``None`` in reality, where the operator judges."""

    @property
    def tracker(self) -> Tracker | None:
        """Where object poses come from; ``None`` in a simulation, whose poses are true."""

    def reset(self, worlds: IntArray, starts: Sequence[InitialState], physics: Sequence[EpisodePhysics]) -> None:
        """Start an episode in each of ``worlds``."""

    def step(self, targets: Array, worlds: IntArray | None = None) -> None:
        """Track ``targets`` (N, 8) for one control step in the given worlds (all by default), and in no other."""

    def stop_reason(self, world: int) -> str:
        """Why ``world`` stopped; "" if it did not."""

    def stop(self, world: int, reason: str) -> None:
        """Leave the arm of ``world`` stopped: its episode ended for ``reason``."""

    def verdict(self, world: int) -> bool | None:
        """Whether the operator calls the episode a success or a failure; ``None`` while he has not said."""

    def image(self, world: int, camera: str) -> NDArray[np.uint8]:
        """(height, width, 3) what a policy camera sees; of real worlds only, simulated ones are rendered."""

    def close(self) -> None:
        """Free threads, connections and rendering contexts."""
