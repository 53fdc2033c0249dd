"""ONNX files that must not pass as residual policies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, load, save
from policy_files import write_onnx, write_residual


def sleeping(path: Path, size: int) -> str:
    """A policy that never answers."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["still"]), helper.make_node("Identity", ["sum"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["n", 7]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["n", 7]),
        ],
    )
    nodes = [*_first_seven("start"), helper.make_node("Loop", ["trips", "", "start"], ["out"], body=body)]
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [2**62])
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], nodes, weights=[trips, *_SEVEN])


def eating_memory(path: Path, size: int) -> str:
    """A policy that allocates 64 GiB for its first answer."""
    nodes = [
        *_first_seven("start"),
        helper.make_node("ReduceMax", ["obs"], ["most"], keepdims=0),
        helper.make_node("Expand", ["most", "large"], ["much"]),
        helper.make_node("ReduceMax", ["much"], ["one"], keepdims=0),
        helper.make_node("Add", ["start", "one"], ["out"]),
    ]
    large = helper.make_tensor("large", TensorProto.INT64, [1], [2**34])
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], nodes, weights=[large, *_SEVEN])


def with_external_data(path: Path, size: int) -> str:
    """A policy whose weights are in another file."""
    write_residual(path, size, 0.1)
    model = load(path)
    (path.parent / "weights.bin").write_bytes(np.zeros((size, 7), np.float32).tobytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": str(size * 28)}.items():
        tensor.external_data.add(key=key, value=value)
    save(model, path)
    return str(path)


def returning_nan(path: Path, size: int) -> str:
    """A policy that returns square roots, also of negative numbers."""
    nodes = [*_first_seven("start"), helper.make_node("Sqrt", ["start"], ["out"])]
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], nodes, weights=_SEVEN)


def returning_nan_with_closed_gripper(path: Path, size: int) -> str:
    """A policy that returns zero until the gripper is closed, then NaN."""
    nodes = [
        helper.make_node("Slice", ["obs", "closed", "next", "axis"], ["bit"]),
        helper.make_node("Equal", ["bit", "one"], ["is_closed"]),
        helper.make_node("Cast", ["is_closed"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Neg", ["number"], ["negative"]),
        helper.make_node("Sqrt", ["negative"], ["root"]),
        helper.make_node("MatMul", ["root", "ones"], ["out"]),
    ]
    weights = [
        helper.make_tensor("closed", TensorProto.INT64, [1], [16]),
        helper.make_tensor("next", TensorProto.INT64, [1], [17]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("ones", TensorProto.FLOAT, [1, 7], [1.0] * 7),
    ]
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], nodes, weights=weights)


def looking_at_neighbours(path: Path, size: int) -> str:
    """A policy whose answers depend on the other worlds."""
    nodes = [
        *_first_seven("start"),
        helper.make_node("ReduceMean", ["start"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["start", "mean"], ["out"]),
    ]
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], nodes, weights=_SEVEN)


def remembering_neighbours(path: Path, size: int) -> str:
    """A policy that remembers what the other worlds saw."""
    nodes = [
        *_first_seven("start"),
        helper.make_node("ReduceMean", ["start"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["start", "memory"], ["out"]),
        helper.make_node("Add", ["memory", "mean"], ["new_memory"]),
    ]
    inputs, memory = {"obs": ["n", size], "memory": ["n", 7]}, {"new_memory": ["n", 7]}
    return write_onnx(path, inputs, ["n", 7], nodes, weights=_SEVEN, more_outputs=memory)


def rolling_dice(path: Path, size: int) -> str:
    """A policy that answers the same input differently each time."""
    nodes = [
        *_first_seven("start"),
        helper.make_node("RandomUniformLike", ["start"], ["dice"]),
        helper.make_node("Add", ["start", "dice"], ["out"]),
    ]
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], nodes, weights=_SEVEN)


def too_wide(path: Path, size: int) -> str:
    """A policy that declares answers of seven numbers but returns the whole observation."""
    nodes = [helper.make_node("Identity", ["obs"], ["out"])]
    return write_onnx(path, {"obs": ["n", size]}, ["n", 7], nodes)


_SEVEN = [
    helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
    helper.make_tensor("seven", TensorProto.INT64, [1], [7]),
    helper.make_tensor("columns", TensorProto.INT64, [1], [1]),
]


def _first_seven(name: str) -> list:
    return [helper.make_node("Slice", ["obs", "zero", "seven", "columns"], [name])]
