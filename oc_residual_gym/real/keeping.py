"""Keeps results that cannot be measured again: if their folder is gone or full, they go to another place."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from oc_residual_gym.errors import KeptElsewhere
from oc_residual_gym.files import write_bytes

PREFIX = "oc-residual-rescued-"
"""Prefix of the names of new folders for results that could not be written into their own folder."""


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


class Copies:
    """Copies in memory of the files of a folder, so that they can be written again if they are deleted.

    A file is read once: its content must not change afterwards.

    Args:
        folder: the folder.
        patterns: which files, relative to the folder, such as ``trials/*.hdf5``.
    """

    def __init__(self, folder: Path, *patterns: str):
        self._folder, self._patterns = folder, patterns
        self._files: dict[str, bytes] = {}

    def look(self) -> None:
        """Read the files that are new. Files that cannot be read are skipped, and tried again at the next look."""
        for pattern in self._patterns:
            with suppress(OSError):
                for path in self._folder.glob(pattern):
                    name = str(path.relative_to(self._folder))
                    if name not in self._files:
                        with suppress(OSError):
                            self._files[name] = path.read_bytes()

    def restore(self) -> list[str]:
        """Write the files again that the folder has lost; return their names.

        Raises:
            OSError: a file cannot be written.
        """
        lost = [name for name in self._files if not (self._folder / name).exists()]
        for name in lost:
            write_bytes(self._folder / name, self._files[name])
        return lost
