"""Residual policies as ONNX files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.policies.onnx_policy import FLOAT, load_onnx

MEMORY, NEW_MEMORY = "memory", "new_memory"
"""Names of the input and the output that carry a policy's memory from step to step; in ONNX, they must differ."""
MAX_MEMORY = 65_536
"""Largest number of entries of a memory: 0.25 MB per world."""


class OnnxResidual:
    """A trained residual policy from a file. Call it with an observation; it returns the action.

    The network in the file maps observations (n, D) to actions (n, 7). A policy with memory has two inputs,
    ``observation`` and ``memory`` (n, M), and two outputs, ``action`` and ``new_memory`` (n, M), which is the memory of
    the next step. At the start of an episode the memory is zeros: call :meth:`reset` there.

    The file's metadata may contain ``observation_layout``, a JSON list of field names in order, which :meth:`check`
    compares.

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
        inputs, answer = dict(self._file.inputs), self._file.answer
        remembers = MEMORY in inputs and len(inputs) == 2
        memory = inputs.pop(MEMORY) if remembers else ()
        shapes = list(inputs.values())
        if len(shapes) != 1 or len(shapes[0]) != 2 or not isinstance(shapes[0][1], int):
            raise ValueError(
                f"residual policy {path} has the inputs {self._file.inputs}; expected one of shape "
                "(batch of variable size, observation), and a second one named 'memory' if it has a memory"
            )
        self._input, self._size = next(iter(inputs)), shapes[0][1]
        needed: dict[str, tuple[str, tuple[int, ...]]] = {self._input: (FLOAT, (self._size,))}
        outputs: dict[str, tuple[int, ...]] = {answer: (7,)}
        self._width = 0
        if remembers:
            self._width = self._memory_size(memory)
            needed[MEMORY], outputs[NEW_MEMORY] = (FLOAT, (self._width,)), (self._width,)
        self._file.check(f"residual policy {path}", needed, outputs)
        self._memory: NDArray[np.float32] | None = None

    def _memory_size(self, shape: Sequence[object]) -> int:
        """M, for an input of this shape. Raises ``ValueError`` if it or the output has another form."""
        size = shape[1] if len(shape) == 2 else None
        if self._file.answer == NEW_MEMORY:
            raise ValueError(
                f"residual policy {self.name} has the outputs {list(self._file.outputs)}: the action must be the first"
            )
        if not isinstance(size, int) or not 1 <= size <= MAX_MEMORY:
            raise ValueError(
                f"residual policy {self.name} has a memory of shape {tuple(shape)}; expected (batch of variable size, "
                f"1 to {MAX_MEMORY})"
            )
        if NEW_MEMORY not in self._file.outputs:
            raise ValueError(
                f"residual policy {self.name} has the input 'memory' and the outputs {list(self._file.outputs)}: it "
                "must also return 'new_memory', of the same shape, as its second output"
            )
        return size

    def reset(self, worlds: NDArray[np.integer] | NDArray[np.bool_] | None = None) -> None:
        """Start new episodes: set the memory to zeros. A policy without memory needs no reset.

        Args:
            worlds: indices or mask of the rows of the observation in which an episode starts; by default all, in any
                number.
        """
        if worlds is None:
            self._memory = None
        elif self._memory is not None:
            self._memory[worlds] = 0.0

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
            ValueError: the observation has another shape, is a dict, or has another number of rows than before.
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
        rows = np.atleast_2d(values)
        if not self._width:
            actions = self._file.run({self._input: rows})
        else:
            found = self._file.run_all({self._input: rows, MEMORY: self._remembered(len(rows))})
            actions, self._memory = found[self._file.answer], found[NEW_MEMORY]
        return np.clip(actions, -1.0, 1.0).reshape(*values.shape[:-1], 7)

    def _remembered(self, rows: int) -> NDArray[np.float32]:
        if self._memory is None:
            self._memory = np.zeros((rows, self._width), np.float32)
        if len(self._memory) != rows:
            raise ValueError(
                f"residual policy {self.name} remembers {len(self._memory)} worlds and got observations of {rows}: "
                "call reset() where another number of worlds begins"
            )
        return self._memory
