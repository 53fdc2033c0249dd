"""Numba's ``njit`` with a disk cache per version of this package's code.

Numba's own cache checks only the file that defines a function, not the files of the functions it calls: after an update
it could run outdated code. Changes to comments and docstrings keep the cache. Without a usable cache, each process
compiles for itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from oc_residual_gym.caches import VARIABLE, cache_folders
from oc_residual_gym.syntax import file_hash

PACKAGE = Path(__file__).parent
SOURCES = "sources"
"""File in a cache that lists the raw hashes of all sources with the same meaning. It saves parsing the package (0.5 s)
at every import."""
KEPT = 4
"""Number of caches of other versions that are kept: those used last."""
_problems: set[str] = set()
"""Problems with the cache that were reported."""


def _cache_directory() -> Path | None:
    """Cache folder for the present sources; ``None`` if no folder can be written."""
    files = sorted(PACKAGE.rglob("*.py"))
    sources = _digest(files, lambda file: hashlib.sha256(file.read_bytes()).hexdigest())
    for parent in cache_folders():
        caches = parent / "compiled"
        with suppress(OSError):  # the next one may do
            folder = next((f.parent for f in caches.glob(f"*/{SOURCES}") if sources in _content(f)), None)
            if folder is None:
                folder = caches / _digest(files, file_hash)[:16]
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / SOURCES, "a", encoding="ascii") as known:
                    known.write(f"{sources}\n")
            tempfile.TemporaryFile(dir=folder).close()  # can it be written?
            return folder
    return None


def _content(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:  # another process has just removed it
        return ""


def _digest(files: Iterable[Path], hash_of: Callable[[Path], str]) -> str:
    lines = [f"{file.relative_to(PACKAGE).as_posix()} {hash_of(file)}\n" for file in files]
    compiler = f"numba {numba.__version__}, numpy {numpy.__version__}\n"  # environments may share a cache
    return hashlib.sha256("".join([compiler, *lines]).encode()).hexdigest()


def _drop_old_caches(current: Path) -> None:
    """Keep the :data:`KEPT` caches beside ``current`` that were used last. Other processes may do the same now."""
    used = []
    with suppress(OSError):
        os.utime(current)
        for folder in current.parent.iterdir():
            with suppress(OSError):
                used.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(entry for entry in used if entry[1] != current)[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_empty(folder: Path) -> bool:
    try:
        return not any(entry.is_dir() for entry in folder.iterdir())
    except OSError:
        return True


def _report(problem: object) -> None:
    """Say once per folder that compiled code is not kept. Not a warning, which some programs turn into an error."""
    where = "no folder can be written" if _DIRECTORY is None else f"{_DIRECTORY} cannot be used"
    if where not in _problems:
        _problems.add(where)
        logging.getLogger(__name__).warning(
            "oc-residual-gym: compiled code is not kept, because %s (%s): every start takes about 20 seconds longer. "
            "Set %s to a folder on a disk with room",
            where,
            problem,
            VARIABLE,
        )


_DIRECTORY = _cache_directory()
if _DIRECTORY is None:
    _report("neither the user's cache nor the temporary folder")
else:
    _drop_old_caches(_DIRECTORY)
    if _is_empty(_DIRECTORY):
        print(f"oc-residual-gym: compiling for this version into {_DIRECTORY}, once, about 20 seconds", file=sys.stderr)


class _Locator(_CacheLocator):
    """Folder for the compiled code of one function. Its parent is for these sources alone: the code is never old."""

    def __init__(self, function: Callable[..., Any]):
        assert _DIRECTORY is not None
        self._folder = _DIRECTORY / function.__module__
        self._py_file, self._lineno = function.__code__.co_filename, 0  # for Numba's warnings

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return ""

    def get_disambiguator(self) -> str:
        return ""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Locator:
        locator = cls(py_func)
        locator.ensure_cache_path()
        return locator


class _Files(CompileResultCacheImpl):
    _locator_classes: Any = [_Locator]


class _Cache(FunctionCache):
    """Numba's cache of one function. Where it cannot be read or written, the function is compiled in each process."""

    _impl_class = _Files

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except OSError as error:
            _report(error)
        except Exception:  # a damaged file raises anything
            with suppress(OSError):
                self.flush()  # so that it is written again
        return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except OSError as error:
            _report(error)


def njit(signature: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Decorator that compiles a function: immediately with a ``signature``, otherwise at the first call."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled: Any = numba.njit(function)
        if compiled is function:  # NUMBA_DISABLE_JIT is set
            return function
        if _DIRECTORY is not None:
            try:
                compiled._cache = _Cache(function)
            except OSError as error:  # removed, or no longer writable
                _report(error)
        if signature is not None:
            compiled.compile(signature)
            compiled.disable_compile()
        return compiled

    return decorate
