"""HDF5 files: how all of this project opens, reads and writes them.

No file is locked: some network file systems have no locks, and files are written under a temporary name and appear when
they are whole. No file is trusted: links out of it are refused, and so is content that is far larger than the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from oc_residual_gym.errors import FileError
from oc_residual_gym.parsing import check_file

DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""Exceptions that h5py raises on damaged files."""
MOST_BYTES = 2**27
"""Maximum bytes of a dataset in memory: 134 MB, two minutes of the images of one camera, or an hour of 200 numbers at
20 Hz."""
RATIO = 1032
"""Maximum ratio of content to file: what zlib reaches (https://zlib.net/zlib_tech.html)."""
SPARE_BYTES = 2**28
"""Bytes of content that a file may have beyond :data:`RATIO`, such as chunks that were never written."""
_NUMBERS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM, h5py.h5t.BITFIELD)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open the file at ``path`` for reading.

    Raises:
        FileError: it does not exist, is not HDF5, is damaged, refers to other files, or claims more content than it
            can hold.
    """
    check_file(path)
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise FileError(f"{path} is not HDF5, or cut off or damaged ({error})") from error
    with file:
        _check_content(file, path)
        yield file


@contextmanager
def written(path: Path) -> Iterator[h5py.File]:
    """Write a new file at ``path``; an existing one is replaced.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    with _Sink(path) as sink:
        try:
            with h5py.File(sink, "w") as file:
                yield file
        finally:
            if sink.error is not None:
                sink.error.filename = str(path)
                raise sink.error


@contextmanager
def changed(content: io.BytesIO) -> Iterator[h5py.File]:
    """Change a file in memory; create one if ``content`` is empty."""
    with h5py.File(content, "r+" if content.getbuffer().nbytes else "w") as file:
        yield file


def read(dataset: h5py.Dataset) -> np.ndarray:
    """Read ``dataset``; numbers with one or two axes as float64, everything else as it is.

    Raises:
        FileError: it is larger than a demonstration can be.
    """
    if _size(dataset.id) > MOST_BYTES:
        raise FileError(
            f"{dataset.file.filename}: {dataset.name} has shape {dataset.shape}, {_size(dataset.id) / 1e6:,.0f} MB; "
            f"at most {MOST_BYTES / 1e6:,.0f} MB are read"
        )
    return np.asarray(dataset[()], np.float64 if _is_table(dataset.id) else None)


class _Sink(io.FileIO):
    """A file that keeps its first error, and then pretends to be written.

    libhdf5 cannot close a file that it fails to write, and may crash.
    """

    def __init__(self, path: Path):
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, content: Any, /) -> int:
        rest = memoryview(content).cast("B")
        count = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) or 0 :]
        except OSError as error:
            self.error = error
        return count

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


def _is_table(dataset: h5py.h5d.DatasetID) -> bool:
    return dataset.rank <= 2 and dataset.get_type().get_class() in _NUMBERS


def _size(dataset: h5py.h5d.DatasetID) -> int:
    """Bytes of ``dataset`` in memory."""
    count = dataset.get_space().get_simple_extent_npoints()
    return int(count * (8 if _is_table(dataset) else dataset.get_type().get_size()))


def _check_content(file: h5py.File, path: Path) -> None:
    """Reject links that lead out of the file or nowhere, and more content than it can hold."""
    # Use h5py's low-level functions, because a file may have tens of thousands of links. Collect all links before
    # following any: h5py cannot handle exceptions during a visit.
    links: list[tuple[bytes, int]] = []
    most = SPARE_BYTES + RATIO * path.stat().st_size
    total, largest, where = 0, -1, ""
    try:
        file.id.links.visit(lambda name, info: links.append((name, info.type)), info=True)
        for name, kind in links:
            dataset = _dataset(file, name, kind, path)
            if dataset is not None:
                size = _size(dataset)
                total += size
                if size > largest:
                    largest, where = size, f"{_shown(name)} with shape {dataset.shape}"
    except FileError:
        raise
    except DAMAGE as error:
        raise FileError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    if total > most:
        raise FileError(
            f"{path} claims {total / 1e6:,.0f} MB of content, more than a file of {path.stat().st_size / 1e6:,.3f} MB "
            f"can hold ({most / 1e6:,.0f} MB); its largest dataset is {where}"
        )


def _dataset(file: h5py.File, name: bytes, kind: int, path: Path) -> Any:
    """The dataset that a link leads to; ``None`` if it leads to something else."""
    problem = None
    if kind not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
        problem = "is an external link"
    else:
        try:
            item = h5py.h5o.open(file.id, name)
        except DAMAGE:
            if kind != h5py.h5l.TYPE_SOFT:
                raise
            problem = "is a dangling or circular soft link"
        else:
            if not isinstance(item, h5py.h5d.DatasetID):
                return None
            storage = item.get_create_plist()
            if storage.get_external_count() > 0:
                problem = "has its data in another file"
            elif storage.get_layout() == h5py.h5d.VIRTUAL:
                problem = "is a virtual dataset, which may refer to other files"
            else:
                return item
    raise FileError(f"{path}: {_shown(name)} {problem}; only self-contained files can be read")


def _shown(name: bytes) -> str:
    return f"/{name.decode('utf-8', 'replace')}"
