"""Base of the pose source clients: keeps the newest reading of each object, and counts unusable messages."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from oc_residual_gym.errors import outside_text
from oc_residual_gym.perception.messages import PoseMessage, TrackedPose


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
            return dict(self._latest)

    def problem(self) -> str:
        with self._lock:
            if not self._received and not self._refused:
                return f"nothing has come from {self._address} yet"
            problems = []
            if missing := [name for name in self._objects if name not in self._latest]:
                heard = f"it sends {', '.join(map(repr, sorted(self._others)))}" if self._others else "nor of any other"
                problems.append(f"no reading of {', '.join(map(repr, missing))} has come from {self._address}; {heard}")
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
                elif name not in self._latest or reading.stamp >= self._latest[name].stamp:
                    self._latest[name] = reading

    def refuse(self, why: str) -> None:
        """Count an unusable message; ``why`` says what is wrong with it."""
        with self._lock:
            self._note_refusal(why)

    def _note_refusal(self, why: str) -> None:
        self._refused += 1
        self._last_refusal = outside_text(why, 300)
