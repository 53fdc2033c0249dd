"""Residual policies as ONNX files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.policies.onnx_policy import FLOAT, load_onnx


class OnnxResidual:
    """A trained residual policy from a file. Call it with an observation; it returns the action.

    The network in the file maps observations (n, D) to actions (n, 7). The file's metadata may contain
    ``observation_layout``, a JSON list of field names in order, which :meth:`check` compares.

    Args:
        path: the .onnx file.
        name: name used in messages; by default the path.

    Raises:
        ValueError: the file is missing, has weights in other files, has other inputs or outputs, or cannot run.
    """

    def __init__(self, path: str | Path, name: str | None = None):
        self._file = load_onnx(path)
        self.name = name or str(path)
        self.hash: str | None = self._file.hash
        shapes = list(self._file.inputs.values())
        if len(shapes) != 1 or len(shapes[0]) != 2 or not isinstance(shapes[0][1], int):
            raise ValueError(
                f"residual policy {path} has the inputs {self._file.inputs}; expected one of shape "
                "(batch of variable size, observation)"
            )
        self._input, self._size = next(iter(self._file.inputs)), shapes[0][1]
        self._file.check(f"residual policy {path}", {self._input: (FLOAT, (self._size,))}, (7,))

    def check(self, layout_names: Sequence[str], size: int) -> None:
        """Raise ``ValueError`` if the file was made for another observation.

        Args:
            layout_names: the observation's field names, in order.
            size: the observation's length D.
        """
        stored = self._file.metadata.get("observation_layout")
        if self._size != size or (stored is not None and json.loads(stored) != list(layout_names)):
            raise ValueError(
                f"residual policy {self.name} was made for another observation ({self._size} entries; this task has "
                f"{size}): use a policy trained for this task and version"
            )

    def __call__(self, observation: np.ndarray) -> NDArray[np.float32]:
        """Actions (7,) or (n, 7) in [-1, 1] for flat observations (D,) or (n, D).

        Raises:
            ValueError: the observation has another shape, or is a dict.
        """
        if isinstance(observation, Mapping):
            raise ValueError(
                f"residual policy {self.name} takes the flat observation and got a dict: make the environment with "
                'obs_mode="flat"'
            )
        values = np.ascontiguousarray(observation, np.float32)
        if np.ndim(observation) not in (1, 2) or values.shape[-1] != self._size:
            raise ValueError(
                f"residual policy {self.name} takes observations of shape ({self._size},) or (n, {self._size}) and got "
                f"{np.shape(observation)}: give it the observations of the task and version it was trained for"
            )
        actions = self._file.run({self._input: np.atleast_2d(values)})
        return np.clip(actions, -1.0, 1.0).reshape(*values.shape[:-1], 7)
