"""Writers of datasets. ``robomimic`` is what a replay produces; ``lerobot`` and ``minari`` are made from it."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


class WriterError(Exception):
    """A dataset cannot be written; the message says why and what to do."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; the file or folder written there becomes ``path`` when the block ends.

    If the block raises, the temporary file or folder is removed and ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def refuse_existing(path: Path) -> None:
    """Raise a ``WriterError`` if ``path`` exists."""
    if path.exists():
        raise WriterError(f"{path} exists already; give another --out, or remove it")


def optional_module(name: str) -> ModuleType:
    """Import a package of the extra ``datasets``.

    Raises:
        WriterError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WriterError(
            f"this needs the package {name.partition('.')[0]} ({error}); pip install 'oc-residual-gym[datasets]'"
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
