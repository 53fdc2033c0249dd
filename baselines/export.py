"""Export networks to ONNX, and check them: equal to PyTorch, and bit-identical at any batch size."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from baselines import BaselineError
from oc_residual_gym.policies.onnx_policy import OnnxFile, load_onnx

OPSET = 17
TOLERANCE = 1e-5
"""Largest allowed difference between PyTorch and ONNX Runtime: metres, quaternion entries, opening."""
BATCHES = (1, 3)
"""Batch sizes that must give bit-identical results to the full batch."""


def export_policy(
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    path: Path,
    metadata: Mapping[str, Any],
    outputs: Sequence[str] = ("targets",),
) -> float:
    """Export ``model`` to ONNX and check the file.

    Args:
        model: takes the values of ``inputs`` in order; returns a tensor (n, ...) for each of ``outputs``.
        inputs: input name to example values (n, ...), n at least 4.
        path: the file; replaced once the new one is complete and checked.
        metadata: strings and JSON values to store in the file.
        outputs: names of the file's outputs.

    Returns:
        The largest difference from PyTorch's output on ``inputs``.

    Raises:
        BaselineError: the file's output differs from the model's.
    """
    import onnx

    model.eval()
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter needs no further package; ignore its warnings about its successor and constant shapes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            buffer,  # type: ignore[arg-type]
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    content = onnx.load_from_string(buffer.getvalue())
    texts = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in metadata.items()}
    onnx.helper.set_model_props(content, texts)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content.SerializeToString())
    difference = _check(model, inputs, temporary)
    temporary.replace(path)
    return difference


def _check(model: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> float:
    file, arrays = load_onnx(path), {name: value.numpy() for name, value in inputs.items()}
    together = _run(file, arrays)
    with torch.no_grad():
        answers = model(*inputs.values())
    answers = torch.cat(answers if isinstance(answers, tuple) else (answers,), dim=1).numpy()
    difference = float(np.abs(together - answers).max())
    if not difference < TOLERANCE:
        raise BaselineError(f"{path} differs from the trained network by {difference:.1e}; it was not put in place")
    for size in BATCHES:
        for start in range(0, len(together) - size + 1, size):
            part = _run(file, {name: value[start : start + size] for name, value in arrays.items()})
            if not np.array_equal(part, together[start : start + size]):
                raise BaselineError(f"{path} gives other bits in batches of {size}; it was not put in place")
    return difference


def _run(file: OnnxFile, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """All outputs, side by side."""
    return np.concatenate(list(file.run_all(inputs).values()), axis=1)
