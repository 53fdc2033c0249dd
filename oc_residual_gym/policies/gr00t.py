"""GR00T servers as base policies: ``gr00t://host:port`` (default port 5555).

The protocol is that of Isaac-GR00T's ``PolicyServer`` (N1.6 and N1.7, https://github.com/NVIDIA/Isaac-GR00T,
``gr00t/policy/server_client.py``; run it without its simulation wrapper): ZeroMQ request and reply, msgpack with arrays
in NumPy's file format. All worlds form one batch. The inference service of N1.5 (``gr00t/eval/service.py``) works too;
it is recognised by modality keys with a prefix ("video.wrist"), and is queried for one world at a time.

The server reports the modalities of its model. Supported are those of ``modality.json`` in our LeRobot datasets: video
"shoulder" and "wrist", (128, 128, 3) uint8; state, float32, :data:`oc_residual_gym.policies.server.COLUMNS`; and one
language key for the instruction. Only the present step is sent, no history. The answer must have absolute targets:
``eef_9d`` (H, 9), or ``eef_position`` (H, 3) with ``eef_rotation_6d`` (H, 6) or ``eef_quaternion`` (H, 4); and
``gripper_position`` (H, 1). The environment variable GR00T_API_TOKEN, if set, is sent along.
"""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oc_residual_gym.errors import BasePolicyError
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.policies.server import (
    COLUMNS,
    LARGEST_REPLY,
    Address,
    ServerPolicy,
    missing_package,
    parse_address,
    state_columns,
)
from oc_residual_gym.states import Array

if TYPE_CHECKING:
    import zmq

DEFAULT_PORT = 5555
_POSES = (("eef_9d",), ("eef_position", "eef_rotation_6d"), ("eef_position", "eef_quaternion"))
"""Sets of keys that make up a pose, in order of preference."""


def gr00t_policy(address: str, instruction: str) -> ServerPolicy:
    """Create the base policy for the GR00T server at ``address`` and a task with this ``instruction``.

    Raises:
        ValueError: the address is malformed, or the packages of the extra "servers" are missing.
    """
    parsed = parse_address(address, DEFAULT_PORT)
    return ServerPolicy(parsed, Gr00tClient(parsed), instruction)


@dataclass(frozen=True)
class Modalities:
    """Inputs of a server's model."""

    video: tuple[str, ...]
    state: tuple[str, ...]
    language: str
    named: bool
    """Whether keys have their modality's name as a prefix, as in N1.5."""


class Gr00tClient:
    """A connection to a GR00T server."""

    def __init__(self, address: Address):
        try:
            import msgpack  # noqa: F401
            import zmq  # noqa: F401
        except ImportError as error:
            raise missing_package(error) from error
        self._address = address
        self._socket: zmq.Socket[bytes] | None = None
        self._modalities: Modalities | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Gr00tClient, (self._address,)

    def infer(self, view: PolicyView, timeout: float) -> list[Array]:
        """Actions (H, 8 or 10) for each world in ``view``.

        Raises:
            BasePolicyError: there was no valid answer within ``timeout`` seconds.
        """
        try:
            if self._modalities is None:
                self._modalities = _modalities(self._call("get_modality_config", None, self._address.timeout))
            observation = _observation(view, self._modalities)
            if not self._modalities.named:
                data = {"observation": observation, "options": None}
                return list(_actions(self._call("get_action", data, timeout), len(view.worlds)))
            rows = [{k: v[i] for k, v in observation.items()} for i in range(len(view.worlds))]
            return [_actions(self._call("get_action", row, timeout), 1)[0] for row in rows]
        except BaseException:
            # After any error: a REQ socket that still waits for an answer cannot send another request.
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._modalities = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> zmq.Socket[bytes]:
        import zmq

        if self._socket is None:
            self._socket = zmq.Context.instance().socket(zmq.REQ)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.IPV6, ":" in self._address.host)
            self._socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_REPLY)
            # Without a server, sending times out instead of queueing the request.
            self._socket.setsockopt(zmq.IMMEDIATE, 1)
            self._socket.setsockopt(zmq.SNDTIMEO, math.ceil(1000 * self._address.timeout))
            self._socket.connect(f"tcp://{self._address.place}")
        return self._socket

    def _call(self, endpoint: str, data: dict[str, Any] | None, timeout: float) -> Any:
        """Call one endpoint of the server; return its answer."""
        import msgpack
        import zmq

        request: dict[str, Any] = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if token := os.environ.get("GR00T_API_TOKEN"):
            request["api_token"] = token
        try:
            socket = self._connect()
            socket.setsockopt(zmq.RCVTIMEO, math.ceil(1000 * timeout))
            socket.send(msgpack.packb(request, default=_encode))
        except zmq.ZMQError as error:
            raise BasePolicyError(
                f"no GR00T server answers at {self._address.place}: start it, or correct the address"
            ) from error
        try:
            message = socket.recv()
        except zmq.ZMQError as error:
            raise BasePolicyError(f"the server at {self._address.place} gave no answer in {timeout:g} s") from error
        try:
            reply = msgpack.unpackb(message, object_hook=_decode)
        except Exception as error:
            raise BasePolicyError(f"the server's answer cannot be read: {error!r}") from error
        if isinstance(reply, dict) and "error" in reply:
            raise BasePolicyError(f"the server reports: {reply['error']}")
        return reply


def _modalities(config: Any) -> Modalities:
    """Parse the answer of ``get_modality_config``."""
    try:
        keys = {name: [str(key) for key in config[name]["modality_keys"]] for name in ("video", "state", "language")}
        steps = {name: len(config[name]["delta_indices"]) for name in ("video", "state")}
    except (KeyError, TypeError) as error:
        raise BasePolicyError(f"the server's modality configuration cannot be read: {error!r}") from error
    named = any(key.startswith("video.") for key in keys["video"])
    for name, known in {"video": ("shoulder", "wrist"), "state": tuple(COLUMNS)}.items():
        plain = [key.removeprefix(f"{name}.") for key in keys[name]]
        if unknown := set(plain) - set(known):
            raise BasePolicyError(
                f"the server's model wants the {name} {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            )
        if steps[name] != 1:
            raise BasePolicyError(
                f"the server's model wants {steps[name]} steps of {name}; there is the present one only"
            )
        keys[name] = plain
    if len(keys["language"]) != 1:
        raise BasePolicyError(f"the server's model wants {len(keys['language'])} instructions; there is one")
    return Modalities(tuple(keys["video"]), tuple(keys["state"]), keys["language"][0], named)


def _observation(view: PolicyView, modalities: Modalities) -> dict[str, Any]:
    """The observation to send: arrays (n, 1, ...); the second axis is time."""
    images, columns = view.images or {}, state_columns(view)
    video = {key: images[key][:, None] for key in modalities.video}
    state = {key: columns[:, None, COLUMNS[key]] for key in modalities.state}
    language = {modalities.language: [[view.instruction]] * len(view.worlds)}
    if not modalities.named:
        return {"video": video, "state": state, "language": language}
    named = {f"video.{key}": value for key, value in video.items()}
    return named | {f"state.{key}": value for key, value in state.items()} | language


def _actions(reply: Any, count: int) -> Array:
    """Actions (count, H, 8 or 10) from an answer of ``get_action``: a list of actions and further information or, in
    N1.5, the actions alone."""
    named = isinstance(reply, dict)
    action = reply if named else reply[0] if isinstance(reply, list) and reply else None
    if not isinstance(action, dict):
        raise BasePolicyError(f"the server's answer is {type(action).__name__} where actions by name are wanted")
    action = {str(key).removeprefix("action."): value for key, value in action.items()}
    keys = next((keys for keys in _POSES if set(keys) <= set(action)), None)
    if keys is None or "gripper_position" not in action:
        raise BasePolicyError(
            f"the server returned {', '.join(action) or 'nothing'}; expected gripper_position and one of "
            f"{'; '.join(' with '.join(keys) for keys in _POSES)}"
        )
    parts = []
    for key in (*keys, "gripper_position"):
        width = COLUMNS[key].stop - COLUMNS[key].start
        try:
            value = np.asarray(action[key], np.float64)
            # N1.5 has no batch axis, and also drops other axes of length 1.
            if named:
                value = value.reshape(1, -1, width) if value.ndim < 2 else value[None]
        except (TypeError, ValueError) as error:
            raise BasePolicyError(f"the server returned {key}, not an array of {width} columns: {error}") from error
        if value.ndim != 3 or len(value) != count or value.shape[2] != width:
            raise BasePolicyError(
                f"the server returned {key} of shape {value.shape}; expected ({count}, targets, {width})"
            )
        parts.append(value)
    if len({part.shape[1] for part in parts}) != 1:
        raise BasePolicyError(f"the server returned actions of {[part.shape[1] for part in parts]} targets: differing")
    return np.concatenate(parts, axis=-1)


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = io.BytesIO()
        np.save(data, value, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": data.getvalue()}
    raise TypeError(f"{type(value).__name__} has no place in a message")


def _array(content: bytes) -> np.ndarray:
    """An array in NumPy's file format. NumPy's own reader allocates what the header claims before it reads."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, fortran_order, dtype = read_header(file)
    # frombuffer refuses arrays of Python objects.
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if fortran_order else "C")


def _decode(value: dict[Any, Any]) -> Any:
    if "__ndarray_class__" in value:
        return _array(value["as_npy"])
    if "__ModalityConfig_class__" in value:
        config = value["as_json"]
        return json.loads(config) if isinstance(config, str) else config
    return value
