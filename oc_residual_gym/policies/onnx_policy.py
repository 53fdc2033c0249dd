"""Policies from ONNX files. ONNX Runtime runs them on one thread, bit-identically for any batch size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from oc_residual_gym.errors import BasePolicyError, outside_text
from oc_residual_gym.parsing import refuse_pointer
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.policies.onnx_content import tensors_outside
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.worlds.render import POLICY_CAMERAS

PLAIN_INPUTS = {
    "tcp_pose": 7,
    "joint_positions": 7,
    "gripper_width": 1,
    "gripper_closed": 1,
    "wrench": 6,
    "previous_target": 8,
}
"""Inputs of a base policy that exist in every task, and their widths."""
IMAGE_INPUTS = tuple(f"image/{camera}" for camera in POLICY_CAMERAS)
MAX_INSTRUCTION = 128
"""Maximum length of an instruction in bytes, for files with a dynamic instruction length."""
FLOAT = "tensor(float)"
"""ONNX Runtime's name of float32."""
_TYPES: dict[str, type[np.generic]] = {FLOAT: np.float32, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
_NEEDS = {"object": "objects", "image": "images"}

SESSIONS = 16
"""Number of loaded files to cache: enough for the base and residual policies of six tasks."""


def load_onnx(path: str | Path) -> OnnxFile:
    """Load an ONNX model from a file; cached in this process until the file changes.

    Raises:
        ValueError: the file is missing, not an ONNX model, or has weights in other files.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no policy file {path}: give the path of an .onnx file")
    status = path.stat()
    return _loaded(path.absolute(), status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=SESSIONS)
def _loaded(path: Path, inode: int, mtime: int, size: int) -> OnnxFile:
    return OnnxFile(path)


class OnnxFile:
    """An ONNX model of a policy. It has no state, so policies can share it."""

    def __init__(self, path: Path):
        import onnxruntime

        data = path.read_bytes()
        refuse_pointer(data, path)
        self.hash: str | None = hashlib.sha256(data).hexdigest()
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            outside = tensors_outside(data)
            session = None if outside else onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
        except Exception as error:
            reason = outside_text(error)
            raise ValueError(f"{path} is not an ONNX model that ONNX Runtime can load: {reason}") from error
        if session is None:
            raise ValueError(
                f"{path} keeps {len(outside)} of its tensors, such as {outside_text(repr(outside[0]), 80)}, in another "
                "file, which its hash would not cover: write it as one file, with torch.onnx.export(..., "
                "external_data=False) or onnx.save(onnx.load(FILE), FILE, save_as_external_data=False)"
            )
        self._session = session
        self.inputs = {i.name: tuple(i.shape) for i in session.get_inputs()}
        self.input_types: dict[str, str] = {i.name: i.type for i in session.get_inputs()}
        self.outputs = {o.name: tuple(o.shape) for o in session.get_outputs()}
        self.output_types: dict[str, str] = {o.name: o.type for o in session.get_outputs()}
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)

    @property
    def answer(self) -> str:
        """Name of the first output, which is the policy's answer."""
        return next(iter(self.outputs))

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """First output for a batch of inputs."""
        return self._session.run([self.answer], inputs)[0]

    def run_all(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name for a batch of inputs."""
        return dict(zip(self.outputs, self._session.run(None, inputs), strict=True))

    def check(
        self, what: str, inputs: Mapping[str, tuple[str, Sequence[int]]], outputs: Mapping[str, Sequence[int | None]]
    ) -> None:
        """Check declared inputs and outputs of the file, and run it once for two rows of zeros.

        Args:
            what: the policy, for messages.
            inputs: name of each input to its type and its shape without the batch axis.
            outputs: name of each output that is used to its shape without the batch axis; ``None`` for a size that the
                file sets.

        Raises:
            ValueError: they differ, or it fails; the message names what was found and what is needed.
        """
        for name, (kind, tail) in inputs.items():
            self._check_one(f"{what} has input {name!r}", self.input_types[name], self.inputs[name], kind, tail)
        for name, sizes in outputs.items():
            self._check_one(f"{what} has output {name!r}", self.output_types[name], self.outputs[name], FLOAT, sizes)
        rows = {name: np.zeros((2, *tail), _TYPES[kind]) for name, (kind, tail) in inputs.items()}
        try:
            found = self.run_all(rows)
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ValueError(f"{what} fails on two rows of zeros: {outside_text(error)}") from error
        for name, sizes in outputs.items():
            declared = self.outputs[name][1:]
            expected = (2, *(size or fixed for size, fixed in zip(sizes, declared, strict=True)))
            if found[name].shape != expected:
                raise ValueError(
                    f"{what} returned shape {found[name].shape} for two rows; expected {expected} as {name!r}"
                )

    @staticmethod
    def _check_one(found: str, kind: str, shape: tuple[Any, ...], wanted: str, tail: Sequence[int | None]) -> None:
        # A size is a number, or a name or None where it is not fixed.
        fits = len(shape) == 1 + len(tail) and not isinstance(shape[0], int)
        for size, needed in zip(shape[1:], tail, strict=False):
            fits = fits and (size == needed or not isinstance(size, int) if needed else isinstance(size, int))
        if kind != wanted or not fits:
            sizes = ", ".join("a fixed number" if size is None else str(size) for size in tail)
            raise ValueError(
                f"{found} of type {kind} and shape {shape}; expected type {wanted} and shape (batch of variable size, "
                f"{sizes})"
            )


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
        ValueError: the file is missing, has weights in other files, has unknown inputs, other types or shapes, or
            cannot run.
    """

    def __init__(self, path: str | Path, name: str | None = None):
        self._file = load_onnx(path)
        self.name = name or str(path)
        self.hash: str | None = self._file.hash
        self._inputs = {name: self._input(name) for name in self._file.inputs}
        self._file.check(f"base policy {path}", self._inputs, {self._file.answer: (None, 8)})
        self.horizon: int = self._file.outputs[self._file.answer][1]
        groups = {name.split("/")[0] for name in self._inputs}
        self.needs = frozenset(need for group, need in _NEEDS.items() if group in groups)

    def _input(self, name: str) -> tuple[str, tuple[int, ...]]:
        """Type and shape, without the batch axis, of the input ``name``."""
        if name in PLAIN_INPUTS:
            return FLOAT, (PLAIN_INPUTS[name],)
        if name.startswith("object/"):
            return FLOAT, (7,)
        if name in IMAGE_INPUTS:
            return "tensor(uint8)", (128, 128, 3)
        if name == "instruction":
            kind, shape = self._file.input_types[name], self._file.inputs[name]
            width = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else MAX_INSTRUCTION
            return "tensor(int64)" if kind == "tensor(int64)" else "tensor(uint8)", (width,)
        raise ValueError(
            f"base policy {self.name} has the unknown input {outside_text(repr(name), 80)}; known are "
            f"{', '.join((*PLAIN_INPUTS, 'instruction', 'object/<name>', *IMAGE_INPUTS))}"
        )

    def _instruction(self, text: str, rows: int) -> np.ndarray:
        """(rows, L) zero-padded UTF-8 bytes of ``text``, the same in every row."""
        kind, (width,) = self._inputs["instruction"]
        data = text.encode()
        if len(data) > width:
            raise BasePolicyError(f"it reads instructions of {width} bytes, and {text!r} has {len(data)}")
        padded = np.frombuffer(data.ljust(width, b"\0"), np.uint8)
        return np.repeat(padded[None], rows, axis=0).astype(_TYPES[kind])

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
            raise BasePolicyError(outside_text(error)) from error
        if chunk.shape != (len(view.worlds), self.horizon, 8):
            raise BasePolicyError(f"it returned shape {chunk.shape} for {len(view.worlds)} rows")
        return chunk.astype(np.float64)


def _pick(values: Mapping[str, np.ndarray] | None, member: str, name: str) -> np.ndarray:
    if values is None or member not in values:
        raise ValueError(f"the policy wants {name}, but the scene has only {', '.join(values or ())}")
    return values[member]
