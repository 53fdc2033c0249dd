"""Readers of teleoperation logs in HDF5: one module per format, chosen by the structure of the file.

A reader never follows a link out of the file it was given, and reports anything unusable as a ``LogError``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py

from demos_replay.log import Log, LogError, check_log
from demos_replay.readers import act, droid, libero, robomimic, robosuite, teleop
from demos_replay.readers.probe import try_first
from oc_residual_gym.errors import FileError
from oc_residual_gym.hdf5 import DAMAGE, opened
from oc_residual_gym.parsing import check_file


class Reader(Protocol):
    """Interface of each reader module of this package."""

    NAME: str
    """Name of the format."""
    LOOKED_FOR: str
    """What identifies the format in a file, as one phrase."""

    def matches(self, file: h5py.File) -> bool:
        """Whether the structure of ``file`` is that of this format."""

    def demos(self, file: h5py.File) -> list[str]:
        """Names of the demonstrations, in natural order.

        Raises:
            LogError: the file has none.
        """

    def read(self, file: h5py.File, name: str) -> Log:
        """Read one demonstration.

        Raises:
            LogError: the demonstration cannot be used.
        """


READERS: tuple[Reader, ...] = (teleop, libero, robomimic, robosuite, droid, act)
"""Readers in order of detection: specific formats before general ones."""


@dataclass(frozen=True)
class Skipped:
    """A demonstration that cannot be used."""

    name: str
    reason: str


@contextmanager
def open_log(path: str | Path) -> Iterator[tuple[h5py.File, Reader]]:
    """Open the file at ``path`` for reading; yield it and the reader for its format.

    Raises:
        LogError: the file does not exist, is not HDF5, is damaged, refers to other files, claims more content than it
            can hold, or is not a log.
    """
    path = Path(path)
    try:
        check_file(path)
        try_first(path)
        with opened(path) as file:
            yield file, _detect(file, path)
    except FileError as error:
        raise LogError(str(error)) from error


def read_demo(file: h5py.File, reader: Reader, name: str) -> Log:
    """Read and check one demonstration.

    Raises:
        LogError: the demonstration cannot be used; the message says why.
    """
    try:
        return check_log(reader.read(file, name))
    except DAMAGE as error:
        raise LogError(f"its content cannot be read as {reader.NAME} ({type(error).__name__}: {error})") from error


def read_demo_or_skip(file: h5py.File, reader: Reader, name: str) -> Log | Skipped:
    """Read and check one demonstration, or return the reason for skipping it."""
    try:
        return read_demo(file, reader, name)
    except LogError as error:
        return Skipped(name, str(error))


def demo_names(file: h5py.File, reader: Reader) -> list[str]:
    """Names of the demonstrations in natural order, at least one.

    Raises:
        LogError: there are none.
    """
    try:
        names = reader.demos(file)
    except DAMAGE as error:
        raise LogError(f"{file.filename} is damaged ({type(error).__name__}: {error})") from error
    if not names:
        raise LogError(f"{file.filename} looks like {reader.NAME} but has no demonstrations")
    return names


def _detect(file: h5py.File, path: Path) -> Reader:
    for reader in READERS:
        try:
            if reader.matches(file):
                return reader
        except DAMAGE:
            continue
    looked_for = "; ".join(f"{reader.NAME}: {reader.LOOKED_FOR}" for reader in READERS)
    raise LogError(f"{path} is HDF5 but not a log of a known format. Looked for {looked_for}")
