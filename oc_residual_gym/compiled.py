"""Numba's ``njit`` with a disk cache that belongs to exactly these sources.

Numba's own cache watches only the file a function is in, not those whose functions it calls: after an update it would
go on running what the package no longer says.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config

KEPT = 4
"""Caches of other versions or checkouts that are not deleted."""


def _cache_directory() -> Path:
    """A folder in the user's cache, or where that cannot be written in the system's temporary folder."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for parent in (home, Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"):
        folder = parent / "oc-residual-gym" / "compiled" / digest.hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="oc-residual-gym-"))


def _drop_old_caches(current: Path) -> None:
    others = sorted((f for f in current.parent.iterdir() if f != current), key=lambda f: f.stat().st_mtime)
    for folder in others[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


_DIRECTORY = _cache_directory()
_drop_old_caches(_DIRECTORY)
if not any(_DIRECTORY.iterdir()):
    print(f"oc-residual-gym: compiling for this version into {_DIRECTORY}, once, about 20 seconds", file=sys.stderr)


def njit(signature: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: compile a function, now if it has a ``signature``, else when it is first called."""

    def decorate(function: Callable[..., Any]) -> Any:
        before = getattr(config, "CACHE_DIR", "")
        setattr(config, "CACHE_DIR", str(_DIRECTORY))  # noqa: B010 (unknown to type checkers)
        try:
            compiler = numba.njit(cache=True) if signature is None else numba.njit(signature, cache=True)
            return compiler(function)
        finally:
            setattr(config, "CACHE_DIR", before)  # noqa: B010

    return decorate
