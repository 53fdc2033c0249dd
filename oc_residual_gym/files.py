"""Atomic file writes, folders that belong to a single run, and file hashes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.parsing import read_json

Record = dict[str, Any]
"""A JSON object."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NAMES = {
    "versions": "version of {}",
    "hashes": "{}",
    "code": "code of {}",
    "data": "data file {}",
    "contents": "content of {}",
    "outside": "task {}",
}
"""Groups of an identity's entries, as messages name them."""
_WORDS = {
    "base": "base policy",
    "base_sha256": "base policy",
    "residual": "residual policy",
    "simulation": "physics and code of the simulation",
    "episodes": "episodes per task",
    "errors": "pose errors",
    "objects": "start poses of objects",
    "stable_baselines3": "version of stable-baselines3",
    "torch": "version of torch",
}
_HASH = re.compile("[0-9a-f]{64}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see either the old content or the new, never a part of it."""
    if path.exists() and not path.is_file():  # a pipe or a device: it must not be replaced
        path.write_bytes(content)
        return
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
    lines = differences(read_json(out / name), wanted)
    if lines:
        raise SettingsError(
            "\n  ".join([f"{out} holds a run with other settings; choose another --out or remove it", *lines])
        )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock the folder ``out`` against other processes on this machine; create it if it does not exist.

    Some network file systems have no locks: then this says so and goes on.

    Raises:
        SettingsError: ``out`` is a file, or another process uses it.
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
            if error.errno not in _NO_LOCKS:
                raise
            logging.getLogger(__name__).warning(
                "%s is on a file system without locks (%s): make sure that no other process uses it", out, error
            )
        yield
    finally:
        os.close(descriptor)


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], sides: tuple[str, str] = ("there", "now")
) -> list[str]:
    """What differs between two identities of a run, in words, one line each; ``sides`` says where each one is.

    >>> differences({"versions": {"numpy": "1.26"}, "starts": 2}, {"versions": {"numpy": "2.4"}, "starts": 2})
    ['version of numpy: 1.26 there, 2.4 now']
    """
    return list(_differences((), one, other, sides))


def _differences(path: tuple[str, ...], one: Any, other: Any, sides: tuple[str, str]) -> Iterator[str]:
    if one == other:
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences((*path, str(key)), one.get(key), other.get(key), sides)
        return
    hashed = [isinstance(value, str) and bool(_HASH.fullmatch(value)) for value in (one, other)]
    if all(hashed):
        yield f"{_named(path)}: another content {sides[0]} than {sides[1]}"
        return
    said = ["a file" if is_hash else _shown(value) for value, is_hash in zip((one, other), hashed, strict=True)]
    yield f"{_named(path)}: {said[0]} {sides[0]}, {said[1]} {sides[1]}"


def _named(path: Sequence[str]) -> str:
    """Name of an entry: its group in words, and the way to it."""
    words = [_WORDS.get(part, part) for part in path]
    if len(path) > 1 and path[0] in _NAMES:
        return ", ".join([_NAMES[path[0]].format(words[1]), *words[2:]])
    return ", ".join(words)


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, Mapping):
        return f"a table of {len(value)}"
    return "none" if value is None else str(value)
