"""What a world is: it takes end-effector targets and reports the robot's state, in simulation or in reality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.errors import Stop, StopReason
from oc_residual_gym.states import Array, BoolArray, IntArray, Readings, RobotState, TrueState
from oc_residual_gym.tasks.base import InitialState, Task
from oc_residual_gym.worlds.domains import EpisodePhysics
from oc_residual_gym.worlds.visuals import Visuals


class Tracker(Protocol):
    """Where the observed object poses of N worlds come from."""

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


class CellTracker(Tracker, Protocol):
    """Tracker of the objects of a real cell."""

    readings: Readings
    """What the source said at the last observation."""

    @property
    def calibration_label(self) -> str:
        """Name and hash of the hand-eye calibration in use; "" without one."""

    @property
    def newest_stamp(self) -> float:
        """``time.monotonic()`` of the newest reading, of the object that was heard of least recently."""

    def fault(self) -> tuple[StopReason, str] | None:
        """Why the episode cannot go on, and what was seen; ``None`` while the source is healthy."""


class World(Protocol):
    """N robots that track end-effector targets; what simulations and real cells have in common."""

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

    def reset(self, worlds: IntArray, starts: Sequence[InitialState], physics: Sequence[EpisodePhysics]) -> None:
        """Start an episode in each of ``worlds``."""

    def step(self, targets: Array, worlds: IntArray | None = None) -> None:
        """Track ``targets`` (N, 8) for one control step in the given worlds (all by default), and in no other."""

    def stop_reason(self, world: int) -> str:
        """Why ``world`` stopped; "" if it did not."""

    def image(self, world: int, camera: str) -> NDArray[np.uint8]:
        """(height, width, 3) what a policy camera sees.

        Raises:
            BasePolicyError: a real cell has no such camera.
            RenderError: a simulation cannot be drawn on this machine.
        """

    def close(self) -> None:
        """Free threads, connections and rendering contexts."""


@runtime_checkable
class Simulation(World, Protocol):
    """N simulated worlds: they know the true state, from which success follows."""

    @property
    def true(self) -> TrueState:
        """Poses, velocities and contacts as they are; privileged."""

    @property
    def critic_state(self) -> Array:
        """(N, C) the true state as one row per world, for critics in training."""

    def render(self, world: int, camera: str, size: tuple[int, int], visuals: Visuals = "light") -> NDArray[np.uint8]:
        """(height, width, 3) picture of one world for people ("full") or as policies see it ("light").

        Raises:
            RenderError: no picture can be made on this machine.
        """


@runtime_checkable
class RealCell(World, Protocol):
    """One real robot (N = 1): poses are tracked, the operator judges, and a fault waits for him."""

    tracker: CellTracker
    """Where the objects' poses come from."""
    periods: list[float]
    """Seconds of each control step of the episode, as measured."""
    wrench_bias: Array
    """(6,) zero of the wrench estimate, N and Nm, taken at the home posture."""

    def reset(
        self,
        worlds: IntArray | None = None,
        starts: Sequence[InitialState] | None = None,
        physics: Sequence[EpisodePhysics] | None = None,
    ) -> None:
        """Move the arm home, and open or close the hand as the task starts. Raises ``RobotStopped`` after a fault."""

    def stop(self, world: int, reason: str) -> None:
        """Stop the arm: the episode has ended for ``reason``."""

    def verdict(self, world: int) -> bool | None:
        """Whether the operator calls the episode a success or a failure; ``None`` while he has not said."""

    def rest(self) -> None:
        """Let the arm come to rest at the end of an episode."""

    def stop_report(self) -> Stop | None:
        """Why and when the arm stopped, if it did."""

    def recover(self) -> None:
        """Clear the fault, on the operator's word only. Raises ``RobotStopped`` where it stays."""
