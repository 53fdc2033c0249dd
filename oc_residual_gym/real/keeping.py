"""Keeps results that cannot be measured again: if their folder is gone or full, they go to another place."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from oc_residual_gym.errors import KeptElsewhere
from oc_residual_gym.files import write_bytes

PREFIX = "oc-residual-rescued-"
"""How the folders begin in which results are kept that their own folder did not take."""


def keep(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``; if that fails, write it to a new folder in another place.

    The other places are the current folder, the temporary folder and the home folder, in this order.

    Raises:
        KeptElsewhere: the content is in another place.
        OSError: it could not be written anywhere.
    """
    try:
        write_bytes(path, content)
    except OSError as error:
        elsewhere = _rescue(path.name, content)
        if elsewhere is None:
            raise
        raise KeptElsewhere(
            f"{path} cannot be written ({error.strerror or error}): it is kept as {elsewhere}; make room, move it to "
            f"{path.parent}, then go on with the same command"
        ) from error


def _rescue(name: str, content: bytes) -> Path | None:
    """Write a file into a new folder outside; ``None`` if no place takes it."""
    for place in (Path.cwd, lambda: Path(tempfile.gettempdir()), Path.home):
        with suppress(OSError, RuntimeError):  # no current folder, no room, no home
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place()))
            try:
                write_bytes(folder / name, content)
                return folder / name
            except OSError:
                folder.rmdir()
    return None


def read_folder(folder: Path) -> dict[str, bytes]:
    """Content of all files in ``folder`` and its subfolders, by path relative to it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def restore(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write those of ``files`` that ``folder`` has lost; return their names.

    Raises:
        OSError: a file cannot be written.
    """
    lost = [name for name in files if not (folder / name).exists()]
    for name in lost:
        write_bytes(folder / name, files[name])
    return lost
