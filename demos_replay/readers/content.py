"""Read numbers and text from untrusted HDF5 files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from demos_replay.log import LogError
from oc_residual_gym.errors import FileError
from oc_residual_gym.hdf5 import read
from oc_residual_gym.states import Array

ONLY_DEMO = "demo_0"
"""Name of the demonstration in formats with one per file."""

MAX_ROWS = 100_000
"""Maximum rows of a demonstration, more than an hour at 20 Hz."""


def numbers(
    group: h5py.Group, name: str, tail: tuple[int | None, ...], rows: int | None = None, *, gaps: bool = False
) -> Array:
    """Read dataset ``name`` of ``group`` as float64, shape (rows, *tail); None allows any size.

    Raises:
        LogError: it is missing, not numeric, too large, has another shape, or has entries that are not finite (unless
            ``gaps``).
    """
    where = f"{group.name.rstrip('/')}/{name}"
    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise LogError(f"the dataset {where} is missing")
    if dataset.dtype.kind not in "fiub":
        raise LogError(f"{where} holds no numbers, but {dataset.dtype}")
    expected: tuple[int | None, ...] = (rows, *tail)
    shape: tuple[int, ...] = dataset.shape or ()
    fits = len(shape) == len(expected)
    if not fits or any(e not in (None, n) for e, n in zip(expected, shape, strict=True)):
        wanted = ", ".join("any" if e is None else str(e) for e in expected)
        raise LogError(f"{where} has shape {shape}; expected ({wanted})")
    if shape[0] > MAX_ROWS:
        raise LogError(f"{where} has shape {shape}: a demonstration has {MAX_ROWS} rows at most")
    try:
        values = read(dataset)
    except FileError as error:
        raise LogError(str(error)) from error
    bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if bad.any() and not gaps:
        raise LogError(f"{where} is not finite in {bad.sum()} of {len(values)} rows, first in row {bad.argmax()}")
    return values


def poses(group: h5py.Group, name: str, rows: int | None = None, *, gaps: bool = False) -> Array:
    """Read dataset ``name`` of ``group`` as poses (rows, 7); quaternions xyzw are normalised.

    Raises:
        LogError: as :func:`numbers`, or quaternions are far from unit length.
    """
    values = numbers(group, name, (7,), rows, gaps=gaps)
    lengths = np.linalg.norm(values[:, 3:], axis=1)
    bad = ~(np.abs(lengths - 1.0) < 0.01) & np.isfinite(lengths)
    if bad.any() and not gaps:
        raise LogError(
            f"{group.name.rstrip('/')}/{name} has quaternions that are not rotations, first in row {bad.argmax()}"
        )
    values[:, 3:] /= np.where(bad, 1.0, lengths)[:, None]
    return values


def subgroup(group: h5py.Group, name: str) -> h5py.Group:
    """Group ``name`` of ``group``.

    Raises:
        LogError: it is missing, or not a group.
    """
    item = group.get(name)
    if not isinstance(item, h5py.Group):
        raise LogError(f"the group {group.name.rstrip('/')}/{name} is missing")
    return item


def text(item: h5py.HLObject, name: str) -> str | None:
    """Attribute ``name`` of a group or dataset; None if it is missing or not text."""
    value = item.attrs.get(name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def number(item: h5py.HLObject, name: str) -> float | None:
    """Attribute ``name`` of a group or dataset; None if it is missing or not one finite number."""
    value = np.asarray(item.attrs.get(name, np.nan))
    if value.size != 1 or value.dtype.kind not in "fiub":
        return None
    result = float(value.reshape(-1)[0])
    return result if np.isfinite(result) else None


def settings(item: h5py.HLObject, name: str) -> dict[str, Any]:
    """JSON object in attribute ``name``; empty if there is none that can be parsed."""
    try:
        value = json.loads(text(item, name) or "{}")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def demo_groups(group: h5py.Group) -> list[str]:
    """Names of the groups in ``group``, in natural order."""
    return natural_order(name for name, item in group.items() if isinstance(item, h5py.Group))


def check_only_demo(name: str) -> None:
    """Raise ``LogError`` unless ``name`` is that of the file's only demonstration."""
    if name != ONLY_DEMO:
        raise LogError(f"there is no demonstration {name!r}: a file of this format holds one, {ONLY_DEMO!r}")


def natural_order(names: Iterable[str]) -> list[str]:
    """Names sorted with their numbers by value: demo_2 before demo_10."""

    def key(name: str) -> list[tuple[int, str]]:
        return [(int(digits or -1), other) for digits, other in re.findall(r"([0-9]{1,18})|([^0-9]+)", name)]

    return sorted(names, key=key)
