"""Room on the disk, asked for beforehand: the HDF5 library crashes where it finds a full one."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

MARGIN = 1_000_000
"""Bytes that stay free."""


def check_space(path: Path, needed: int) -> None:
    """
    Raises:
        OSError: ``needed`` bytes cannot be written to the file or folder at ``path``, which need not exist.
    """
    there = next(folder for folder in path.resolve().parents if folder.exists())
    if shutil.disk_usage(there).free < needed + MARGIN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
