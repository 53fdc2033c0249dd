"""Names and content hashes of the objects (policies, domains, error models) that results were made with.

The hash covers what pickle would store: the object's state, plus the syntax trees of its classes and functions. Code of
this package counts by name only, because the simulation hash covers it; so does code without Python sources.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.syntax import tree_hash

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))


def name_of(policy: Any) -> str:
    """Name of a policy in results: the given name or file, else its ``name`` attribute, else its class's name.

    For a function, its own name.
    """
    if isinstance(policy, (str, Path)):
        return str(policy)
    own = getattr(policy, "name", None) or getattr(policy, "__name__", None)
    return own if isinstance(own, str) else type(policy).__name__


def name_among(kind: str, thing: Any, shipped: Mapping[str, Any]) -> str:
    """Name of a domain or pose error model in results; an object that equals a shipped one gets that one's name.

    Any other object is named after its content hash, such as "domain-3f2a91c0".
    """
    if isinstance(thing, str):
        return thing
    own = next((name for name, other in shipped.items() if other == thing), None)
    return own or f"{kind}-{content_hash(thing)[:8]}"


def content_hash(thing: Any) -> str:
    """SHA-256 of an object: its own ``hash`` attribute if it has one, otherwise a hash of its code and state.

    Code that a function or method calls elsewhere, and global values that it reads, are not covered: where these may
    change, give the object a ``hash``.

    Raises:
        SettingsError: its code or state cannot be read; the message says what to do.
    """
    own = getattr(thing, "hash", None)
    if isinstance(own, str):
        return own
    digest = hashlib.sha256()
    try:
        for part in _described(thing, []):
            digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    except SettingsError:
        raise
    except Exception as error:  # whatever it says to being pickled
        raise SettingsError(
            f"results cannot say what {name_of(thing)!r} is ({error}): give it an attribute `hash`, a text that "
            "changes whenever its behaviour changes"
        ) from error
    return digest.hexdigest()


def own_copy(policy: Any) -> Any:
    """Copy of a policy for one run, so that the original keeps the state that its hash describes.

    A policy with a ``hash`` of its own is returned itself, and so is a name.
    """
    return policy if isinstance(getattr(policy, "hash", None), str) else copy.deepcopy(policy)


def _described(thing: Any, within: list[int]) -> Iterator[str]:
    """Texts that are equal for objects of equal content, in any process; ``within`` holds the ids of its owners."""
    yield type(thing).__name__
    own = getattr(thing, "hash", None)
    if isinstance(own, str):
        yield own
    elif isinstance(thing, _PLAIN):
        yield repr(thing)
    elif isinstance(thing, type):
        for base in thing.__mro__:
            yield from _code(base)
    elif id(thing) in within:  # a reference cycle
        yield str(within.index(id(thing)))
    else:
        if isinstance(thing, FunctionType):
            yield from _code(thing)
        for part in _parts(thing):
            yield from _described(part, [*within, id(thing)])


def _parts(thing: Any) -> list[Any]:
    """Parts that make up an object, besides its code."""
    if isinstance(thing, (list, tuple)):
        return [len(thing), *thing]
    if isinstance(thing, (set, frozenset)):
        return sorted(content_hash(item) for item in thing)
    if isinstance(thing, dict):
        return [len(thing), *(part for item in thing.items() for part in item)]
    if isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
        return [str(thing.dtype), thing.shape, thing.tobytes()]
    if isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or ()]
        return [thing.__defaults__, thing.__kwdefaults__, cells, thing.__dict__]
    reduced = thing.__reduce_ex__(4)
    if isinstance(reduced, str):
        return [reduced]
    return [list(part) if isinstance(part, Iterator) else part for part in reduced]


def _code(code: Any) -> Iterator[str]:
    """Name of a class or function, and the hash of its syntax tree if it is the user's code."""
    yield code.__qualname__
    package = code.__module__.partition(".")[0]
    if package == __name__.partition(".")[0] or package in sys.stdlib_module_names or _is_extension(code.__module__):
        return
    try:
        yield tree_hash(textwrap.dedent(inspect.getsource(code)))
    except TypeError:  # no Python source: compiled, or typed at a prompt
        if package == "__main__":
            raise


def _is_extension(module: str) -> bool:
    """Whether a module is compiled; such classes have no source, and how inspect says so depends on their compiler."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return file.endswith(tuple(EXTENSION_SUFFIXES))
