"""Pose sources: clients that receive object poses from a tracker of a real cell, by ZeroMQ or ROS 2.

A source only listens: it keeps the newest reading of every object and the time of its image.
:mod:`oc_residual_gym.real.tracking` decides which readings to accept. ``docs/pose_messages.md`` documents the messages.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from oc_residual_gym.errors import MessageError, SettingsError
from oc_residual_gym.perception.listener import Listener
from oc_residual_gym.perception.messages import TrackedPose, read_message

LARGEST_MESSAGE = 2**20
"""Maximum size of a message in bytes; one with five objects has about 1000."""


class PoseSource(Protocol):
    """Where object poses come from."""

    @property
    def frame(self) -> str:
        """ "base" or "camera"; "" before the first reading."""

    @property
    def calibration(self) -> str:
        """Id of the calibration that the source says it has applied; "" if it names none."""

    def latest(self) -> Mapping[str, TrackedPose]:
        """The newest reading of every object received so far. Never blocks."""

    def problem(self) -> str:
        """Description of what is wrong with the received messages; "" if nothing is."""

    def close(self) -> None:
        """Stop listening."""


def open_source(address: str, objects: Sequence[str]) -> PoseSource:
    """Create the client for an address, and start listening. Does not check that anybody publishes there.

    Args:
        address: "tcp://host:port" or "ipc:///path" of a ZeroMQ publisher, or "ros2://prefix" for the topics
            "/prefix/<object>".
        objects: names of the objects to listen for.

    Raises:
        SettingsError: the address is malformed, or its client's package is not installed.
    """
    scheme, _, place = address.partition("://")
    if scheme in ("tcp", "ipc") and place:
        return ZmqPoseSource(address, objects)
    if scheme == "ros2" and place:
        from oc_residual_gym.perception.ros2_source import Ros2PoseSource

        return Ros2PoseSource(place, objects)
    raise SettingsError(f'pose source {address!r}: write "tcp://HOST:PORT", "ipc:///PATH" or "ros2://TOPIC-PREFIX"')


class ZmqPoseSource(Listener):
    """Subscriber to a ZeroMQ publisher (PUB) of JSON messages.

    It listens in its own thread, so that the arrival time of each message is exact.

    Raises:
        SettingsError: the address is malformed, or pyzmq is not installed.
    """

    def __init__(self, address: str, objects: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(address, objects)
        try:
            import zmq
        except ImportError as error:
            raise missing_package(error) from error
        self._clock = clock
        self._closing = threading.Event()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise SettingsError(f"pose source {address!r}: {error}; write tcp://HOST:PORT") from error
        self._thread = threading.Thread(target=self._listen, name="poses", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._closing.is_set():
            if not self._socket.poll(50):
                continue
            text, received = self._socket.recv(), self._clock()
            try:
                self.take(read_message(text, received))
            except MessageError as error:
                self.refuse(str(error))
        # Closed here, because the socket belongs to this thread.
        self._context.destroy(linger=0)


def missing_package(error: ImportError) -> SettingsError:
    """The error to raise if a package of the extra "real" is not installed."""
    return SettingsError(f'{error}: the real robot needs more packages: pip install "oc-residual-gym[real]"')
