"""A check for free disk space before the work begins that would fill it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

MARGIN = 1_000_000
"""Bytes to leave free."""


def check_space(path: Path, needed: int) -> None:
    """Check that ``needed`` bytes fit on the disk of the file or folder ``path``, which need not exist.

    Raises:
        OSError: they do not fit.
    """
    there = next(folder for folder in path.resolve().parents if folder.exists())
    if shutil.disk_usage(there).free < needed + MARGIN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
