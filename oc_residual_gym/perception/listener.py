"""Base of the pose source clients: keeps the newest reading of each object, and counts unusable messages.

It also notices two publishers of one object: only here all of their readings arrive.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from oc_residual_gym.errors import outside_text
from oc_residual_gym.geometry import norm
from oc_residual_gym.perception.messages import CONTRADICTED, PoseMessage, TrackedPose
from oc_residual_gym.states import Array

APART = 0.03
"""Distance in metres beyond which a reading does not continue another one: no object is that fast at 15 Hz."""
COMPARED, MINORITY, CHANGES = 20, 6, 4
"""Number of readings that are compared. Two sources disagree if so many of them are at a second place, with so many
changes between places. (One wrong reading in four is a bad tracker, not a second one.)"""


class Places:
    """The places at which one object was read lately.

    Attributes:
        contradict: whether the readings alternate between two places, as if two sources disagreed.
        distance: metres between the last two different places.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[int, Array]] = deque(maxlen=COMPARED)
        self._count = 0
        self.contradict, self.distance = False, 0.0

    def add(self, position: Array) -> None:
        """Add a reading's position (3,) in metres."""
        place = next((place for place, there in reversed(self._last) if norm(there - position) < APART), None)
        if place is None:
            place, self._count = self._count, self._count + 1
        if self._last and self._last[-1][0] != place:
            self.distance = float(norm(self._last[-1][1] - position))
        self._last.append((place, position))
        places = [place for place, _ in self._last]
        often = Counter(places).most_common(2)
        changes = sum(a != b for a, b in pairwise(places))
        self.contradict = len(often) == 2 and often[1][1] >= MINORITY and changes >= CHANGES


class Listener:
    """Keeps the newest reading of each object, and counts unusable messages.

    Args:
        address: where the readings come from, for messages.
        objects: names of the objects to listen for; others are ignored.
    """

    def __init__(self, address: str, objects: Sequence[str]) -> None:
        self._address, self._objects = address, tuple(objects)
        self._lock = threading.Lock()
        self._latest: dict[str, TrackedPose] = {}
        self._places = {name: Places() for name in objects}
        self._frame = self._calibration = ""
        self._received = self._refused = 0
        self._last_refusal = ""
        self._others: set[str] = set()

    @property
    def frame(self) -> str:
        return self._frame

    @property
    def calibration(self) -> str:
        return self._calibration

    def latest(self) -> Mapping[str, TrackedPose]:
        with self._lock:
            return {
                name: replace(reading, status=CONTRADICTED) if self._places[name].contradict else reading
                for name, reading in self._latest.items()
            }

    def problem(self) -> str:
        with self._lock:
            if not self._received and not self._refused:
                return f"nothing has come from {self._address} yet"
            problems = []
            if missing := [name for name in self._objects if name not in self._latest]:
                heard = f"it sends {', '.join(map(repr, sorted(self._others)))}" if self._others else "nor of any other"
                problems.append(f"no reading of {', '.join(map(repr, missing))} has come from {self._address}; {heard}")
            for name, places in self._places.items():
                if places.contradict:
                    where = f"{name!r} comes in turn from two places {100 * places.distance:.0f} cm apart"
                    problems.append(f"{where}: do two publishers send it?")
            if self._refused:
                total = self._refused + self._received
                problems.append(f"{self._refused} of {total} messages were refused, the last one: {self._last_refusal}")
            return "; ".join(problems)

    def take(self, message: PoseMessage) -> None:
        """Accept one message; refuse it if its frame or calibration has changed."""
        with self._lock:
            if self._frame and message.frame != self._frame:
                self._note_refusal(f'"frame" changed from {self._frame!r} to {message.frame!r}')
                return
            if self._received and message.calibration != self._calibration:
                self._note_refusal(f'"calibration" changed from {self._calibration!r} to {message.calibration!r}')
                return
            self._frame, self._calibration = message.frame, message.calibration
            self._received += 1
            for name, reading in message.objects.items():
                if name not in self._objects:
                    # Limited, so that names that change with every message do not fill the memory.
                    self._others.update([name[:40]] if len(self._others) < 10 else [])
                    continue
                if reading.status != "lost":
                    self._places[name].add(reading.pose[:3])
                if name not in self._latest or reading.stamp >= self._latest[name].stamp:
                    self._latest[name] = reading

    def refuse(self, why: str) -> None:
        """Count an unusable message; ``why`` says what is wrong with it."""
        with self._lock:
            self._note_refusal(why)

    def _note_refusal(self, why: str) -> None:
        self._refused += 1
        self._last_refusal = outside_text(why, 300)
