"""Finds weights that an ONNX file keeps in another file.

Such external data is looked up by a name relative to the current folder, and no hash of the file covers it. This module
walks through the file's protocol buffer messages (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), because the
package ``onnx`` that could read them is needed for training only.
"""

from __future__ import annotations

from collections.abc import Iterator

_CHILDREN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Kind of message to the fields that can lead to tensors: field number to kind of message."""
_TENSOR_NAME, _EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 8, 13, 14, 1
_VARINT, _EIGHT_BYTES, _MESSAGE, _FOUR_BYTES = 0, 1, 2, 5


def tensors_outside(content: bytes) -> list[str]:
    """Names of the tensors of an ONNX model that have their data in another file.

    Raises:
        ValueError: ``content`` is not a protocol buffer message.
    """
    outside, waiting = [], [("model", memoryview(content))]
    while waiting:
        kind, message = waiting.pop()
        if kind != "tensor":
            children = _CHILDREN[kind]
            waiting += [(children[n], v) for n, v in _fields(message) if n in children and isinstance(v, memoryview)]
            continue
        fields = list(_fields(message))
        if any(n == _EXTERNAL_DATA or (n == _DATA_LOCATION and v == _EXTERNAL) for n, v in fields):
            names = [bytes(v) for n, v in fields if n == _TENSOR_NAME and isinstance(v, memoryview)]
            outside.append(names[-1].decode("utf-8", "replace") if names else "")
    return outside


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message: a number, or the bytes of a text or message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _MESSAGE:
            size, at = _varint(message, at)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field has the unknown type {wire}")
        if at + size > len(message):
            raise ValueError("it is cut off")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at ``at`` and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it is cut off")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number has more than ten bytes")
