"""From a pose source to observed poses, and when a source is not to be trusted any more.

``TrackedObjects`` is for the real robot what the pose error model is for the simulation: once a control step it says
which objects are seen, and where. What is seen goes into the same pose filter as in simulation, and what is not seen is
a dropout there. :mod:`oc_residual_gym.real.gate` says which readings are believed.
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
"""Seconds that the source has at the start of an episode until every object is believed."""
LONGEST_STEP = 0.1
"""Seconds between two observations that count as time without poses at most: a pause of the program is no fault."""


class TrackedObjects:
    """The observed objects of one real cell.

    Args:
        objects: of the task (``Task.objects``).
        source: where poses come from.
        settings: what is believed of them.
        calibration: needed where poses come in the camera's frame.
        clock: seconds, monotonic; the one of the source's stamps.
        sleep: how to wait at the start of an episode.

    Attributes:
        max_age: seconds from an image to the use of its pose.
        readings: what the source said at the last observation.
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
        """What results record of the calibration: ours, or that which the publisher says it has applied."""
        if self._calibration is not None:
            return self._calibration.label
        return self._source.calibration or "none stated by the publisher"

    @property
    def newest_stamp(self) -> float:
        """Stamp of the newest reading, of whatever status, of the object heard of least recently; -inf if never."""
        latest = self._source.latest()
        return min(latest[gate.name].stamp if gate.name in latest else -np.inf for gate in self._gates)

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator], physics: object = None) -> None:
        """Start an episode: wait until every object is believed, which takes ``reacquire`` readings.

        The arguments are those of simulated worlds and change nothing.

        Raises:
            SettingsError: the calibration is missing, or not the one that the publisher has applied.
            RobotStopped: some object was not believed in time; the message says which and why.
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
        """What is seen in this control step.

        Args:
            tcp_pose: (1, 7) measured.
            closed, worlds: as in simulated worlds; they change nothing.

        Returns:
            Poses ``(1, K, 7)`` in the base frame, NaN where not seen, and whether the object was seen ``(1, K)``.
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
        """(1, 6) zeros: a real wrench comes with its own."""
        return np.zeros((1, 6))

    def fault(self) -> tuple[StopReason, str] | None:
        """Why the arm has to stop now, with what was measured; ``None`` while the poses can be relied on."""
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
        """Close the source."""
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
    """Poses and ages of objects that were not seen."""
    return np.full((count, 7), np.nan), np.full(count, np.nan)
