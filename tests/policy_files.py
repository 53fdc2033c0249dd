"""Small ONNX files that stand in for trained policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra [train]")

from onnx import TensorProto, helper  # noqa: E402


def write_onnx(
    path: Path,
    inputs: Mapping[str, list],
    output: list,
    nodes: Sequence[Any],
    metadata: Mapping[str, str] | None = None,
    weights: Sequence[Any] = (),
    types: Mapping[str, int] = MappingProxyType({}),
    more_outputs: Mapping[str, list] = MappingProxyType({}),
) -> str:
    """Write the graph of ``nodes`` with its output ``out`` and ``more_outputs``; return the path. Inputs and outputs
    are float32 unless ``types`` says otherwise."""
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [
            helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s)
            for n, s in {"out": output, **more_outputs}.items()
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    helper.set_model_props(model, dict(metadata or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return str(path)


def write_base(path: Path, input_type: int = TensorProto.FLOAT, steps: int = 16) -> str:
    """A base policy that repeats the last target."""
    nodes = [
        helper.make_node("Unsqueeze", ["previous_target", "axis"], ["one"]),
        helper.make_node("Tile", ["one", "repeats"], ["many"]),
        helper.make_node("Cast", ["many"], ["out"], to=TensorProto.FLOAT),
    ]
    weights = [
        helper.make_tensor("repeats", TensorProto.INT64, [3], [1, steps, 1]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    inputs, types = {"previous_target": ["n", 8]}, {"previous_target": input_type}
    return write_onnx(path, inputs, ["n", steps, 8], nodes, weights=weights, types=types)


def write_residual(path: Path, size: int, scale: float, metadata: Mapping[str, str] | None = None) -> str:
    """A residual policy: ``scale`` times the first seven of an observation's ``size`` entries."""
    weights = np.zeros((size, 7), np.float32)
    np.fill_diagonal(weights, scale)
    node = helper.make_node("MatMul", ["obs", "weights"], ["out"])
    tensor = helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights)
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], [node], metadata, [tensor])


def write_remembering(path: Path, size: int, returned: str = "new_memory", shape: Sequence[object] = ("n", 7)) -> str:
    """A residual policy that adds up what it sees: 0.1 times the sum of the first seven entries since the reset."""
    weights = np.zeros((size, 7), np.float32)
    np.fill_diagonal(weights, 0.1)
    nodes = [
        helper.make_node("MatMul", ["obs", "weights"], ["seen"]),
        helper.make_node("Add", ["seen", "memory"], [returned]),
        helper.make_node("Identity", [returned], ["out"]),
    ]
    tensor = helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights)
    inputs = {"obs": ["n", size], "memory": list(shape)}
    return write_onnx(path, inputs, ["n", 7], nodes, None, [tensor], more_outputs={returned: list(shape)})
