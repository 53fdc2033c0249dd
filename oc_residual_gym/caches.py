"""Folders for caches. No cache is needed: what reads or writes one must go on without it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NAME = "oc-residual-gym"
VARIABLE = "XDG_CACHE_HOME"
"""Environment variable that moves the user's cache."""


def cache_folders() -> Iterator[Path]:
    """Folders that may hold caches of this package, the best first: in the user's cache, then in the temporary folder.

    They need not exist, or be writable. The one in the temporary folder is created only if the caller asks for it.
    There is none for a user without a home on a machine without a temporary folder.
    """
    home = temporary = None
    with suppress(RuntimeError, OSError):  # no HOME, and the user is not in passwd
        home = Path(os.environ.get(VARIABLE) or Path.home() / ".cache").absolute()
    if home is not None:
        yield home / NAME
    with suppress(OSError):  # full, read-only, or taken by somebody else
        temporary = _own(Path(tempfile.gettempdir()) / f"cache-{os.getuid()}")
    if temporary is not None:
        yield temporary / NAME


def _own(folder: Path) -> Path:
    """Create ``folder`` in a place that all users share; raise ``OSError`` if another user can write to it.

    Caches hold code that is executed.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user, or others can write to it")
    return folder
