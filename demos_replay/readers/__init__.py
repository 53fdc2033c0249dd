"""Readers of teleoperation logs in HDF5: one module a format, found by the structure of the file.

A reader never follows a link out of the file it was given, and reports anything unusable as a ``LogError``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py

from demos_replay.log import Log, LogError, check_log
from demos_replay.readers import act, droid, libero, robomimic, robosuite, teleop
from demos_replay.readers.content import DAMAGE


class Reader(Protocol):
    """What each module of this package offers."""

    NAME: str
    """Of the format."""
    LOOKED_FOR: str
    """What in a file identifies the format, one phrase."""

    def matches(self, file: h5py.File) -> bool:
        """Is it a file of this format, as far as its structure tells?"""

    def demos(self, file: h5py.File) -> list[str]:
        """Names of the demonstrations, in natural order.

        Raises:
            LogError: the file has none.
        """

    def read(self, file: h5py.File, name: str) -> Log:
        """One demonstration.

        Raises:
            LogError: it cannot be used.
        """


READERS: tuple[Reader, ...] = (teleop, libero, robomimic, robosuite, droid, act)
"""In order of detection: the particular before the general."""


@dataclass(frozen=True)
class Skipped:
    """A demonstration that cannot be used."""

    name: str
    reason: str


@contextmanager
def open_log(path: str | Path) -> Iterator[tuple[h5py.File, Reader]]:
    """The file at ``path``, opened for reading only, and the reader for its format.

    Raises:
        LogError: there is no such file, it is not HDF5 or damaged, it refers to other files, or it is no log.
    """
    path = Path(path)
    if path.is_dir():
        raise LogError(f"{path} is a folder; give one HDF5 file")
    if not path.is_file():
        raise LogError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise LogError(f"{path} is empty")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise LogError(f"{path} is not HDF5, or cut off or damaged ({error})") from error
    with file:
        _refuse_references(file, path)
        yield file, _detect(file, path)


def read_demo(file: h5py.File, reader: Reader, name: str) -> Log:
    """One checked demonstration.

    Raises:
        LogError: it cannot be used; the message says why.
    """
    try:
        return check_log(reader.read(file, name))
    except DAMAGE as error:
        raise LogError(f"its content cannot be read as {reader.NAME} ({type(error).__name__}: {error})") from error


def read_logs(path: str | Path) -> Iterator[Log | Skipped]:
    """Every demonstration of the file at ``path``, or the reason why it is skipped, in natural order.

    Raises:
        LogError: the file as a whole cannot be used.
    """
    with open_log(path) as (file, reader):
        for name in demo_names(file, reader):
            yield read_demo_or_skip(file, reader, name)


def read_demo_or_skip(file: h5py.File, reader: Reader, name: str) -> Log | Skipped:
    """One checked demonstration, or the reason why it is skipped."""
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
    raise LogError(f"{path} is HDF5 but no log of a known format. Looked for {looked_for}")


def _refuse_references(file: h5py.File, path: Path) -> None:
    """Nothing in the file may lead out of it, or nowhere."""

    def check(name: str, link: Any) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            return f"/{name} is an external link to {link.filename}"
        if isinstance(link, h5py.SoftLink):
            return (
                None if name in file else f"/{name} is a soft link to {link.path}, which leads nowhere or in a circle"
            )
        item = file[name]
        if isinstance(item, h5py.Dataset):
            if item.external:
                return f"/{name} has its data in another file, {item.external[0][0]}"
            if item.is_virtual and any(source.file_name != "." for source in item.virtual_sources()):
                return f"/{name} is a virtual dataset of other files"
        return None

    try:
        problem = file.visititems_links(check)
    except DAMAGE as error:
        raise LogError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if problem is not None:
        raise LogError(f"{path}: {problem}; only logs that are complete in themselves are read")
