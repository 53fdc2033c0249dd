"""Logs of every format, damaged in many ways: always an error with a reason, never a crash or a partial result."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_files import WRITERS
from logs import read_logs

from demos_replay.inspect import validate
from demos_replay.log import Log, LogError
from demos_replay.readers import Skipped, probe

EXAMPLES = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a short time limit, because the HDF5 library hangs on some of these files."""
    monkeypatch.setattr(probe, "PATIENCE", 3.0)


@cache
def intact(layout: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.hdf5"
        WRITERS[layout](path)
        return path.read_bytes()


def read_all(path: Path) -> list[Log | Skipped]:
    """Read and check all demonstrations; none if the file as a whole is rejected."""
    demos: list[Log | Skipped] = []
    reason = "nothing was refused"
    try:
        demos = list(read_logs(path))
        validate(path)
    except LogError as error:
        reason = str(error)
    assert reason.strip()
    for demo in demos:
        if isinstance(demo, Skipped):
            assert demo.reason.strip()
        else:
            assert_finite(demo)
    return demos


def assert_finite(log: Log) -> None:
    rows = len(log.time)
    arrays = [getattr(log, field.name) for field in fields(log)]
    for item in log.objects.values():
        arrays += [item.poses, item.half_size]
        assert len(item.poses) == rows
    for array in arrays:
        if isinstance(array, np.ndarray):
            assert np.isfinite(array).all()
    assert all(len(array) == rows for array in (log.tcp_pose, log.gripper_closed))
    assert all(map(math.isfinite, (log.rate, log.lag, log.table_height))) and log.rate > 0.0
    assert (np.diff(log.time) > 0.0).all()


def read_mutated(layout: str, change: Callable[[h5py.File], None]) -> None:
    """Read a valid file of ``layout`` after ``change``."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.hdf5"
        path.write_bytes(intact(layout))
        with h5py.File(path, "a") as file:
            change(file)
        read_all(path)


def names_of(file: h5py.File, kind: type) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, kind) else None)
    return sorted(names)


VALUES: dict[str, Callable[[np.ndarray], Any]] = {
    "nothing": lambda values: np.zeros((0, *values.shape[1:])),
    "one row": lambda values: values[:1],
    "fewer rows": lambda values: values[: len(values) // 2],
    "more rows": lambda values: np.concatenate([values, values]),
    "fewer columns": lambda values: values[..., :-1],
    "one more axis": lambda values: values[..., None],
    "a number": lambda values: 3.0,
    "text": lambda values: np.full(values.shape, b"open"),
    "a sentence": lambda values: "open",
    "integers": lambda values: np.clip(np.nan_to_num(values), -100, 100).astype(np.int32),
    "complex numbers": lambda values: values.astype(complex),
    "zeros": np.zeros_like,
    "ones": np.ones_like,
    "huge numbers": lambda values: values * 1e300,
    "large numbers": lambda values: values * 1e9,
    "not finite": lambda values: np.where(np.arange(values.size).reshape(values.shape) % 7 == 3, np.nan, values),
    "infinite": lambda values: np.full(values.shape, -np.inf),
    "backwards": lambda values: values[::-1],
    "far more rows than it can have": lambda values: None,
}
TEXTS: list[Any] = [
    "", "{}", "[]", "null", "{" * 3000, np.bytes_(b"model\x00.xml"), "../../etc/passwd",
    "<mujoco", "<mujoco/>", "<!DOCTYPE a><mujoco/>",
    "<mujoco><worldbody><body/></worldbody></mujoco>", b"\xff\xfe", h5py.Empty("S1"),
    7, -1.5, np.nan, True, np.zeros(3),
]  # fmt: skip


@pytest.mark.parametrize("layout", WRITERS)
@given(data=st.data())
@EXAMPLES
def test_datasets_of_any_content(layout: str, data: st.DataObject) -> None:
    def change(file: h5py.File) -> None:
        name = data.draw(st.sampled_from(names_of(file, h5py.Dataset)))
        values = np.asarray(file[name][()])
        to = data.draw(st.sampled_from(sorted(VALUES)))
        del file[name]
        if values.dtype.kind not in "fiub":
            values = np.zeros(4)
        if to == "far more rows than it can have":
            file.create_dataset(name, (10**9, *values.shape[1:]), "f8", chunks=True)
        else:
            file[name] = VALUES[to](values)

    read_mutated(layout, change)


@pytest.mark.parametrize("layout", WRITERS)
@given(data=st.data())
@EXAMPLES
def test_attributes_of_any_content(layout: str, data: st.DataObject) -> None:
    def change(file: h5py.File) -> None:
        holders = ["/", *names_of(file, h5py.Group), *names_of(file, h5py.Dataset)]
        told = [(holder, name) for holder in holders for name in file[holder].attrs]
        if told:
            holder, name = data.draw(st.sampled_from(told))
            del file[holder].attrs[name]
            value = data.draw(st.sampled_from([None, *TEXTS]))
            if value is not None:
                file[holder].attrs[name] = value

    read_mutated(layout, change)


@pytest.mark.parametrize("layout", WRITERS)
@given(data=st.data())
@EXAMPLES
def test_parts_that_are_missing_or_something_else(layout: str, data: st.DataObject) -> None:
    def change(file: h5py.File) -> None:
        name = data.draw(st.sampled_from([*names_of(file, h5py.Group), *names_of(file, h5py.Dataset)]))
        was_group = isinstance(file[name], h5py.Group)
        del file[name]
        if data.draw(st.booleans()):
            if was_group:
                file[name] = np.zeros((40, 7))
            else:
                file.create_group(name)

    read_mutated(layout, change)


@pytest.mark.parametrize("layout", WRITERS)
@given(data=st.data())
@EXAMPLES
def test_files_that_are_cut_off(layout: str, data: st.DataObject) -> None:
    content = intact(layout)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.hdf5"
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        assert read_all(path) == []


@pytest.mark.parametrize("layout", WRITERS)
@given(data=st.data())
@EXAMPLES
def test_files_with_bytes_that_changed(layout: str, data: st.DataObject) -> None:
    content = bytearray(intact(layout))
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.hdf5"
        path.write_bytes(content)
        read_all(path)
