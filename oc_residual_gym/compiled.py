"""Numba's ``njit`` with a disk cache that belongs to exactly what these sources mean.

Numba's own cache watches only the file a function is in, not those whose functions it calls: after an update it would
go on running what the package no longer says. Other comments are no other meaning.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numba
from numba import config

from oc_residual_gym.syntax import file_hash

PACKAGE = Path(__file__).parent
SOURCES = "sources"
"""A cache's file with the hashes of all sources that mean the same as those it was made from: to parse the package
takes half a second, too long for every import."""
KEPT = 4
"""Caches of other versions or checkouts that are not deleted."""


def _cache_directory() -> Path:
    """A folder in the user's cache, or where that cannot be written in the system's temporary folder."""
    files = sorted(PACKAGE.rglob("*.py"))
    sources = _digest(files, lambda file: hashlib.sha256(file.read_bytes()).hexdigest())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for parent in (home, Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"):
        caches = parent / "oc-residual-gym" / "compiled"
        try:
            folder = next((f.parent for f in caches.glob(f"*/{SOURCES}") if sources in f.read_text()), None)
            if folder is None:
                folder = caches / _digest(files, file_hash)[:16]
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / SOURCES, "a", encoding="ascii") as known:
                    known.write(f"{sources}\n")
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="oc-residual-gym-"))


def _digest(files: Iterable[Path], hash_of: Callable[[Path], str]) -> str:
    lines = (f"{file.relative_to(PACKAGE).as_posix()} {hash_of(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _drop_old_caches(current: Path) -> None:
    others = sorted((f for f in current.parent.iterdir() if f != current), key=lambda f: f.stat().st_mtime)
    for folder in others[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


_DIRECTORY = _cache_directory()
_drop_old_caches(_DIRECTORY)
if not any(entry.is_dir() for entry in _DIRECTORY.iterdir()):
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
