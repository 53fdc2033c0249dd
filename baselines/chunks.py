"""From demonstrations to training samples: which rows to train on, and the chunk of targets that follows each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from demos_replay.demo import Demo
from oc_residual_gym.policies.base import HORIZON
from oc_residual_gym.states import Array, BoolArray, IntArray

WINDOW = 2
"""Rows to either side over which the target must rest for a row to be a pause."""
IDLE_POSITION, IDLE_ROTATION = 0.0016, 0.02
"""Largest motion of a resting target in metres and radians: the tremor of a hand at rest."""
WIDTH_SPEED = 0.0004
"""Metres per row above which the fingers count as moving."""
FINGER_ROWS = 4
"""Rows of a pause that are kept after the fingers have come to rest."""
LATCH_ROWS = 4
"""Rows kept after a gripper command, in which the fingers may not have started to move."""
END_ROWS = 12
"""Rows kept at the end, where success holds: they teach the policy to stay."""
GRIP_MARGIN = 0.002
"""Metres between closed fingers above which they hold an object."""
CARRY_DISTANCE = 0.08
"""Largest distance in metres from the TCP to a held object."""
HELD_OUT = 16
"""Every 16th demonstration is held out; the loss on it is reported."""

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Samples:
    """R states from one task's demonstrations, each with the chunk of targets that followed; base frame, SI units."""

    demo: IntArray
    """(R,) index of the demonstration."""
    row: IntArray
    """(R,) row within the demonstration."""
    tcp_pose: FloatArray
    """(R, 7) position and quaternion xyzw."""
    gripper_width: FloatArray
    """(R, 1) metres."""
    gripper_closed: FloatArray
    """(R, 1) state of the latch, 0 or 1."""
    previous_target: FloatArray
    """(R, 8) last executed target."""
    chunk: FloatArray
    """(R, 16, 8) targets executed next, without the demonstrator's pauses; past the end, the last one repeats."""
    slack: FloatArray
    """(R, 1) factor, 0 to 1, on the augmentation of the hand's pose: 0 at a change of the gripper command."""
    carried: Mapping[str, FloatArray]
    """Object name to (R, 1): 1 while it is held."""

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays except ``carried``, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "carried"}

    @property
    def is_held_out(self) -> BoolArray:
        """(R,) whether the sample is from a held-out demonstration."""
        return self.demo % HELD_OUT == HELD_OUT - 1


def moving_rows(demo: Demo) -> IntArray:
    """Indices of the rows of ``demo`` that are not pauses of the demonstrator.

    In a pause both the target and the fingers rest. Waiting for the fingers is not a pause, and the end is always kept.
    """
    rows = len(demo.target)
    closed = demo.target[:, 7] < 0.5
    keep = ~_resting(demo)
    moving = np.abs(np.diff(demo.gripper_width)) > WIDTH_SPEED
    flips = np.flatnonzero(closed != np.concatenate([[demo.gripper_closed[0]], closed[:-1]]))
    for row in np.flatnonzero(moving):
        keep[row : row + 1 + FINGER_ROWS] = True
    for row in flips:
        keep[max(row - 1, 0) : row + LATCH_ROWS] = True
    keep[max(rows - END_ROWS, 0) :] = True
    return np.flatnonzero(keep)


def _resting(demo: Demo) -> BoolArray:
    """(T,) whether the target rests from ``WINDOW`` rows before to ``WINDOW`` rows after each row."""
    target = demo.target
    rows = np.arange(len(target))
    quats = Rotation.from_quat(target[:, 3:7])
    resting = np.ones(len(target), bool)
    for shift in range(-WINDOW, WINDOW + 1):
        other = np.clip(rows + shift, 0, len(target) - 1)
        resting &= np.linalg.norm(target[other, :3] - target[:, :3], axis=1) < IDLE_POSITION
        resting &= (quats.inv() * quats[other]).magnitude() < IDLE_ROTATION
    return resting


def samples_of(demos: Sequence[Demo]) -> Samples:
    """Training samples from ``demos``, which are of one task."""
    parts = [_samples_of_one(number, demo) for number, demo in enumerate(demos)]
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    carried = {name: np.concatenate([part.carried[name] for part in parts]) for name in demos[0].objects}
    return Samples(**arrays, carried=carried)


def _samples_of_one(number: int, demo: Demo) -> Samples:
    kept = moving_rows(demo)
    start = np.concatenate([demo.tcp_pose[0], [0.0 if demo.gripper_closed[0] else 1.0]])
    previous = np.concatenate([start[None], demo.target[:-1]])
    ahead = np.minimum(np.arange(len(kept))[:, None] + np.arange(HORIZON), len(kept) - 1)
    closed = demo.gripper_closed[kept]
    holding = closed & (demo.gripper_width[kept] > GRIP_MARGIN)
    carried = {
        name: holding & (np.linalg.norm(poses[kept, :3] - demo.tcp_pose[kept, :3], axis=1) < CARRY_DISTANCE)
        for name, poses in demo.objects.items()
    }
    return Samples(
        demo=np.full(len(kept), number),
        row=kept,
        tcp_pose=_column(demo.tcp_pose[kept], 7),
        gripper_width=_column(demo.gripper_width[kept], 1),
        gripper_closed=_column(closed, 1),
        previous_target=_column(previous[kept], 8),
        chunk=demo.target[kept[ahead]].astype(np.float32),
        slack=_column(_slack(demo.target[kept, 7] < 0.5), 1),
        carried={name: _column(values, 1) for name, values in carried.items()},
    )


def _slack(closed: BoolArray) -> Array:
    """(R,) 0 where the gripper command changes, rising to 1 over one chunk length before and half of one after."""
    slack = np.ones(len(closed))
    rows = np.arange(len(closed))
    for change in np.flatnonzero(np.diff(closed)) + 1:
        distance = np.where(rows <= change, (change - rows) / HORIZON, 2 * (rows - change) / HORIZON)
        slack = np.minimum(slack, distance)
    return slack


def _column(values: np.ndarray, width: int) -> FloatArray:
    return values.reshape(len(values), width).astype(np.float32)
