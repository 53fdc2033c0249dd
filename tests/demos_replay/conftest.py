"""Shared by the tests of demos_replay."""

from importlib import import_module
from types import ModuleType

import pytest


@pytest.fixture
def operator() -> ModuleType:
    """A scripted operator in robosuite's own tasks: the module ``robosuite_operator`` beside this file."""
    pytest.importorskip("robosuite", reason="needs the extra [robosuite]")
    return import_module("robosuite_operator")
