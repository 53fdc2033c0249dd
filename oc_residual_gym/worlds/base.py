"""Interfaces of a world, simulated or real: it tracks end-effector targets and reports the robot's state."""

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
    """Source of the observed object poses of N worlds."""

    def reset(
        self, worlds: IntArray, generators: Sequence[np.random.Generator], physics: Sequence[EpisodePhysics]
    ) -> None:
        """Start an episode in each of ``worlds``."""

    def observe(self, tcp_pose: Array, closed: BoolArray, worlds: IntArray | None) -> tuple[Array, BoolArray]:
        """Observe the objects after a control step of ``worlds``.

        Args:
            tcp_pose: (N, 7) measured TCP poses.
            closed: (N,) whether the gripper latch is closed.
            worlds: (n,) indices of the worlds; ``None`` means all.

        Returns:
            Poses (N, K, 7) in the base frame, in the order of ``Task.objects`` and NaN if an object was not seen; and
            whether each object was seen (N, K).
        """

    def wrench_noise(self) -> Array:
        """Noise (N, 6), N and Nm, to add to the wrench estimate of a simulation; zeros for a real robot."""


class CellTracker(Tracker, Protocol):
    """Tracker of the objects in a real cell."""

    readings: Readings
    """Readings of the pose source at the last observation."""

    @property
    def calibration_label(self) -> str:
        """Name and hash of the hand-eye calibration in use; "" if there is none."""

    @property
    def newest_stamp(self) -> float:
        """``time.monotonic()`` of the newest reading of the object whose newest reading is oldest."""

    @property
    def used_poses(self) -> Array:
        """(K, 7) last used pose of each object in the base frame, before the filter; NaN before the first one."""

    def as_wxyz(self, poses: Array) -> Array:
        """What ``poses`` (K, 7) would be if the source's quaternions began with w."""

    def fault(self) -> tuple[StopReason, str] | None:
        """Why the episode cannot continue, with details; ``None`` while the source is healthy."""


class World(Protocol):
    """N worlds whose arms track end-effector targets: the common interface of simulations and real cells."""

    task: Task
    """The task whose objects are in the worlds."""
    num_worlds: int
    """N."""
    robot: RobotState
    """Measured robot state after the last step."""
    stopped: BoolArray
    """(N,) whether the world cannot continue. It then does not change until its next reset."""
    speed: float
    """Fraction of the rate limit that targets may use: 1, or less in first trials on a robot."""
    peak_contact_force: Array
    """(N,) largest force on arm and hand within the last step, in newtons."""

    def reset(self, worlds: IntArray, starts: Sequence[InitialState], physics: Sequence[EpisodePhysics]) -> None:
        """Start an episode in each of ``worlds`` (n,) with n start states and n episode physics."""

    def step(self, targets: Array, worlds: IntArray | None = None) -> None:
        """Track ``targets`` (N, 8) for one control step in ``worlds`` (default: all); the other worlds stay still."""

    def stop_reason(self, world: int) -> str:
        """Why ``world`` has stopped; "" if it has not."""

    def image(self, world: int, camera: str) -> NDArray[np.uint8]:
        """Image (height, width, 3) of a policy camera.

        Raises:
            BasePolicyError: a real cell does not have this camera.
            RenderError: this machine cannot render the simulation.
        """

    def close(self) -> None:
        """Stop threads, close connections and free rendering contexts."""


@runtime_checkable
class Simulation(World, Protocol):
    """N simulated worlds. They know the true state, which decides success."""

    @property
    def true(self) -> TrueState:
        """True poses, velocities and contacts; privileged."""

    @property
    def critic_state(self) -> Array:
        """(N, C) true state as one vector per world, for critics in training; privileged."""

    def render(self, world: int, camera: str, size: tuple[int, int], visuals: Visuals = "light") -> NDArray[np.uint8]:
        """Image (height, width, 3) of one world, with visuals for people ("full") or for policies ("light").

        Raises:
            RenderError: this machine cannot render.
        """


@runtime_checkable
class RealCell(World, Protocol):
    """One real cell (N = 1). Its poses are tracked, an operator judges success, and a fault waits for the operator."""

    tracker: CellTracker
    """Tracker of the objects in the cell."""
    periods: list[float]
    """Measured duration of each control step of the episode, in seconds."""
    wrench_bias: Array
    """(6,) zero offset of the wrench estimate, N and Nm, measured in the home posture."""

    def reset(
        self,
        worlds: IntArray | None = None,
        starts: Sequence[InitialState] | None = None,
        physics: Sequence[EpisodePhysics] | None = None,
    ) -> None:
        """Move the arm home and set the hand as the task starts. Raises ``RobotStopped`` after a fault."""

    def stop(self, world: int, reason: str) -> None:
        """Stop the arm, because the episode has ended for ``reason``."""

    def verdict(self, world: int) -> bool | None:
        """The operator's verdict: success or failure, ``None`` until there is one."""

    def rest(self) -> None:
        """Let the arm come to rest at the end of an episode."""

    def stop_report(self) -> Stop | None:
        """Why and when the arm stopped, if it did."""

    def recover(self) -> None:
        """Clear the fault, only when the operator asks for it. Raises ``RobotStopped`` if the fault remains."""
