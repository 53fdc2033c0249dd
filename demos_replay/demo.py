"""The replayed demonstration: what the simulated cell went through, ready for any dataset format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oc_residual_gym.states import Array, BoolArray


@dataclass(frozen=True)
class Demo:
    """T control steps at 20 Hz in the simulated cell; base frame, SI units, quaternions xyzw.

    State t (of T + 1) is measured before step t, target t (of T) is executed in it; the last state follows the last
    step.
    """

    name: str
    """Unique within a dataset: as much of the log file's path as that takes, and the demonstration's name in it."""
    task: str
    instruction: str
    success: bool
    """Under the task's own rule, held for as long as an episode demands."""
    failure: str | None
    """Why it is not a success."""
    target: Array
    """(T, 8) executed targets: TCP pose, and opening, 0 (closed) or 1 (open)."""
    reward: Array
    """(T,) the task's dense reward after each step."""
    tcp_pose: Array
    """(T + 1, 7)."""
    tcp_velocity: Array
    """(T + 1, 6) linear (m/s) and angular (rad/s)."""
    joint_positions: Array
    """(T + 1, 7) rad."""
    joint_velocities: Array
    """(T + 1, 7) rad/s."""
    gripper_width: Array
    """(T + 1,) metres."""
    gripper_closed: BoolArray
    """(T + 1,) state of the latch."""
    wrench: Array
    """(T + 1, 6) estimate of the external force (N) and torque (Nm) about the TCP."""
    objects: Mapping[str, Array]
    """True poses (T + 1, 7) of the task's observed objects."""
    qpos: Array
    """(T + 1, nq) joint positions of the simulation, for looking at it again."""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """(T + 1, 128, 128, 3) uint8 by camera name ("shoulder", "wrist"), if asked for."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What the replay says of itself: source, drift, assumptions; plain values for JSON."""
