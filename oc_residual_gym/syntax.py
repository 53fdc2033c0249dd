"""What Python files mean: hashes of their syntax trees, and of all files that a module imports.

A hash does not change with comments, docstrings, layout and the annotations of functions, and is the same on every
version of Python. This needs the standard library only, and imports nothing that it reads.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import TypeGuard

DATA_NAME = "DATA_FILES"
"""Name of the tuple in which a module names the files that it reads, relative to its own folder."""

# They say nothing about what runs; "ctx" follows from the place in the tree.
_IGNORED = {"ctx", "kind", "returns", "type_comment", "type_ignores"}


def tree_hash(source: str) -> str:
    """SHA-256 of the syntax tree of ``source``. Raises ``SyntaxError`` where it is not Python."""
    return hashlib.sha256(_serialised(ast.parse(source)).encode()).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of what ``file`` means: of the syntax tree where it is Python, else of the bytes.

    A file that has not changed is read only once in a process.
    """
    return _read(*_version(file)).hash


def code_hash(root: Path, modules: Collection[str], left_out: Collection[str] = ()) -> str:
    """SHA-256 of what the files of :func:`imported_files` mean, with their names."""
    digest = hashlib.sha256()
    for file in imported_files(root, modules, left_out):
        digest.update(f"{file.relative_to(root).as_posix()}\0{file_hash(file)}\0".encode())
    return digest.hexdigest()


def imported_files(root: Path, modules: Collection[str], left_out: Collection[str] = ()) -> list[Path]:
    """The files that ``modules`` import, directly or not, at whatever level, and the data files that these name.

    Args:
        root: the folder that the modules' packages lie in; what lies elsewhere is not followed.
        modules: dotted names.
        left_out: dotted names of modules that are not followed.

    Returns:
        Sorted paths, those of ``modules`` among them.

    Raises:
        FileNotFoundError: one of ``modules`` does not exist.
    """
    found: dict[str, Path] = {}
    waiting = []
    for module in modules:
        if _file_of(root, module) is None:
            raise FileNotFoundError(f"there is no module {module} in {root}")
        waiting += _with_packages(module)
    while waiting:
        name = waiting.pop()
        file = _file_of(root, name)
        if file is None or name in found or name in left_out:
            continue
        found[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [part for target in _read(*_version(file)).imports for part in _absolute(target, package)]
    data = [file.parent / name for file in found.values() for name in _read(*_version(file)).data]
    return sorted({*found.values(), *data})


def _version(file: Path) -> tuple[Path, int, int]:
    status = os.stat(file)
    return file, status.st_mtime_ns, status.st_size


class _File:
    """What there is to know about a file."""

    def __init__(self, file: Path):
        content = file.read_bytes()
        self.imports: tuple[str, ...] = ()
        """Dotted names, with a leading dot for each level where they are relative."""
        self.data: tuple[str, ...] = ()
        if file.suffix == ".py":
            tree = ast.parse(content, str(file))
            content = _serialised(tree).encode()
            self.imports = tuple(_imports(tree))
            self.data = _data_files(tree)
        self.hash = hashlib.sha256(content).hexdigest()


@cache
def _read(file: Path, mtime: int, size: int) -> _File:
    return _File(file)


def _serialised(value: object) -> str:
    """The same text for trees that mean the same. Empty fields are skipped: which there are depends on the version."""
    if isinstance(value, ast.Constant):
        constant = value.value
        text = constant.encode("utf-8", "surrogatepass") if isinstance(constant, str) else constant
        return f"{type(constant).__name__} {text!r}"
    if isinstance(value, ast.AST):
        fields = {name: getattr(value, name, None) for name in value._fields if name not in _IGNORED}
        if isinstance(value, ast.arg):
            fields["annotation"] = None
        if isinstance(value, ast.JoinedStr):  # Python 3.12 has empty parts where others have none
            fields["values"] = [part for part in value.values if not (_is_text(part) and part.value == "")]
        parts = (f"{name}={_serialised(field)}" for name, field in fields.items() if field is not None and field != [])
        return f"{type(value).__name__}({','.join(parts)})"
    if isinstance(value, list):
        return f"[{','.join(_serialised(item) for item in value if not _is_docstring(item))}]"
    return repr(value)


def _is_docstring(node: object) -> bool:
    """Whether it is one, also of an attribute: a string that nothing is done with."""
    return isinstance(node, ast.Expr) and _is_text(node.value)


def _is_text(node: ast.expr) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            for alias in node.names:  # each may be a module
                yield module + ("" if module.endswith(".") else ".") + alias.name
        elif not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            yield from _imports(node)


def _data_files(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == DATA_NAME for t in node.targets):
            return tuple(ast.literal_eval(node.value))
    return ()


def _absolute(target: str, package: str) -> list[str]:
    """The module ``target`` as imported in ``package``, and the packages that it lies in."""
    name = target.lstrip(".")
    level = len(target) - len(name)
    if level:
        base = package.split(".")
        name = ".".join(filter(None, [*base[: len(base) - level + 1], name]))
    return _with_packages(name)


def _with_packages(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _file_of(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return None
