"""What results call the objects that they were made with, and hashes of what these objects are.

An object is described by what it would be pickled as: its state, and the code of its classes and functions as syntax
trees. Code of this package counts by name, for the simulation's hash covers it; so does code without sources.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.syntax import tree_hash

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))


def name_of(policy: Any) -> str:
    """What results call a policy: itself, where it was given by name or file, else its ``name`` or that of its class.

    A function has its own name.
    """
    if isinstance(policy, (str, Path)):
        return str(policy)
    own = getattr(policy, "name", None) or getattr(policy, "__name__", None)
    return own if isinstance(own, str) else type(policy).__name__


def name_among(kind: str, thing: Any, shipped: Mapping[str, Any]) -> str:
    """What results call a domain or a pose error model: its name, also where an object equals a shipped one.

    Any other object is called after its content, such as "domain-3f2a91c0".
    """
    if isinstance(thing, str):
        return thing
    own = next((name for name, other in shipped.items() if other == thing), None)
    return own or f"{kind}-{content_hash(thing)[:8]}"


def content_hash(thing: Any) -> str:
    """SHA-256 of what an object is: its own ``hash``, where it has one, else the hash of its code and state.

    What a function or a method calls elsewhere is not seen.

    Raises:
        SettingsError: code or state cannot be read; the message says what to do.
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
            "changes whenever it would act otherwise"
        ) from error
    return digest.hexdigest()


def own_copy(policy: Any) -> Any:
    """A copy for one run, so that the hash of the original goes on saying what a run begins with.

    A policy that says its ``hash`` itself is used as it is, and so is a name.
    """
    return policy if isinstance(getattr(policy, "hash", None), str) else copy.deepcopy(policy)


def _described(thing: Any, within: list[int]) -> Iterator[str]:
    """Texts that are the same for two objects of the same content, in any process; ``within`` are ids of its owners."""
    yield type(thing).__name__
    own = getattr(thing, "hash", None)
    if isinstance(own, str):
        yield own
    elif isinstance(thing, _PLAIN):
        yield repr(thing)
    elif isinstance(thing, type):
        for base in thing.__mro__:
            yield from _code(base)
    elif id(thing) in within:  # it would never end
        yield str(within.index(id(thing)))
    else:
        if isinstance(thing, FunctionType):
            yield from _code(thing)
        for part in _parts(thing):
            yield from _described(part, [*within, id(thing)])


def _parts(thing: Any) -> list[Any]:
    """What an object consists of, beside code."""
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
    """The name of a class or a function, and its tree where it is the user's."""
    yield code.__qualname__
    package = code.__module__.partition(".")[0]
    if package == __name__.partition(".")[0] or package in sys.stdlib_module_names:
        return
    try:
        yield tree_hash(textwrap.dedent(inspect.getsource(code)))
    except TypeError:  # it has no Python, or is from a prompt
        if package == "__main__":
            raise
