"""Imports go down only: at run time and in annotations, at the top of a module and inside functions."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("caches", "errors", "states", "syntax"),
    ("command_line", "compiled", "identity", "parsing"),
    ("files", "geometry", "hdf5"),
    ("log_schema",),
    ("robots",),
    ("tasks",),
    ("registration",),
    ("perception",),
    ("worlds",),
    ("policies",),
    ("envs",),
    ("residuals",),
    ("engines",),
    ("evaluation",),
    ("bridge",),
    ("video", "bench", "check"),
    ("real",),
    ("cli",),
    ("__main__",),
)
"""Rooms of oc_residual_gym from the ground up; those of one layer do not import each other."""
OPTIONAL = ("testing",)
"""Rooms that nothing imports: they may use everything below the commands."""
ABOVE = ("oc_residual_gym", "demos_replay", "baselines", "leaderboard")
"""Packages from the ground up."""


def modules(package: str) -> dict[str, Path]:
    """Dotted name to file of each module of ``package``."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


ALL = {name: path for package in ABOVE for name, path in modules(package).items()}


def imports(path: Path) -> set[str]:
    """Modules of this repository that a file imports anywhere, ``TYPE_CHECKING`` included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name in ALL}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def layer(module: str) -> int:
    (number,) = [i for i, rooms in enumerate(LAYERS) if room(module) in rooms]
    return number


def core_modules() -> list[str]:
    return [m for m in modules("oc_residual_gym") if room(m) and room(m) not in OPTIONAL]


def test_every_room_has_a_layer() -> None:
    assert {room(module) for module in core_modules()} == {name for rooms in LAYERS for name in rooms}


@pytest.mark.parametrize("module", core_modules())
def test_a_module_imports_from_its_own_room_and_lower_layers_only(module: str) -> None:
    for imported in imports(ALL[module]):
        if room(imported) == room(module):
            continue
        assert room(imported), f"{module} imports the public names of the package, which stand above all rooms"
        assert room(imported) not in OPTIONAL, f"{module} imports {imported}, which nothing may need"
        assert layer(imported) < layer(module), f"{module} imports {imported}, which stands no lower"


@pytest.mark.parametrize("package", ABOVE)
def test_a_package_imports_lower_packages_only(package: str) -> None:
    for module, path in modules(package).items():
        for imported in imports(path):
            theirs = imported.split(".")[0]
            assert ABOVE.index(theirs) <= ABOVE.index(package), f"{module} imports {imported}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    # A package's __init__ imports its members, and they are not imported through it.
    graph = {m: {i for i in imports(path) if i != m and not m.startswith(f"{i}.")} for m, path in ALL.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")
