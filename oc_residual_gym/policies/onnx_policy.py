"""Policies from ONNX files. ONNX Runtime runs them on one thread, bit-identically for any batch size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from oc_residual_gym.errors import BasePolicyError
from oc_residual_gym.parsing import refuse_pointer
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.states import Array, IntArray

PLAIN_INPUTS = {
    "tcp_pose": 7,
    "joint_positions": 7,
    "gripper_width": 1,
    "gripper_closed": 1,
    "wrench": 6,
    "previous_target": 8,
}
"""Inputs of a base policy that exist in every task, and their widths."""
INSTRUCTION_TYPES: dict[str, type[np.integer]] = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
MAX_INSTRUCTION = 128
"""Maximum length of an instruction in bytes, for files with a dynamic instruction length."""


SESSIONS = 16
"""Number of loaded files to cache: enough for the base and residual policies of six tasks."""


def load_onnx(path: str | Path) -> OnnxFile:
    """Load an ONNX model from a file; cached in this process until the file changes.

    Raises:
        ValueError: the file is missing or not an ONNX model.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no policy file {path}: give the path of an .onnx file")
    status = path.stat()
    return _loaded(path, Path.cwd(), status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=SESSIONS)
def _loaded(path: Path, folder: Path, inode: int, mtime: int, size: int) -> OnnxFile:
    return OnnxFile(path)


class OnnxFile:
    """An ONNX model with one batched float32 output. It has no state, so any number of policies can share it."""

    def __init__(self, path: Path):
        import onnxruntime

        data = path.read_bytes()
        refuse_pointer(data, path)
        self.hash: str | None = hashlib.sha256(data).hexdigest()
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ValueError(f"{path} is not an ONNX model that ONNX Runtime can load: {error}") from error
        self.inputs = {i.name: tuple(i.shape) for i in self._session.get_inputs()}
        self.input_types: dict[str, str] = {i.name: i.type for i in self._session.get_inputs()}
        self.output_shape = tuple(self._session.get_outputs()[0].shape)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """First output for a batch of inputs."""
        return self._session.run(None, inputs)[0]


class OnnxBasePolicy:
    """A base policy from an ONNX file. The names of the file's inputs say what it needs; its output is (n, H, 8).

    Inputs, float32 unless stated otherwise: ``tcp_pose`` (n, 7), ``joint_positions`` (n, 7), ``gripper_width`` (n, 1),
    ``gripper_closed`` (n, 1), ``wrench`` (n, 6), ``previous_target`` (n, 8), ``object/<name>`` (n, 7),
    ``image/<camera>`` (n, 128, 128, 3) uint8, ``instruction`` (n, L) uint8 or int64: UTF-8 bytes, zero-padded. The file
    sets L; a dynamic L means 128.

    Args:
        path: the .onnx file.
        name: name used in results; by default the path.

    Raises:
        ValueError: the file is missing, or has unknown inputs or other shapes.
    """

    def __init__(self, path: str | Path, name: str | None = None):
        self._file = load_onnx(path)
        self.name = name or str(path)
        self.hash: str | None = self._file.hash
        shape = self._file.output_shape
        if len(shape) != 3 or not isinstance(shape[1], int) or shape[2] != 8:
            raise ValueError(f"base policy {path} has output shape {shape}; expected (batch, horizon, 8)")
        self.horizon = shape[1]
        prefixes = {name.split("/")[0] for name in self._file.inputs}
        unknown = prefixes - set(PLAIN_INPUTS) - {"object", "image", "instruction"}
        if unknown:
            raise ValueError(
                f"base policy {path} has unknown inputs {sorted(unknown)}; "
                f"known are {sorted(PLAIN_INPUTS)}, instruction, object/<name> and image/<camera>"
            )
        self._instruction_type, self._instruction_width = self._instruction_input()
        for name, (batch, *rest) in self._file.inputs.items():
            width = PLAIN_INPUTS.get(name, self._instruction_width if name == "instruction" else 7)
            expected = [128, 128, 3] if name.startswith("image/") else [width]
            if isinstance(batch, int) or any(
                isinstance(n, int) and n != m for n, m in zip(rest, expected, strict=False)
            ):
                raise ValueError(
                    f"base policy {path} has input {name!r} of shape {(batch, *rest)}; expected a variable batch size, "
                    f"then {expected}"
                )
        self.needs = frozenset({"object": "objects", "image": "images"}[p] for p in prefixes & {"object", "image"})

    def _instruction_input(self) -> tuple[type[np.integer], int]:
        """Type and width L of the input ``instruction``; width 0 if the file has none."""
        if "instruction" not in self._file.inputs:
            return np.uint8, 0
        shape, kind = self._file.inputs["instruction"], self._file.input_types["instruction"]
        if kind not in INSTRUCTION_TYPES or len(shape) != 2:
            raise ValueError(
                f"base policy {self.name} has input 'instruction' of type {kind} and shape {shape}; expected "
                f"(batch, bytes) of one of {', '.join(INSTRUCTION_TYPES)}"
            )
        return INSTRUCTION_TYPES[kind], shape[1] if isinstance(shape[1], int) else MAX_INSTRUCTION

    def _instruction(self, text: str, rows: int) -> np.ndarray:
        """(rows, L) zero-padded UTF-8 bytes of ``text``, the same in every row."""
        data = text.encode()
        if len(data) > self._instruction_width:
            raise BasePolicyError(
                f"base policy {self.name} reads instructions of {self._instruction_width} bytes; "
                f"{text!r} has {len(data)}"
            )
        padded = np.frombuffer(data.ljust(self._instruction_width, b"\0"), np.uint8)
        return np.repeat(padded[None], rows, axis=0).astype(self._instruction_type)

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Do nothing: it has no state."""

    def predict(self, view: PolicyView) -> Array:
        inputs = {}
        for name in self._file.inputs:
            group, _, member = name.partition("/")
            if group == "image":
                inputs[name] = _pick(view.images, member, name)
                continue
            if group == "instruction":
                inputs[name] = self._instruction(view.instruction, len(view.worlds))
                continue
            value = _pick(view.objects, member, name) if group == "object" else getattr(view, name)
            inputs[name] = np.asarray(value, np.float32).reshape(len(view.worlds), -1)
        try:
            chunk = self._file.run(inputs)
        except Exception as error:
            raise BasePolicyError(f"base policy {self.name} failed: {error}") from error
        return chunk.astype(np.float64)


def _pick(values: Mapping[str, np.ndarray] | None, member: str, name: str) -> np.ndarray:
    if values is None or member not in values:
        raise ValueError(f"the policy wants {name}, but the scene has only {', '.join(values or ())}")
    return values[member]
