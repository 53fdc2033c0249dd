"""Turns the readings of a pose source into observed object poses, and detects when a source has failed.

``TrackedObjects`` is the real counterpart of the simulation's pose error model: once per control step it returns which
objects are seen, and where. The result goes into the same pose filter as in simulation, where an unseen object is a
dropout. :mod:`oc_residual_gym.real.gate` decides which readings are accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from oc_residual_gym.errors import RobotStopped, SettingsError, StopReason
from oc_residual_gym.geometry import norm
from oc_residual_gym.perception.calibration import Calibration
from oc_residual_gym.perception.messages import TrackedPose
from oc_residual_gym.perception.sources import PoseSource
from oc_residual_gym.real.gate import DOUBTS, Gate, ToolMotion
from oc_residual_gym.states import Array, BoolArray, IntArray, Readings
from oc_residual_gym.tasks.base import ObservedObject
from oc_residual_gym.tasks.objects import ObjectSpec

if TYPE_CHECKING:
    from oc_residual_gym.real.cell import Poses

START_LIMIT = 5.0
"""Seconds at the start of an episode within which every object must be accepted."""
LONGEST_STEP = 0.1
"""Longest time between observations, in seconds, that counts as time without poses: a paused program is not a fault."""
EXCHANGE_DISTANCE = 0.03
"""Distance in metres between two objects from which on exchanged poses can be told from noise."""


class TrackedObjects:
    """The observed objects of one real cell.

    Args:
        objects: the task's observed objects (``Task.objects``).
        source: where poses come from.
        settings: limits for accepting poses.
        calibration: required if poses are in the camera's frame.
        specs: shapes of the objects, as far as they are known, by name.
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
        specs: Sequence[ObjectSpec] = (),
    ) -> None:
        shapes = {spec.name: spec for spec in specs}
        self._gates = [Gate(observed, settings, shapes.get(observed.name)) for observed in objects]
        self._source, self._settings, self._calibration = source, settings, calibration
        self._clock, self._sleep = clock, sleep
        self.max_age = settings.max_age
        self._begin()

    def _begin(self) -> None:
        count = len(self._gates)
        self._motion = ToolMotion()
        self._observed_at = -np.inf
        self._unused_for, self._doubted_for = np.zeros(count), np.zeros(count)  # seconds
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

    @property
    def used_poses(self) -> Array:
        """(K, 7) last used pose of each object in the base frame, before the filter; NaN before the first one."""
        return np.array([np.full(7, np.nan) if gate.pose is None else gate.pose for gate in self._gates])

    def as_wxyz(self, poses: Array) -> Array:
        """What ``poses`` (K, 7) would be if the source's quaternions began with w."""
        camera = self._calibration if self._source.frame == "camera" else None
        sent = poses if camera is None else camera.undo(poses)
        sent = np.concatenate([sent[:, :3], np.roll(sent[:, 3:], -1, axis=1)], axis=1)
        return sent if camera is None else camera.apply(sent)

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
            self._judge(latest, now)
            bad = [gate for gate in self._gates if gate.state != "used"]
            if not bad:
                break
            if now > deadline:
                problems = {gate.name: gate.problem() for gate in bad}
                reason = next((problem[0] for problem in problems.values() if problem), StopReason.POSES_SILENT)
                words = [f"{gate.name!r}: {gate.state}" + _words(problems[gate.name]) for gate in bad]
                detail = f"not every object was seen steadily within {START_LIMIT:.0f} s ({', '.join(words)})"
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
        poses = self._judge(latest, now)
        states = tuple(gate.state for gate in self._gates)
        seen = np.array([state == "used" for state in states])
        ages = np.array([now - latest[g.name].stamp if g.name in latest else np.nan for g in self._gates])
        self._unused_for = np.where(seen, 0.0, self._unused_for + elapsed)
        self._doubted_for = np.where([state in DOUBTS for state in states], self._doubted_for + elapsed, 0.0)
        self.readings = Readings(poses, ages, seen, states)
        return np.where(seen[:, None], poses, np.nan)[None], seen[None].copy()

    def wrench_noise(self) -> Array:
        """(1, 6) zeros: a real wrench has its own noise."""
        return np.zeros((1, 6))

    def fault(self) -> tuple[StopReason, str] | None:
        """Reason why the arm must stop now, and what was measured; ``None`` while the poses are reliable."""
        latest, now, settings = self._source.latest(), self._clock(), self._settings
        for gate, unused_for, doubted_for in zip(self._gates, self._unused_for, self._doubted_for, strict=True):
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
            problem = gate.problem()
            if problem and (gate.has_moved or gate.state not in DOUBTS or doubted_for > settings.silence_limit):
                return problem[0], self._with_problem(f"{gate.name!r} {problem[1]}")
            if unused_for > settings.lost_limit:
                detail = f"{gate.name!r} was not seen for {unused_for:.1f} s (its last reading: {gate.state})"
                return StopReason.POSES_SILENT, self._with_problem(f"{detail}; the limit is {settings.lost_limit} s")
        return None

    def close(self) -> None:
        """Close the pose source."""
        self._source.close()

    def _judge(self, latest: Mapping[str, TrackedPose], now: float) -> Array:
        """Judge every object's newest reading; return their poses (K, 7) in the base frame, NaN without a reading."""
        poses = np.array(
            [latest[gate.name].pose if gate.name in latest else np.full(7, np.nan) for gate in self._gates]
        )
        if self._source.frame == "camera" and self._calibration is not None:
            poses = self._calibration.apply(poses)
        exchanges = self._exchanges(poses)
        for gate, pose in zip(self._gates, poses, strict=True):
            gate.judge(latest.get(gate.name), pose, now, self._motion, exchanges.get(gate.name, ""))
        return poses

    def _exchanges(self, poses: Array) -> dict[str, str]:
        """Objects of which each is read where the other one was last used, by name in both directions."""
        exchanges: dict[str, str] = {}
        for (i, a), (j, b) in combinations(enumerate(self._gates), 2):
            if a.pose is not None and b.pose is not None:
                apart = float(norm(a.pose[:3] - b.pose[:3]))
                off = max(float(norm(poses[i, :3] - b.pose[:3])), float(norm(poses[j, :3] - a.pose[:3])))
                if apart > EXCHANGE_DISTANCE and off < min(apart / 3.0, self._settings.jump_position):
                    exchanges |= {a.name: b.name, b.name: a.name}
        return exchanges

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


def _words(problem: tuple[StopReason, str] | None) -> str:
    return f", it {problem[1]}" if problem else ""


def _nothing(count: int) -> tuple[Array, Array]:
    """Poses (K, 7) and ages (K,) of unseen objects: NaN."""
    return np.full((count, 7), np.nan), np.full(count, np.nan)
