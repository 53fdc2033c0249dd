"""Turns the readings of a pose source into observed object poses, and detects when a source has failed.

``TrackedObjects`` is the real counterpart of the simulation's pose error model: once per control step it returns which
objects are seen, and where. The result goes into the same pose filter as in simulation, where an unseen object is a
dropout. :mod:`oc_residual_gym.real.gate` decides which readings are accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from oc_residual_gym.errors import RobotStopped, SettingsError, StopReason
from oc_residual_gym.perception.calibration import Calibration
from oc_residual_gym.perception.messages import TrackedPose
from oc_residual_gym.perception.sources import PoseSource
from oc_residual_gym.real.gate import Gate, ToolMotion
from oc_residual_gym.states import Array, BoolArray, IntArray, Readings
from oc_residual_gym.tasks.base import ObservedObject

if TYPE_CHECKING:
    from oc_residual_gym.real.cell import Poses

START_LIMIT = 5.0
"""Seconds at the start of an episode within which every object must be accepted."""
LONGEST_STEP = 0.1
"""Longest time between observations, in seconds, that counts as time without poses: a paused program is not a fault."""


class TrackedObjects:
    """The observed objects of one real cell.

    Args:
        objects: the task's observed objects (``Task.objects``).
        source: where poses come from.
        settings: limits for accepting poses.
        calibration: required if poses are in the camera's frame.
        clock: monotonic clock in seconds, the same as for the source's stamps.
        sleep: waits for some seconds, at the start of an episode.

    Attributes:
        max_age: maximum age of a pose in seconds, from its image to its use.
        readings: the source's readings at the last observation.
    """

    def __init__(
        self,
        objects: Sequence[ObservedObject],
        source: PoseSource,
        settings: Poses,
        calibration: Calibration | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._gates = [Gate(observed, settings) for observed in objects]
        self._source, self._settings, self._calibration = source, settings, calibration
        self._clock, self._sleep = clock, sleep
        self.max_age = settings.max_age
        self._begin()

    def _begin(self) -> None:
        count = len(self._gates)
        self._motion = ToolMotion()
        self._observed_at = -np.inf
        self._unused_for, self._jumping_for = np.zeros(count), np.zeros(count)  # seconds
        self.readings = Readings(*_nothing(count), np.zeros(count, bool), ("missing",) * count)
        for gate in self._gates:
            gate.forget()

    @property
    def calibration_label(self) -> str:
        """Calibration as recorded in results: ours, or the one that the publisher says it has applied."""
        if self._calibration is not None:
            return self._calibration.label
        return self._source.calibration or "none stated by the publisher"

    @property
    def newest_stamp(self) -> float:
        """Stamp of the newest reading, of any status, of the object with the oldest one; -inf if one has none."""
        latest = self._source.latest()
        return min(latest[gate.name].stamp if gate.name in latest else -np.inf for gate in self._gates)

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator], physics: object = None) -> None:
        """Start an episode: wait until every object is accepted, which takes ``reacquire`` readings.

        The arguments exist for compatibility with simulated worlds, and are ignored.

        Raises:
            SettingsError: the calibration is missing, or differs from the one that the publisher has applied.
            RobotStopped: an object was not accepted in time; the message says which one and why.
        """
        self._begin()
        deadline = self._clock() + START_LIMIT
        while True:
            latest, now = self._source.latest(), self._clock()
            if latest:
                self._check_calibration()
            states = {gate.name: self._judge(gate, latest.get(gate.name), now)[0] for gate in self._gates}
            if set(states.values()) == {"used"}:
                break
            if now > deadline:
                reason = StopReason.POSES_JUMPED if "jumped" in states.values() else StopReason.POSES_SILENT
                bad = ", ".join(f"{name!r}: {state}" for name, state in states.items() if state != "used")
                detail = f"not every object was seen steadily within {START_LIMIT:.0f} s ({bad})"
                raise RobotStopped(reason, self._with_problem(detail))
            self._sleep(0.005)
        if fault := self.fault():
            raise RobotStopped(*fault)

    def observe(
        self, tcp_pose: Array, closed: BoolArray | None = None, worlds: IntArray | None = None
    ) -> tuple[Array, BoolArray]:
        """Observe the objects in this control step.

        Args:
            tcp_pose: (1, 7) measured TCP pose.
            closed: ignored; for compatibility with simulated worlds.
            worlds: ignored, likewise.

        Returns:
            Poses ``(1, K, 7)`` in the base frame, NaN where not seen, and whether each object was seen ``(1, K)``.
        """
        latest, now = self._source.latest(), self._clock()
        elapsed = min(now - self._observed_at, LONGEST_STEP)
        self._observed_at = now
        self._motion.add(tcp_pose[0], now)
        poses, ages = _nothing(len(self._gates))
        states = []
        for k, gate in enumerate(self._gates):
            reading = latest.get(gate.name)
            state, pose = self._judge(gate, reading, now)
            if reading is not None and pose is not None:
                poses[k], ages[k] = pose, now - reading.stamp
            self._unused_for[k] = 0.0 if state == "used" else self._unused_for[k] + elapsed
            self._jumping_for[k] = self._jumping_for[k] + elapsed if state == "jumped" else 0.0
            states.append(state)
        seen = np.array([state == "used" for state in states])
        self.readings = Readings(poses, ages, seen, tuple(states))
        return np.where(seen[:, None], poses, np.nan)[None], seen[None].copy()

    def wrench_noise(self) -> Array:
        """(1, 6) zeros: a real wrench has its own noise."""
        return np.zeros((1, 6))

    def fault(self) -> tuple[StopReason, str] | None:
        """Reason why the arm must stop now, and what was measured; ``None`` while the poses are reliable."""
        latest, now, settings = self._source.latest(), self._clock(), self._settings
        for gate, unused_for, jumping_for in zip(self._gates, self._unused_for, self._jumping_for, strict=True):
            silent_for = now - latest[gate.name].stamp if gate.name in latest else np.inf
            if silent_for > settings.silence_limit:
                old = "was never sent" if np.isinf(silent_for) else f"is {silent_for:.1f} s old"
                detail = f"the last image of {gate.name!r} {old}"
                return StopReason.POSES_SILENT, self._with_problem(f"{detail}; the limit is {settings.silence_limit} s")
            if gate.frozen:
                return StopReason.POSES_FROZEN, (
                    f"{gate.same_count} readings of {gate.name!r} in a row were the very same numbers: restart its "
                    'tracker (an object that cannot move and was measured once has the status "fixed")'
                )
            if jumping_for > settings.silence_limit:
                return StopReason.POSES_JUMPED, f"{gate.name!r} {gate.jump()} for {jumping_for:.1f} s"
            if unused_for > settings.lost_limit:
                detail = f"{gate.name!r} was not seen for {unused_for:.1f} s (its last reading: {gate.state})"
                return StopReason.POSES_SILENT, self._with_problem(f"{detail}; the limit is {settings.lost_limit} s")
        return None

    def close(self) -> None:
        """Close the pose source."""
        self._source.close()

    def _judge(self, gate: Gate, reading: TrackedPose | None, now: float) -> tuple[str, Array | None]:
        """State of an object's newest reading, and its pose (7,) in the base frame."""
        pose = None if reading is None else reading.pose
        if pose is not None and self._source.frame == "camera" and self._calibration is not None:
            pose = self._calibration.apply(pose)
        return gate.judge(reading, pose, now, self._motion), pose

    def _check_calibration(self) -> None:
        frame, applied, ours = self._source.frame, self._source.calibration, self._calibration
        if frame == "camera" and ours is None:
            raise SettingsError(
                "the poses come in the camera's frame: name the calibration's file in the cell's file, "
                "as poses: calibration: FILE"
            )
        if ours is not None and applied != ours.id and (applied or frame == "base"):
            theirs = f"the calibration {applied!r}" if applied else "none"
            raise SettingsError(
                f"the publisher of poses says that it uses {theirs}, but "
                f"the cell's file names {ours.id!r}: give both the same one"
            )

    def _with_problem(self, detail: str) -> str:
        problem = self._source.problem()
        return f"{detail}; {problem}" if problem else detail


def _nothing(count: int) -> tuple[Array, Array]:
    """Poses (K, 7) and ages (K,) of unseen objects: NaN."""
    return np.full((count, 7), np.nan), np.full(count, np.nan)
