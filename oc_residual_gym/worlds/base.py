"""What a world is: it takes end-effector targets and reports the robot's state, in simulation or in reality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from oc_residual_gym.tasks.base import InitialState, Task
    from oc_residual_gym.worlds.domains import EpisodePhysics

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

CONTROL_FREQUENCY = 20.0
"""Control steps per second."""


@dataclass
class RobotState:
    """What a real FR3 cell measures, for N robots; base frame, SI units."""

    joint_positions: Array
    """(N, 7) rad."""
    joint_velocities: Array
    """(N, 7) rad/s."""
    tcp_pose: Array
    """(N, 7) position and quaternion xyzw of the tool centre point."""
    tcp_velocity: Array
    """(N, 6) linear (m/s) and angular (rad/s) velocity of the tool centre point."""
    gripper_width: Array
    """(N,) distance between the fingers in metres, 0 to 0.08."""
    wrench: Array
    """(N, 6) estimate of the external force (N) and torque (Nm) on the tool, about the TCP, axes of the base frame,
    averaged over the control step."""


@dataclass
class TrueState:
    """What only a simulation knows, for N worlds; base frame, SI units. Privileged: never shown to a policy."""

    poses: Mapping[str, Array]
    """Body name to (N, 7) position and quaternion xyzw."""
    velocities: Mapping[str, Array]
    """Body name to (N, 6) linear and angular velocity."""
    contacts: Mapping[str, BoolArray]
    """Contact name (``Task.contacts``) to (N,): do the two touch?"""
    slides: Mapping[str, Array]
    """Drawer name to (N, 2): opening in metres and its speed in m/s."""
    parameters: Mapping[str, Array]
    """What ``Task.reset`` chose for the episode, (N,) each."""
    table_height: Array
    """(N,) height of the table top in metres; 0 but in shifted domains."""
    tcp_pose: Array
    """(N, 7) as in :class:`RobotState`."""
    gripper_width: Array
    """(N,) as in :class:`RobotState`."""


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
