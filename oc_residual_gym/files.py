"""Atomic file writes, folders that belong to a single run, and file hashes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oc_residual_gym.errors import SettingsError

Record = dict[str, Any]
"""A JSON object."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see either the old content or the new, never a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def json_bytes(content: Any) -> bytes:
    """``content`` as indented JSON."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode("utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_bytes(path, json_bytes(content))


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_folder(out: Path) -> None:
    """Raise ``SettingsError`` if ``out`` exists and is not a folder."""
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file; give a folder as --out")


def claim(out: Path, name: str, identity: Mapping[str, Any]) -> None:
    """Reserve the folder ``out`` for the run that ``identity`` describes; store the identity in its file ``name``.

    Raises:
        SettingsError: ``out`` is a file, or belongs to another run; the message lists what differs.
    """
    check_folder(out)
    wanted = json.loads(json.dumps(identity))  # tuples become lists, as in the file
    if not (out / name).exists():
        write_json(out / name, wanted)
        return
    found = read_json(out / name)
    lines = [f"  {key}: {there} there, {now} now" for key, there, now in differing(found, wanted)]
    if lines:
        raise SettingsError(
            "\n".join([f"{out} holds a run with other settings; choose another --out or remove it", *lines])
        )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock the folder ``out`` against other processes on this machine; create it if it does not exist.

    Raises:
        SettingsError: ``out`` is a file, another process uses it, or its file system does not support locks.
    """
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends, however it ends
        except BlockingIOError as error:
            raise SettingsError(f"another process is at work in {out}: wait until it has ended") from error
        except OSError as error:
            raise SettingsError(f"cannot lock {out} ({error}): choose a folder on a local disk") from error
        yield
    finally:
        os.close(descriptor)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Entries that differ: the key, its value in ``one`` and its value in ``other``; None for a missing key."""
    return [(key, one.get(key), other.get(key)) for key in {**one, **other} if one.get(key) != other.get(key)]
