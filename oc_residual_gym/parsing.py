"""Text, JSON and YAML from outside: one strict way to read each, with errors that name the file and the problem."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oc_residual_gym.errors import FileError

if TYPE_CHECKING:
    import yaml

MOST_TEXT, MOST_YAML = 2**28, 2**20
"""Maximum bytes of a text file, and of a YAML file, which takes far longer to parse."""
POINTER = b"version https://git-lfs"
"""First bytes of the small text that stands for a file in Git LFS until it is fetched."""
DEEPEST = 100
"""Maximum depth of nested tables and lists in YAML."""


def check_file(path: Path) -> None:
    """Check that ``path`` is a file with content of its own.

    Raises:
        FileError: it does not exist, cannot be opened, is a folder, is empty, or is a Git LFS pointer.
    """
    if path.is_dir():
        raise FileError(f"{path} is a folder; give a file")
    try:
        with open(path, "rb") as file:
            start = file.read(len(POINTER))
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    if not start:
        raise FileError(f"{path} is empty")
    refuse_pointer(start, path)


def refuse_pointer(content: bytes, path: Path | str) -> None:
    """Raise ``FileError`` if ``content``, read from ``path``, is a Git LFS pointer."""
    if content.startswith(POINTER):
        raise FileError(f"{path} is a Git LFS pointer, not the file itself: run git lfs pull in its repository")


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Read a UTF-8 file of at most ``most`` bytes.

    Raises:
        FileError: as :func:`check_file`, or it is larger or not UTF-8.
    """
    check_file(path)
    with open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FileError(f"{path} has more than {most / 1e6:g} MB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file, strictly: see :func:`parse_json`.

    Raises:
        FileError: as :func:`read_text`, or it is not JSON.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise FileError(f"{path} is not JSON, or cut off: {error}") from error


def parse_json(text: str, parse_int: Callable[[str], int] = int) -> Any:
    """Parse ``text`` as strict JSON.

    Raises:
        ValueError: it is not, for example because of NaN, infinity, or duplicate keys in an object.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_float=_finite, parse_int=parse_int, object_pairs_hook=_object
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"an object has the key {twice!r} twice")
    return content


def read_yaml(path: Path) -> Any:
    """Read a YAML file of plain tables, lists and values.

    Raises:
        FileError: as :func:`read_text`; it is not YAML, a table has a key twice, it has an anchor or alias, or it is
            nested too deeply.
        ImportError: PyYAML is not installed.
    """
    import yaml

    text = read_text(path, MOST_YAML)
    try:
        return yaml.load(text, _yaml_loader())
    except RecursionError as error:
        raise FileError(f"{path} is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that does not exist
        raise FileError(f"{path} is not a YAML file: {error}") from error


def _yaml_loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """Loads each value where it is written, once."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if getattr(event, "anchor", None) is not None:
                raise yaml.composer.ComposerError(None, None, "anchors and aliases are refused", event.start_mark)
            self.depth += 1
            if self.depth > DEEPEST:
                raise yaml.composer.ComposerError(None, None, "it is nested too deeply", event.start_mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            content = super().construct_mapping(node, deep)
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len(content) < len(keys):
                twice = next(key for key, count in Counter(keys).items() if count > 1)
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {twice!r} is there twice", node.start_mark
                )
            return content

    return Loader
