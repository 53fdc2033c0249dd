"""A replayed demonstration: states and targets of the simulated cell, ready for any dataset format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oc_residual_gym.states import Array, BoolArray


@dataclass(frozen=True)
class Demo:
    """T control steps at 20 Hz in the simulated cell; base frame, SI units, quaternions xyzw.

    State t is measured before step t, and target t is executed in step t. There are T + 1 states: the last one follows
    the last step.
    """

    name: str
    """Unique name in a dataset: the end of the log file's path, as long as needed, and the name in that file."""
    task: str
    instruction: str
    success: bool
    """Success by the task's own rule, held for as long as an episode requires."""
    failure: str | None
    """Kind of failure; ``None`` for a success."""
    target: Array
    """(T, 8) executed targets: TCP pose, and gripper opening: 0 (closed) or 1 (open)."""
    reward: Array
    """(T,) the task's dense reward after each step."""
    tcp_pose: Array
    """(T + 1, 7) measured TCP pose."""
    tcp_velocity: Array
    """(T + 1, 6) TCP velocity: linear (m/s) and angular (rad/s)."""
    joint_positions: Array
    """(T + 1, 7) rad."""
    joint_velocities: Array
    """(T + 1, 7) rad/s."""
    gripper_width: Array
    """(T + 1,) distance between the fingers, metres."""
    gripper_closed: BoolArray
    """(T + 1,) state of the gripper latch; True is closed."""
    wrench: Array
    """(T + 1, 6) estimate of the external force (N) and torque (Nm) about the TCP."""
    objects: Mapping[str, Array]
    """Object name to true poses (T + 1, 7), for the task's observed objects."""
    qpos: Array
    """(T + 1, nq) joint positions of the simulation, for rendering it again."""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Camera name ("shoulder", "wrist") to images (T + 1, 128, 128, 3) uint8; empty unless requested."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """Replay report: source, drift, assumptions; values that JSON can hold."""
