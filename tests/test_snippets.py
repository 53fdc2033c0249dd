"""The Python in README, docs and docstrings runs as it stands there."""

from __future__ import annotations

import doctest
import importlib
import re
import textwrap
import warnings
from pathlib import Path

import pytest

import oc_residual_gym

ROOT = Path(__file__).parents[1]
NEEDS = {
    "open_cell(": "a real robot",
    "model.learn(": "minutes of training",
}
"""What a block cannot run without here; it is compiled all the same."""


def blocks(path: Path) -> list[str]:
    """The Python blocks of a Markdown file, in order."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(indent + code if not code.startswith(indent) else code) for indent, code in found]


PAGES = [path for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("leaderboard/*.md")])]


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, code in enumerate(blocks(page), start=1):
            program = compile(code, f"{page.name}, block {number}", "exec")
            if not any(mark in code for mark in NEEDS):
                exec(program, names)


MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("oc_residual_gym", "demos_replay")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_docstrings_give_what_they_say(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_name_is_there_and_no_other() -> None:
    for name in oc_residual_gym.__all__:
        assert getattr(oc_residual_gym, name) is not None
    with pytest.raises(AttributeError, match="public names are"):
        oc_residual_gym.no_such_name  # noqa: B018
