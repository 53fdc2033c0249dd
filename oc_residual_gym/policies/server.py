"""Base policies that run as vision-language-action models on servers: shared inputs and outputs.

The models are assumed to be fine-tuned on a LeRobot dataset written by ``demos-replay convert``, and get the same
inputs: images of the cameras "shoulder" and "wrist", the columns of ``observation.state``, and the instruction. Their
actions are absolute targets, in all or some of the columns of ``action``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import BasePolicyError, outside_text
from oc_residual_gym.geometry import matrix_from_quat
from oc_residual_gym.policies.base import MAX_HORIZON, PolicyView
from oc_residual_gym.policies.conventions import malformed
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS, MAX_OPENING
from oc_residual_gym.states import Array, IntArray

COLUMNS = {
    "eef_9d": slice(0, 9),
    "eef_position": slice(0, 3),
    "eef_rotation_6d": slice(3, 9),
    "eef_quaternion": slice(9, 13),
    "joint_position": slice(13, 20),
    "gripper_position": slice(20, 21),
}
"""Columns of a dataset's state and action: position in m; first two rows of the rotation matrix; quaternion xyzw; joint
positions in rad; gripper opening, 0 to 1. ``eef_9d`` is the first two."""
WIDTH = 21

TIMEOUT = 10.0
"""Default time limit for an answer, in seconds."""
WARM_UP = 6
"""Factor on the time limit for the first answer: a freshly started model compiles first."""
LARGEST_REPLY = 2**24
"""Maximum size of a reply in bytes; a chunk of 50 targets has a few thousand."""

_OPTIONS = {"horizon": "targets to execute of each chunk", "timeout": "seconds to wait for an answer"}
_START_POSE = np.array([0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0])  # tool straight down


@dataclass(frozen=True)
class Address:
    """Address of a server, such as ``openpi://host:port?horizon=8&timeout=20``; the options may be left out."""

    text: str
    """The address as given."""
    host: str
    port: int
    horizon: int | None = None
    """Number of targets to execute from each chunk; ``None`` for all that the server returns."""
    timeout: float = TIMEOUT
    """Time limit for an answer, in seconds."""

    @property
    def place(self) -> str:
        """Host and port, as "host:port"."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int) -> Address:
    """Parse the address of a server.

    Raises:
        ValueError: it is malformed; the message says how.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"the address {text!r} is malformed: {error}") from error
    form = f"{parts.scheme}://HOST:PORT?horizon=8&timeout=20"
    if not host or parts.username is not None or parts.path.strip("/") or parts.fragment:
        raise ValueError(f"the address {text!r} is malformed: write {form}, the options being optional")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options.keys() - _OPTIONS:
        known = "; ".join(f"{key}, {meaning}" for key, meaning in _OPTIONS.items())
        raise ValueError(f"the address {text!r} has the unknown option {name!r}; there are: {known}")
    horizon, timeout = options.get("horizon"), options.get("timeout", str(TIMEOUT))
    if horizon is not None and not (horizon.isdecimal() and len(horizon) < 10 and 1 <= int(horizon) <= MAX_HORIZON):
        raise ValueError(f"the address {text!r} has horizon {horizon!r}: give a whole number from 1 to {MAX_HORIZON}")
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = math.nan
    if not 0.01 <= seconds <= 3600.0:
        raise ValueError(f"the address {text!r} has timeout {timeout!r}: give seconds, from 0.01 to 3600")
    return Address(text, host, port or default_port, None if horizon is None else int(horizon), seconds)


def missing_package(error: ImportError) -> ValueError:
    """The error to raise if the packages of the extra "servers" are not installed."""
    return ValueError(f'base policies on servers need the extra "servers" ({error}): pip install -e ".[servers]"')


class Client(Protocol):
    """A connection to a server. It connects when first needed, and reconnects after a loss. Can be pickled."""

    def infer(self, view: PolicyView, timeout: float) -> list[Array]:
        """Actions (H, width) for each world in ``view``, in the columns that :func:`targets_from_actions` expects.

        Raises:
            BasePolicyError: there was no valid answer within ``timeout`` seconds.
        """

    def close(self) -> None:
        """Close the connection."""


class ServerPolicy:
    """A base policy whose model runs on a server.

    It connects when ``horizon`` is first read, which every environment does on creation. It then requests one chunk for
    black images: this checks the connection and the shape of the chunks, and makes the server compile its model before
    the first episode. Results may not be reproducible, because most models draw noise from their own generators;
    ``hash`` is therefore ``None``.
    """

    hash: str | None = None
    needs = frozenset({"images"})

    def __init__(self, address: Address, client: Client, instruction: str):
        self.name = address.text
        self._address, self._client, self._instruction = address, client, instruction

    def __del__(self) -> None:
        # Nothing else closes the connection, and its background thread may keep it alive.
        self.close()

    @cached_property
    def horizon(self) -> int:
        """Number of targets that are executed from each chunk.

        Raises:
            ValueError: the server cannot be reached, or its answers are unusable; the message says why.
        """
        try:
            chunk = self._ask(_first_view(self._instruction), WARM_UP * self._address.timeout)[0]
        except BasePolicyError as error:
            raise ValueError(f"base policy {self.name!r} cannot be used: {outside_text(error)}") from error
        # What a model makes of black images need not be near the tool.
        if problem := malformed(chunk, HOME_JOINT_POSITIONS):
            raise ValueError(f"base policy {self.name!r} cannot be used: {problem}")
        horizon = self._address.horizon or len(chunk)
        if horizon > MAX_HORIZON:
            raise ValueError(
                f"base policy {self.name!r} returns chunks of {len(chunk)} targets: add ?horizon=N to its address to "
                f"execute the first N, {MAX_HORIZON} at most"
            )
        if horizon > len(chunk):
            raise ValueError(
                f"base policy {self.name!r} returns chunks of {len(chunk)} targets: ask for a horizon of at most that"
            )
        return horizon

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Do nothing: chunks depend only on the present view."""

    def predict(self, view: PolicyView) -> Array:
        chunks = self._ask(view, self._address.timeout)
        if chunks.shape[1] < self.horizon:
            raise BasePolicyError(
                f"the server returned {chunks.shape[1]} targets where {self.horizon} are executed; add "
                f"?horizon={chunks.shape[1]} to its address if its chunks have become shorter"
            )
        return chunks[:, : self.horizon]

    def _ask(self, view: PolicyView, timeout: float) -> Array:
        """Chunks (n, H, 8) as long as the server returns them."""
        actions = self._client.infer(view, timeout)
        shape = actions[0].shape
        if len(shape) != 2 or shape[0] == 0 or any(chunk.shape != shape for chunk in actions):
            shapes = ", ".join(sorted({str(chunk.shape) for chunk in actions}))
            raise BasePolicyError(f"the server returned actions of shape {shapes}; expected (targets, columns)")
        return targets_from_actions(np.stack(actions))

    def close(self) -> None:
        """Close the connection; the next prediction reconnects."""
        self._client.close()


def state_columns(view: PolicyView) -> np.ndarray:
    """(n, 21) float32 in the columns of a dataset's ``observation.state``, see :data:`COLUMNS`."""
    state = np.empty((len(view.worlds), WIDTH), np.float32)
    quaternion = np.ascontiguousarray(view.tcp_pose[:, 3:])
    state[:, COLUMNS["eef_position"]] = view.tcp_pose[:, :3]
    state[:, COLUMNS["eef_rotation_6d"]] = matrix_from_quat(quaternion)[:, :2].reshape(-1, 6)
    # Use the dataset's choice of the quaternion's sign: a tool that points straight down is (1, 0, 0, 0).
    state[:, COLUMNS["eef_quaternion"]] = np.copysign(1.0, quaternion[:, :1]) * quaternion
    state[:, COLUMNS["joint_position"]] = view.joint_positions
    state[:, COLUMNS["gripper_position"]] = view.gripper_width[:, None] / MAX_OPENING
    return state


def targets_from_actions(actions: Array) -> Array:
    """Convert actions (n, H, width) to targets (n, H, 8): position, quaternion xyzw, gripper opening.

    The width sets the format: 8 has a quaternion xyzw, 10 the first two rows of the rotation matrix, 21 all columns of
    a dataset's action. In the last case the matrix rows are used, which models predict better than quaternions (Zhou et
    al., CVPR 2019). Values that are not finite are passed on.

    Raises:
        BasePolicyError: the width is unknown, or the rotations are invalid.
    """
    width = actions.shape[-1]
    if width not in (8, 10, WIDTH):
        raise BasePolicyError(
            f"the server returned actions with {width} columns (shape {actions.shape[1:]}); expected absolute "
            f"targets with 8 (position, quaternion xyzw, opening), 10 (position, 6-D rotation, opening) or {WIDTH} "
            "(all columns of the exported dataset)"
        )
    if width == 8:
        return actions
    rows = actions[..., 3:9].reshape(*actions.shape[:2], 2, 3)
    # The guard sees the quaternions only, and these are of unit length whatever the rows are.
    lengths = np.linalg.norm(rows, axis=-1)
    if (np.isfinite(lengths) & ((lengths < 0.5) | (lengths > 2.0))).any():
        raise BasePolicyError(
            "the server returned rotation matrix rows that are far from unit length: its actions must be absolute TCP "
            "poses in the base frame, not joint positions, velocities or differences"
        )
    return np.concatenate([actions[..., :3], _quat_from_rot6d(actions[..., 3:9]), actions[..., -1:]], axis=-1)


def _quat_from_rot6d(rot6d: Array) -> Array:
    """Quaternions (n, H, 4) from two rows of rotation matrices, after orthogonalisation; NaN if that is impossible."""
    with np.errstate(invalid="ignore"):
        first = rot6d[..., :3] / np.linalg.norm(rot6d[..., :3], axis=-1, keepdims=True)
        second = rot6d[..., 3:] - np.sum(first * rot6d[..., 3:], axis=-1, keepdims=True) * first
        length = np.linalg.norm(second, axis=-1, keepdims=True)
    quaternions = np.full((*rot6d.shape[:-1], 4), np.nan)
    good = length[..., 0] > 1e-3
    if good.any():
        x, y = first[good], (second / length)[good]
        quaternions[good] = Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], axis=-2)).as_quat()
    return quaternions


def _first_view(instruction: str) -> PolicyView:
    """A view of one world at the start pose, with black images."""
    black = np.zeros((1, 128, 128, 3), np.uint8)
    return PolicyView(
        worlds=np.zeros(1, np.int64),
        instruction=instruction,
        tcp_pose=_START_POSE[None],
        joint_positions=HOME_JOINT_POSITIONS[None],
        gripper_width=np.array([MAX_OPENING]),
        gripper_closed=np.zeros(1, bool),
        wrench=np.zeros((1, 6)),
        previous_target=np.append(_START_POSE, 1.0)[None],
        images={"shoulder": black, "wrist": black},
    )
