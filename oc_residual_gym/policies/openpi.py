"""openpi servers as base policies: ``openpi://host:port`` (default port 8000).

The protocol is that of ``openpi-client`` 0.1 (https://github.com/Physical-Intelligence/openpi): a WebSocket on which
the server first describes itself; then one message per request and one per answer, both msgpack with NumPy arrays as
maps; errors arrive as text. That package is not used, because its client has no timeouts, and its decoder can create
arrays of Python objects from untrusted bytes.

Each world is one request (the protocol has no batches), with the keys of openpi's LIBERO example, its template for
fine-tuning: ``observation/image`` (the shoulder camera) and ``observation/wrist_image``, (224, 224, 3) uint8;
``observation/state`` (21,) float32, see :data:`oc_residual_gym.policies.server.COLUMNS`; and ``prompt``. The answer has
``actions`` (H, 8, 10 or 21), see :func:`oc_residual_gym.policies.server.targets_from_actions`. If a model has other
inputs or outputs, map them in the server's input and output transforms. The environment variable OPENPI_API_KEY, if
set, is sent along.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from oc_residual_gym.errors import BasePolicyError
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.policies.server import (
    LARGEST_REPLY,
    Address,
    ServerPolicy,
    missing_package,
    parse_address,
    state_columns,
)
from oc_residual_gym.states import Array

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

DEFAULT_PORT = 8000
IMAGE_SIZE = (224, 224)
"""Image size of openpi's models, (width, height) in pixels."""
_CLOSE_TIMEOUT = 0.5  # seconds; a hanging server does not answer the closing handshake


def openpi_policy(address: str, instruction: str) -> ServerPolicy:
    """Create the base policy for the openpi server at ``address`` and a task with this ``instruction``.

    Raises:
        ValueError: the address is malformed, or the packages of the extra "servers" are missing.
    """
    parsed = parse_address(address, DEFAULT_PORT)
    return ServerPolicy(parsed, OpenpiClient(parsed), instruction)


class OpenpiClient:
    """A connection to an openpi server."""

    def __init__(self, address: Address):
        try:
            import msgpack  # noqa: F401
            import websockets.sync.client  # noqa: F401
        except ImportError as error:
            raise missing_package(error) from error
        self._address = address
        self._exits = ExitStack()
        self._websocket: ClientConnection | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenpiClient, (self._address,)

    def infer(self, view: PolicyView, timeout: float) -> list[Array]:
        """Actions (H, width) for each world in ``view``.

        Raises:
            BasePolicyError: there was no valid answer within ``timeout`` seconds.
        """
        from websockets.exceptions import WebSocketException

        try:
            return [self._ask(observation, timeout) for observation in _observations(view)]
        except BaseException as error:
            # After any error: a late answer would be mistaken for the answer to the next request.
            self.close()
            if isinstance(error, TimeoutError):
                raise BasePolicyError(f"the server at {self._address.place} gave no answer in {timeout:g} s") from error
            if isinstance(error, (OSError, WebSocketException)):
                raise BasePolicyError(f"the connection to {self._address.place} was lost: {error}") from error
            raise

    def close(self) -> None:
        """Close the connection."""
        self._websocket = None
        self._exits.close()

    def _connect(self) -> ClientConnection:
        """The open connection, or a new one if there is none."""
        from websockets.exceptions import WebSocketException
        from websockets.protocol import State
        from websockets.sync.client import connect

        if self._websocket is not None and self._websocket.state is State.OPEN:
            return self._websocket
        self.close()
        key = os.environ.get("OPENPI_API_KEY")
        timeout = self._address.timeout
        try:
            connection = connect(
                f"ws://{self._address.place}",
                additional_headers={"Authorization": f"Api-Key {key}"} if key else None,
                compression=None,
                max_size=LARGEST_REPLY,
                open_timeout=timeout,
                # A server answers no pings while its model computes.
                ping_interval=None,
                close_timeout=_CLOSE_TIMEOUT,
                proxy=None,
            )
            self._websocket = self._exits.enter_context(connection)
            # Without this, sending to a server that has stopped reading would block forever.
            limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
            self._websocket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._websocket.recv(timeout)  # the server's description of itself, which has no fixed content
        except (OSError, WebSocketException) as error:
            raise BasePolicyError(
                f"no openpi server answers at {self._address.place} ({error or type(error).__name__}): start it, or "
                "correct the address"
            ) from error
        return self._websocket

    def _ask(self, observation: dict[str, Any], timeout: float) -> Array:
        """Send one world's observation; return its actions (H, width)."""
        import msgpack

        websocket = self._connect()
        websocket.send(msgpack.packb(observation, default=_encode))
        message = websocket.recv(timeout)
        if isinstance(message, str):
            raise BasePolicyError(f"the server reports: {(message.strip().splitlines() or ['an error'])[-1]}")
        try:
            reply = msgpack.unpackb(message, object_hook=_decode)
            return np.asarray(reply["actions"], np.float64)
        except Exception as error:
            raise BasePolicyError(f"the server's answer cannot be read as actions: {error!r}") from error


def _observations(view: PolicyView) -> list[dict[str, Any]]:
    """The observation to send for each world."""
    images = view.images or {}
    return [
        {
            "observation/image": _resized(images["shoulder"][row]),
            "observation/wrist_image": _resized(images["wrist"][row]),
            "observation/state": state,
            "prompt": view.instruction,
        }
        for row, state in enumerate(state_columns(view))
    ]


def _resized(image: np.ndarray) -> np.ndarray:
    """Resize an image as openpi does; ours are square and need no padding."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize(IMAGE_SIZE, Image.Resampling.BILINEAR))


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    raise TypeError(f"{type(value).__name__} has no place in a message")


def _decode(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        # frombuffer refuses arrays of Python objects.
        return np.frombuffer(value[b"data"], np.dtype(value[b"dtype"])).reshape(value[b"shape"])
    if b"__npgeneric__" in value:
        return value[b"data"]
    return value
