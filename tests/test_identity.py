"""Hashes of objects: equal for equal content, in any process, and for nothing else."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.identity import content_hash, name_of
from oc_residual_gym.policies.base import CallablePolicy, HoldPolicy
from oc_residual_gym.policies.expert import ExpertPolicy
from oc_residual_gym.tasks import TASKS


@dataclass
class Policy:
    gain: float = 1.0
    weights: np.ndarray = field(default_factory=lambda: np.arange(3.0))
    names: frozenset[str] = frozenset({"a", "b", "c"})
    rest: Any = None


@dataclass
class Other(Policy):
    """Has another name, and no other field."""


def scaled(gain: float) -> Callable[[float], float]:
    def scale(x: float, offset: float = 0.0) -> float:
        return gain * x + offset

    return scale


def act(gain: float, view: float) -> float:
    return gain * view


class Hashed:
    hash = "version 1"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("no state")


DIFFERENT = {
    "a default": Policy(),
    "a number": Policy(gain=2.0),
    "its type": Policy(gain=1),
    "an array": Policy(weights=np.arange(3.0) + 1e-12),
    "the type of an array": Policy(weights=np.arange(3.0, dtype=np.float32)),
    "a set": Policy(names=frozenset({"a", "b"})),
    "something deep inside": Policy(rest=[{"key": (1, None)}]),
    "its order": Policy(rest=[{"key": (None, 1)}]),
    "a class": Other(),
    "a closure": scaled(1.0),
    "a number in a closure": scaled(2.0),
    "a partial function": functools.partial(act, 1.0),
    "an argument of it": functools.partial(act, 2.0),
    "an object of the package": HoldPolicy(),
    "another": ExpertPolicy(TASKS["Lift"]),
    "the task of one": ExpertPolicy(TASKS["Stack"]),
    "a wrapped function": CallablePolicy(act),
    "a function without Python": open,
    "a generator": np.random.default_rng(0),
    "the state of one": np.random.default_rng(1),
    "an object with a hash inside": Policy(rest=Hashed()),
}


def test_other_content_has_another_hash() -> None:
    hashes = {name: content_hash(thing) for name, thing in DIFFERENT.items()}
    assert len(set(hashes.values())) == len(DIFFERENT)


@pytest.mark.parametrize("name", DIFFERENT)
def test_copies_have_the_same_hash(name: str) -> None:
    thing = DIFFERENT[name]
    if not isinstance(getattr(thing, "rest", None), Hashed):
        assert content_hash(copy.deepcopy(thing)) == content_hash(thing)
    if isinstance(thing, Policy) and not isinstance(thing.rest, Hashed):
        assert content_hash(pickle.loads(pickle.dumps(thing))) == content_hash(thing)


def test_what_refers_to_itself_has_a_hash() -> None:
    one, other = Policy(), Policy(gain=2.0)
    one.rest, other.rest = [one], [other]
    assert content_hash(one) == content_hash(copy.deepcopy(one)) != content_hash(other)


def test_what_an_object_says_of_itself_counts() -> None:
    assert content_hash(Hashed()) == "version 1"
    assert name_of(HoldPolicy()) == "hold" and name_of(act) == "act" and name_of(Hashed()) == "Hashed"


@pytest.mark.parametrize("hidden", [(n for n in range(3)), np])
def test_content_that_cannot_be_told_is_refused(hidden: Any) -> None:
    with pytest.raises(SettingsError, match="give it an attribute `hash`"):
        content_hash(Policy(rest=hidden))
