"""The gate decides which readings of an object to accept: age, place, jumps, and detection of a frozen tracker.

A reading is used if its object is tracked, it is not older than ``max_age``, its object can be there
(:mod:`oc_residual_gym.real.places`; a fixed object only where it was first), and the object can have moved there since
the last used reading: by ``jump_position`` and ``jump_rotation``, and farther if the hand was near, because an object
may move with the tool, fall, roll or topple. A switch between poses that look the same is not a motion.

At the start of an episode, a pose is accepted once ``reacquire`` readings in a row agree with each other. Later, single
wrong readings are left out, and as many readings in a row that agree on another place are a fault: either they are
wrong, or the earlier ones were.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from oc_residual_gym.errors import StopReason
from oc_residual_gym.geometry import norm, rotation_between
from oc_residual_gym.perception.messages import CONTRADICTED, TrackedPose
from oc_residual_gym.real.places import impossible
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import ObservedObject
from oc_residual_gym.tasks.objects import ObjectSpec
from oc_residual_gym.tasks.symmetry import angle_between

if TYPE_CHECKING:
    from oc_residual_gym.real.cell import Poses

FROZEN_AFTER = 0.5
FROZEN_READINGS = 10
"""Seconds and number of readings with exactly the same numbers, under new stamps, after which a tracker is frozen."""
POSE_HINT = "check calibration, units, frame and quaternion order, or clear the cell"
DOUBTS = ("jumped", "outside")
"""States of readings that are not believed."""
HAND_REACH = 0.15
"""Distance in metres from the TCP to an object's origin within which the hand may have moved the object."""
ROLLING, TUMBLING, MOTION_LASTS = 0.5, 10.0, 1.0
"""Speeds in m/s and rad/s at which an object may roll and topple after the hand let go of it, and for how many seconds;
a fall is as fast as it is."""


class ToolMotion:
    """Records where the TCP was in the last seconds."""

    def __init__(self) -> None:
        self._pose: Array | None = None
        # One entry per control step: time, metres and radians since the start, and position.
        self._steps: deque[tuple[float, ...]] = deque(maxlen=128)

    def add(self, pose: Array, now: float) -> None:
        """Add the TCP's pose (7,) at the time ``now``, in seconds."""
        _, moved, turned, *_ = self._steps[-1] if self._steps else (now, 0.0, 0.0)
        if self._pose is not None:
            moved += float(norm(pose[:3] - self._pose[:3]))
            turned += float(norm(rotation_between(self._pose[3:], pose[3:])))
        self._pose = pose.copy()
        self._steps.append((now, moved, turned, *pose[:3]))

    def since(self, stamp: float) -> tuple[float, float]:
        """Distance moved and turned since ``stamp``, in metres and radians, as far back as recorded."""
        if not self._steps:
            return 0.0, 0.0
        times, moved, turned, *_ = np.array(self._steps).T
        return moved[-1] - np.interp(stamp, times, moved), turned[-1] - np.interp(stamp, times, turned)

    def distance_to(self, point: Array, stamp: float) -> float:
        """Smallest distance in metres of the TCP from ``point`` (3,) since ``stamp``; infinite without a record."""
        if not self._steps:
            return np.inf
        steps = np.array(self._steps)
        recent = steps[min(int(np.searchsorted(steps[:, 0], stamp)), len(steps) - 1) :, 3:]
        return float(norm(recent - point).min())


class Gate:
    """Accepts or rejects the readings of one object.

    Args:
        observed: the object.
        settings: the limits.
        spec: the object's shape; ``None`` if it is unknown.

    Attributes:
        pose: (7,) last used pose in the base frame; ``None`` before the first one.
        state: status of the newest reading: "used"; "jumped", "outside" or "contradicted" if it is not believed; "old",
            "lost", or "missing" if there never was one.
        frozen: whether the tracker repeats the same numbers.
    """

    def __init__(self, observed: ObservedObject, settings: Poses, spec: ObjectSpec | None = None) -> None:
        self.name, self._settings = observed.name, settings
        self._symmetry, self._spec = observed.symmetry, spec
        self.forget()
        self.frozen = False
        self.same_count = 0
        self._same_pose, self._same_since = np.full(7, np.nan), 0.0

    def forget(self) -> None:
        """Start a new episode: the object may be anywhere. The detection of a frozen tracker continues."""
        self.pose: Array | None = None
        self._first: Array | None = None
        self.state = "missing"
        self._stamp = self._judged = -np.inf  # stamps of the last used and the last judged reading
        self._near_hand = -np.inf  # stamp of the last used reading in the hand's reach
        self._unknown_for = 0.0  # seconds since the last used reading in which none was rejected either
        # Readings that were not believed, each agreeing with the one before: pose, stamp, why it is impossible.
        self._doubted: list[tuple[Array, float, str]] = []
        self._only_impossible = True  # whether all readings since the last used one were impossible
        self._exchanged_with, self._judged_state = "", "missing"

    def judge(
        self, reading: TrackedPose | None, pose: Array, now: float, motion: ToolMotion, exchanged_with: str = ""
    ) -> str:
        """Judge the newest reading; return its state, see :attr:`state`.

        Args:
            reading: the reading from the source; ``None`` if there is none.
            pose: (7,) its pose in the base frame; ignored without a reading.
            now: seconds of ``time.monotonic()``.
            motion: motion of the TCP.
            exchanged_with: name of another object, if the readings of the two have swapped their poses; else "".
        """
        if reading is None:
            self.state = "missing"
        elif reading.status in ("lost", CONTRADICTED):
            self.state = reading.status
        elif now - reading.stamp > self._settings.max_age:
            self.state = "old"
        elif reading.stamp != self._judged:
            if self.state not in DOUBTS and np.isfinite(self._judged):
                self._unknown_for += reading.stamp - self._judged
            self._judged, self._exchanged_with = reading.stamp, exchanged_with
            self._note_sameness(reading)
            self._judged_state = self.state = self._judge_pose(pose, reading.stamp, motion)
        else:
            self.state = self._judged_state
        return self.state

    def problem(self) -> tuple[StopReason, str] | None:
        """The reason to stop if the last reading's state lasts, and what is wrong with it, in words.

        ``None`` if the reading is believed, or there is none to believe.
        """
        if self.state == CONTRADICTED:
            return StopReason.POSES_CONTRADICT, "comes from two sources that disagree: stop one of them"
        if self.state not in DOUBTS:
            return None
        pose, _, impossible_because = self._doubted[-1]
        if impossible_because and (self.has_moved or self._only_impossible):
            return StopReason.POSES_OUTSIDE, f"{impossible_because}: {POSE_HINT}"
        if self._exchanged_with:
            with_whom = f"has exchanged places with {self._exchanged_with!r}"
            return StopReason.POSES_JUMPED, f"{with_whom}: has the tracker mixed up their names?"
        if self.pose is None:
            return StopReason.POSES_JUMPED, "has not been twice at the same place"
        away = self._difference(self.pose, pose)
        return StopReason.POSES_JUMPED, f"{away} from where it was, and the hand cannot have moved it there"

    @property
    def has_moved(self) -> bool:
        """Whether ``reacquire`` readings in a row agree on a place where the object cannot be."""
        return self.pose is not None and len(self._doubted) >= self._settings.reacquire

    def _judge_pose(self, pose: Array, stamp: float, motion: ToolMotion) -> str:
        impossible_because = self._impossible(pose)
        doubtful = bool(impossible_because or self._exchanged_with)
        if (
            not doubtful
            and self.pose is not None
            and self._agree(self.pose, self._stamp, pose, self._unknown_for, motion)
        ):
            return self._use(pose, stamp, motion)
        if self._doubted:
            last, last_stamp, _ = self._doubted[-1]
            if not self._agree(last, last_stamp, pose, stamp - last_stamp, motion):
                self._doubted.clear()
        self._doubted.append((pose, stamp, impossible_because))
        self._only_impossible = self._only_impossible and bool(impossible_because)
        if impossible_because:
            return "outside"
        if self.pose is None and len(self._doubted) >= self._settings.reacquire:
            return self._use(pose, stamp, motion)
        return "jumped"

    def _use(self, pose: Array, stamp: float, motion: ToolMotion) -> str:
        self.pose, self._stamp, self._unknown_for = pose, stamp, 0.0
        if motion.distance_to(pose[:3], stamp) < HAND_REACH:
            self._near_hand = stamp
        self._first = pose if self._first is None else self._first
        self._doubted.clear()
        self._only_impossible = True
        return "used"

    def _impossible(self, pose: Array) -> str:
        """Why the object cannot be at ``pose``; "" if it can."""
        settings, starting = self._settings, self._first is None
        if self._first is not None and self._spec is not None and self._spec.fixed:
            moved, turned = self._apart(self._first, pose)
            if moved > settings.jump_position or turned > settings.jump_rotation:
                return f"{self._difference(self._first, pose)} from its first place, although it is fixed"
        return impossible(pose, self._spec, starting)

    def _agree(self, earlier: Array, earlier_stamp: float, pose: Array, seconds: float, motion: ToolMotion) -> bool:
        """Whether the object can have moved from ``earlier`` to ``pose``, if it moved unseen for ``seconds``."""
        settings = self._settings
        step, position, rotation = pose[:3] - earlier[:3], settings.jump_position, settings.jump_rotation
        let_go = earlier_stamp - self._near_hand < MOTION_LASTS
        if let_go or motion.distance_to(earlier[:3], earlier_stamp) < HAND_REACH:
            moved, turned = motion.since(earlier_stamp)
            position += moved + ROLLING * seconds
            rotation += turned + TUMBLING * seconds
            step[2] = max(step[2], 0.0)  # it may have fallen
        return float(norm(step)) <= position and self._apart(earlier, pose)[1] <= rotation

    def _apart(self, a: Array, b: Array) -> tuple[float, float]:
        """Distance of two poses (7,) in metres and radians, up to the object's symmetry."""
        return float(norm(b[:3] - a[:3])), float(angle_between(a[3:], b[3:], self._symmetry))

    def _difference(self, a: Array, b: Array) -> str:
        moved, turned = self._apart(a, b)
        return f"is {100 * moved:.0f} cm and {np.degrees(turned):.0f} degrees"

    def _note_sameness(self, reading: TrackedPose) -> None:
        if reading.status == "fixed" or not np.array_equal(reading.pose, self._same_pose):
            self._same_pose, self._same_since, self.same_count = reading.pose, reading.stamp, 0
        self.same_count += 1
        # A pose that is sent twice has only one stamp: it does not count as frozen.
        self.frozen = self.same_count >= FROZEN_READINGS and reading.stamp - self._same_since > FROZEN_AFTER
