"""The gate decides which readings of an object to accept: age limit, jump limit, and detection of a frozen tracker.

A reading is used if its object is tracked, it is not older than ``max_age``, and it does not jump: it may differ from
the last used one by ``jump_position`` and ``jump_rotation``, plus the TCP's own motion since then, because an object in
the hand moves along. After a jump, and at the start of an episode, a pose is accepted once ``reacquire`` readings in a
row agree with each other. A switch between poses that look the same is not a jump.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from oc_residual_gym.geometry import norm, rotation_between
from oc_residual_gym.perception.messages import TrackedPose
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import ObservedObject
from oc_residual_gym.tasks.symmetry import angle_between

if TYPE_CHECKING:
    from oc_residual_gym.real.cell import Poses

FROZEN_AFTER = 0.5
FROZEN_READINGS = 10
"""Seconds and number of readings with exactly the same numbers, under new stamps, after which a tracker is frozen."""


class ToolMotion:
    """Records how far the TCP has moved and turned in the last seconds."""

    def __init__(self) -> None:
        self._pose: Array | None = None
        # One entry per control step: time, and metres and radians since the start.
        self._steps: deque[tuple[float, float, float]] = deque(maxlen=128)

    def add(self, pose: Array, now: float) -> None:
        """Add the TCP's pose (7,) at the time ``now``, in seconds."""
        _, moved, turned = self._steps[-1] if self._steps else (now, 0.0, 0.0)
        if self._pose is not None:
            moved += float(norm(pose[:3] - self._pose[:3]))
            turned += float(norm(rotation_between(self._pose[3:], pose[3:])))
        self._pose = pose.copy()
        self._steps.append((now, moved, turned))

    def since(self, stamp: float) -> tuple[float, float]:
        """Distance moved and turned since ``stamp``, in metres and radians, as far back as recorded."""
        if not self._steps:
            return 0.0, 0.0
        times, moved, turned = np.array(self._steps).T
        return moved[-1] - np.interp(stamp, times, moved), turned[-1] - np.interp(stamp, times, turned)


class Gate:
    """Accepts or rejects the readings of one object.

    Args:
        observed: the object.
        settings: the limits.

    Attributes:
        pose: (7,) last used pose in the base frame; ``None`` before the first one.
        state: status of the newest reading: "used", "jumped", "old", "lost", or "missing" if there never was one.
        frozen: whether the tracker repeats the same numbers.
    """

    def __init__(self, observed: ObservedObject, settings: Poses) -> None:
        self.name, self._settings = observed.name, settings
        self._symmetry = observed.symmetry
        self.forget()
        self.frozen = False
        self.same_count = 0
        self._same_pose, self._same_since = np.full(7, np.nan), 0.0

    def forget(self) -> None:
        """Start a new episode: the object may be anywhere. The detection of a frozen tracker continues."""
        self.pose: Array | None = None
        self.state = "missing"
        self._stamp = self._judged = -np.inf  # stamps of the last used and the last judged reading
        self._doubted: list[tuple[Array, float]] = []  # readings that jumped, each agreeing with the one before

    def judge(self, reading: TrackedPose | None, pose: Array | None, now: float, motion: ToolMotion) -> str:
        """Judge the newest reading; return its state, see :attr:`state`.

        Args:
            reading: the reading from the source; ``None`` if there is none.
            pose: (7,) its pose in the base frame.
            now: seconds of ``time.monotonic()``.
            motion: motion of the TCP.
        """
        if reading is None or pose is None:
            self.state = "missing"
        elif reading.status == "lost":
            self.state = "lost"
        elif now - reading.stamp > self._settings.max_age:
            self.state = "old"
        elif reading.stamp == self._judged:
            self.state = "used" if reading.stamp == self._stamp else "jumped"
        else:
            self._judged = reading.stamp
            self._note_sameness(reading)
            self.state = "used" if self._believes(pose, reading.stamp, motion) else "jumped"
        return self.state

    def jump(self) -> str:
        """How far the last rejected reading is from the object's last used pose, in words."""
        if self.pose is None or not self._doubted:
            return "has not been twice at the same place"
        doubted = self._doubted[-1][0]
        distance = 100 * float(norm(doubted[:3] - self.pose[:3]))
        angle = np.degrees(angle_between(self.pose[3:], doubted[3:], self._symmetry))
        return f"has been {distance:.0f} cm and {angle:.0f} degrees from where it was"

    def _believes(self, pose: Array, stamp: float, motion: ToolMotion) -> bool:
        if self.pose is None or not self._agree(self.pose, self._stamp, pose, motion):
            if self._doubted and not self._agree(*self._doubted[-1], pose, motion):
                self._doubted.clear()
            self._doubted.append((pose, stamp))
            if len(self._doubted) < self._settings.reacquire:
                return False
        self.pose, self._stamp = pose, stamp
        self._doubted.clear()
        return True

    def _agree(self, earlier: Array, stamp: float, pose: Array, motion: ToolMotion) -> bool:
        """Whether the object can have moved from ``earlier`` (at ``stamp``) to ``pose``."""
        moved, turned = motion.since(stamp)
        distance = float(norm(pose[:3] - earlier[:3]))
        angle = float(angle_between(earlier[3:], pose[3:], self._symmetry))
        return distance <= self._settings.jump_position + moved and angle <= self._settings.jump_rotation + turned

    def _note_sameness(self, reading: TrackedPose) -> None:
        if reading.status == "fixed" or not np.array_equal(reading.pose, self._same_pose):
            self._same_pose, self._same_since, self.same_count = reading.pose, reading.stamp, 0
        self.same_count += 1
        # A pose that is sent twice has only one stamp: it does not count as frozen.
        self.frozen = self.same_count >= FROZEN_READINGS and reading.stamp - self._same_since > FROZEN_AFTER
