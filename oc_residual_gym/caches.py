"""Folders for caches. No cache is needed: what reads or writes one must go on without it."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

NAME = "oc-residual-gym"
VARIABLE = "XDG_CACHE_HOME"
"""Environment variable that moves the user's cache."""


def cache_folders() -> list[Path]:
    """Folders that may hold caches of this package, the best first: in the user's cache, then in the temporary folder.

    They need not exist, or be writable. The list is empty for a user without a home on a machine without a temporary
    folder.
    """
    found = []
    with suppress(RuntimeError, OSError):  # no HOME, and the user is not in passwd
        found.append(Path(os.environ.get(VARIABLE) or Path.home() / ".cache").absolute())
    with suppress(OSError):  # full, read-only, or taken by somebody else
        found.append(_own(Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"))
    return [folder / NAME for folder in found]


def _own(folder: Path) -> Path:
    """Create ``folder`` in a place that all users share; raise ``OSError`` if another user can write to it.

    Caches hold code that is executed.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user, or others can write to it")
    return folder
