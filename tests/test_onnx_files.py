"""ONNX files as policies: they are whole, and their types and shapes are checked before they run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from policy_files import write_base, write_onnx, write_residual

import onnx  # isort: skip
from onnx import TensorProto, helper

from oc_residual_gym.cli import main
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.onnx_content import tensors_outside
from oc_residual_gym.policies.versions import SHIPPED
from oc_residual_gym.residuals import load_residual
from oc_residual_gym.tasks import TASKS

LIFT = TASKS["Lift"]
DOUBLE, INT64, FLOAT = TensorProto.DOUBLE, TensorProto.INT64, TensorProto.FLOAT


def reshaped(path: Path, inputs: dict, shape: list[int], declared: list, types: dict | None = None) -> str:
    """A base policy that returns ``previous_target``, reshaped to ``shape``, and has all of ``inputs``."""
    nodes = [helper.make_node("Reshape", ["previous_target", "shape"], ["out"])]
    weights = [helper.make_tensor("shape", INT64, [len(shape)], shape)]
    return write_onnx(path, inputs, declared, nodes, weights=weights, types=types or {})


TARGET = {"previous_target": ["n", 8]}
WHOLE = ([-1, 1, 8], ["n", 1, 8])
WRONG_BASES = {
    "float64": (TARGET, [-1, 1, 8], ["n", 1, 8], {"previous_target": DOUBLE, "out": DOUBLE}),
    "width": ({"previous_target": ["n", 7]}, [-1, 1, 7], ["n", 1, 7], {}),
    "rank": ({"previous_target": ["n", 8, 1]}, [-1, 1, 8], ["n", 1, 8], {}),
    "scalar": (TARGET | {"gripper_width": []}, *WHOLE, {}),
    "fixed batch": ({"previous_target": [1, 8]}, [1, 1, 8], [1, 1, 8], {}),
    "batch inside": (TARGET, [1, 1, 8], ["n", 1, 8], {}),
    "unknown input": (TARGET | {"proprio": ["n", 7]}, *WHOLE, {}),
    "odd input": (TARGET | {"tcp_pose/x": ["n", 7]}, *WHOLE, {}),
    "unknown camera": (TARGET | {"image/ego": ["n", 128, 128, 3]}, *WHOLE, {"image/ego": TensorProto.UINT8}),
    "float image": (TARGET | {"image/wrist": ["n", 128, 128, 3]}, *WHOLE, {}),
    "planar image": (TARGET | {"image/wrist": ["n", 3, 128, 128]}, *WHOLE, {"image/wrist": TensorProto.UINT8}),
    "float instruction": (TARGET | {"instruction": ["n", 64]}, *WHOLE, {}),
    "no horizon": (TARGET, [-1, 8], ["n", 8], {}),
    "variable horizon": ({"previous_target": ["n", 8]}, [-1, 1, 8], ["n", "h", 8], {}),
}
WORDS = {
    "float64": r"input 'previous_target' of type tensor\(double\).*expected type tensor\(float\)",
    "width": r"input 'previous_target' .*shape \('n', 7\); expected .*variable size, 8\)",
    "rank": r"input 'previous_target' .*shape \('n', 8, 1\); expected .*variable size, 8\)",
    "scalar": r"input 'gripper_width' .*shape \(\); expected .*variable size, 1\)",
    "fixed batch": r"shape \(1, 8\); expected .*batch of variable size, 8\)",
    "batch inside": r"fails on two rows of zeros|shape \(1, 1, 8\); expected .*batch of variable size",
    "unknown input": "unknown input 'proprio'; known are tcp_pose, ",
    "odd input": "unknown input 'tcp_pose/x'; known are tcp_pose, ",
    "unknown camera": "unknown input 'image/ego'; known are .*image/shoulder, image/wrist",
    "float image": r"'image/wrist' of type tensor\(float\).*expected type tensor\(uint8\)",
    "planar image": r"shape \('n', 3, 128, 128\); expected .*variable size, 128, 128, 3\)",
    "float instruction": r"'instruction' of type tensor\(float\).*expected type tensor\(uint8\)",
    "no horizon": r"output .*shape \('n', 8\); expected .*variable size, a fixed number, 8\)",
    "variable horizon": "a fixed number, 8",
}


@pytest.mark.parametrize("what", WRONG_BASES)
def test_a_base_policy_that_could_never_run_is_refused_when_it_is_loaded(what: str, tmp_path: Path) -> None:
    if what == "variable horizon":  # so that shape inference cannot tell
        nodes = [
            helper.make_node("NonZero", ["previous_target"], ["places"]),
            helper.make_node("Shape", ["places"], ["size"]),
            helper.make_node("ConstantOfShape", ["size"], ["flat"]),
            helper.make_node("Unsqueeze", ["flat", "axis"], ["out"]),
        ]
        weights = [helper.make_tensor("axis", INT64, [1], [2])]
        path = write_onnx(tmp_path / "base.onnx", TARGET, ["n", "h", 8], nodes, weights=weights)
    else:
        path = reshaped(tmp_path / "base.onnx", *WRONG_BASES[what])
    with pytest.raises(ValueError, match=WORDS[what]):
        load_base_policy(path, LIFT)


def test_a_residual_policy_that_could_never_run_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    double = write_onnx(
        tmp_path / "double.onnx",
        {"obs": ["n", 7]},
        ["n", 7],
        [helper.make_node("Identity", ["obs"], ["out"])],
        types={"obs": DOUBLE, "out": DOUBLE},
    )
    with pytest.raises(ValueError, match=r"input 'obs' of type tensor\(double\).*expected type tensor\(float\)"):
        load_residual(double, "Lift", "bc")
    nodes = [helper.make_node("Add", ["obs", "more"], ["out"])]
    two = write_onnx(tmp_path / "two.onnx", {"obs": ["n", 7], "more": ["n", 7]}, ["n", 7], nodes)
    with pytest.raises(ValueError, match="expected one of shape"):
        load_residual(two, "Lift", "bc")


def test_evaluating_a_float64_base_is_an_error_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, out = write_base(tmp_path / "base.onnx", DOUBLE), tmp_path / "out"
    assert main(["evaluate", "--task", "Lift", "--base", base, "--episodes", "1", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "'previous_target'" in said and "tensor(double)" in said and "tensor(float)" in said
    assert not out.exists()


def moved_out(tensor: TensorProto, folder: Path) -> None:
    """Move a tensor's values to a second file."""
    values = onnx.numpy_helper.to_array(tensor)
    for field in ("raw_data", "float_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.data", "offset": "0", "length": str(values.nbytes)}.items():
        tensor.external_data.add(key=key, value=value)
    (folder / "weights.data").write_bytes(values.tobytes())


def with_weights_outside(path: Path, place: str) -> str:
    """A residual policy for observations of 10 entries, with its weights in a second file."""
    weights = onnx.numpy_helper.from_array(np.eye(10, 7, dtype=np.float32), "weights")
    product = helper.make_node("MatMul", ["obs", "weights"], ["out"])
    if place == "initializer":
        write_onnx(path, {"obs": ["n", 10]}, ["n", 7], [product], weights=[weights])
        model = onnx.load(path)
        tensors = [model.graph.initializer[0]]
    elif place == "constant":
        constant = helper.make_node("Constant", [], ["weights"], value=weights)
        write_onnx(path, {"obs": ["n", 10]}, ["n", 7], [constant, product])
        model = onnx.load(path)
        tensors = [model.graph.node[0].attribute[0].t]
    else:
        inner = helper.make_tensor_value_info("inner", FLOAT, [10, 7])
        branch = helper.make_graph([helper.make_node("Identity", ["kept"], ["inner"])], "branch", [], [inner])
        branch.initializer.append(weights)
        branch.initializer[0].name = "kept"
        choice = helper.make_node("If", ["yes"], ["weights"], then_branch=branch, else_branch=branch)
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        write_onnx(path, {"obs": ["n", 10]}, ["n", 7], [choice, product], weights=[yes])
        model = onnx.load(path)
        tensors = [attribute.g.initializer[0] for attribute in model.graph.node[0].attribute]
    for tensor in tensors:
        moved_out(tensor, path.parent)
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.mark.parametrize("place", ["initializer", "constant", "subgraph"])
def test_weights_in_a_second_file_are_refused_wherever_one_stands(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_weights_outside(tmp_path / "policy" / "policy.onnx", place)
    (tmp_path / "elsewhere").mkdir()
    for folder, name in (("policy", "policy.onnx"), ("policy", path), ("elsewhere", path)):
        monkeypatch.chdir(tmp_path / folder)
        for load in (lambda f: load_residual(f, "Lift", "bc"), lambda f: load_base_policy(f, LIFT)):
            with pytest.raises(ValueError, match=r"in another file.*external_data=False.*save_as_external_data=False"):
                load(name)


def test_the_fix_that_is_named_works(tmp_path: Path) -> None:
    path = with_weights_outside(tmp_path / "policy.onnx", "initializer")
    onnx.save(onnx.load(path), path, save_as_external_data=False)
    assert load_residual(path, "Lift", "bc").hash
    shutil.copy(path, tmp_path / "alone.onnx")
    (tmp_path / "weights.data").unlink()
    assert load_residual(tmp_path / "alone.onnx", "Lift", "bc").hash == load_residual(path, "Lift", "bc").hash


def test_a_whole_file_that_is_replaced_by_one_with_weights_outside_is_not_taken_from_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    write_residual(path, 10, 1.0)
    load_residual(path, "Lift", "bc")
    with_weights_outside(path, "initializer")
    with pytest.raises(ValueError, match="in another file"):
        load_residual(path, "Lift", "bc")


def test_weights_outside_are_found_in_functions_and_sparse_tensors() -> None:
    def outside(name: str) -> TensorProto:
        tensor = TensorProto(name=name, data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="x")
        return tensor

    constant = helper.make_node("Constant", [], ["c"], value=outside("in a function"))
    function = helper.make_function("own", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    sparse = onnx.SparseTensorProto(values=outside("sparse"), dims=[4])
    several = helper.make_node("X", [], ["x"])
    several.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(outside("in a list"))
    graph = helper.make_graph([several], "g", [], [], sparse_initializer=[sparse])
    model = helper.make_model(graph, functions=[function])
    assert sorted(tensors_outside(model.SerializeToString())) == ["in a function", "in a list", "sparse"]


def test_shipped_files_are_whole() -> None:
    files = list(SHIPPED.rglob("*.onnx"))
    assert files
    for file in files:
        assert tensors_outside(file.read_bytes()) == [], file


def test_a_damaged_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    content = Path(write_residual(tmp_path / "whole.onnx", 10, 1.0)).read_bytes()
    cut = tmp_path / "cut.onnx"
    for size in range(1, len(content), 7):
        cut.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"not an ONNX model|has the inputs|expected"):
            load_residual(cut, "Lift", "bc")
