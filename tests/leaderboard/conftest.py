"""Entries are figures of one version of MuJoCo: what makes or checks them needs that version."""

from __future__ import annotations

from pathlib import Path

import mujoco
import pytest

from oc_residual_gym.evaluation.provenance import MEASURED_MUJOCO

NEED_IT = ("test_entries.py", "test_submit.py", "test_validate.py", "test_verify.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if mujoco.__version__ == MEASURED_MUJOCO:
        return
    skip = pytest.mark.skip(reason=f"the board lists figures made with MuJoCo {MEASURED_MUJOCO} alone")
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name in NEED_IT:
            item.add_marker(skip)
