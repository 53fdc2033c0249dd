"""Numba's ``njit`` with a disk cache per version of this package's code.

Numba's own cache checks only the file that defines a function, not the files of the functions it calls: after an update
it could run outdated code. Changes to comments and docstrings keep the cache.
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
import numpy
from numba import config

from oc_residual_gym.syntax import file_hash

PACKAGE = Path(__file__).parent
SOURCES = "sources"
"""File in a cache that lists the raw hashes of all sources with the same meaning. It saves parsing the package (0.5 s)
at every import."""
KEPT = 4
"""Number of caches of other versions or checkouts that are kept."""


def _cache_directory() -> Path:
    """Cache folder for the present sources: in the user's cache or, if that is read-only, in the temporary folder."""
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
    folder = Path(tempfile.mkdtemp(prefix="oc-residual-gym-")) / "compiled" / "only"
    folder.mkdir(parents=True)
    return folder


def _digest(files: Iterable[Path], hash_of: Callable[[Path], str]) -> str:
    lines = [f"{file.relative_to(PACKAGE).as_posix()} {hash_of(file)}\n" for file in files]
    compiler = f"numba {numba.__version__}, numpy {numpy.__version__}\n"  # environments may share a cache
    return hashlib.sha256("".join([compiler, *lines]).encode()).hexdigest()


def _drop_old_caches(current: Path) -> None:
    others = sorted((f for f in current.parent.iterdir() if f != current), key=lambda f: f.stat().st_mtime)
    for folder in others[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


_DIRECTORY = _cache_directory()
_drop_old_caches(_DIRECTORY)
if not any(entry.is_dir() for entry in _DIRECTORY.iterdir()):
    print(f"oc-residual-gym: compiling for this version into {_DIRECTORY}, once, about 20 seconds", file=sys.stderr)


def njit(signature: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that compiles a function: immediately with a ``signature``, otherwise at the first call."""

    def decorate(function: Callable[..., Any]) -> Any:
        before = getattr(config, "CACHE_DIR", "")
        setattr(config, "CACHE_DIR", str(_DIRECTORY))  # noqa: B010 (unknown to type checkers)
        try:
            compiler = numba.njit(cache=True) if signature is None else numba.njit(signature, cache=True)
            return compiler(function)
        finally:
            setattr(config, "CACHE_DIR", before)  # noqa: B010

    return decorate
