"""Hash the meaning of Python code: the syntax tree of a file, or of all files that a module imports.

Comments, docstrings, layout and function annotations do not change a hash, and all Python versions give the same one.
Needs only the standard library, and does not import the files that it reads.
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
"""Name of the tuple in which a module lists the data files it reads, relative to its own folder."""

# These fields do not affect what runs; "ctx" follows from the position in the tree.
_IGNORED = {"ctx", "kind", "returns", "type_comment", "type_ignores"}


def tree_hash(source: str) -> str:
    """SHA-256 of the syntax tree of ``source``. Raises ``SyntaxError`` if it is not valid Python."""
    return hashlib.sha256(_serialised(ast.parse(source)).encode()).hexdigest()


def file_hash(file: Path) -> str:
    """SHA-256 of a file: of its syntax tree if it is Python, otherwise of its bytes.

    Cached: a process reads an unchanged file only once.
    """
    return _read(*_version(file)).hash


def code_hash(root: Path, modules: Collection[str], left_out: Collection[str] = ()) -> str:
    """SHA-256 over the names and :func:`file_hash` values of all :func:`imported_files`."""
    digest = hashlib.sha256()
    for file in imported_files(root, modules, left_out):
        digest.update(f"{file.relative_to(root).as_posix()}\0{file_hash(file)}\0".encode())
    return digest.hexdigest()


def imported_files(root: Path, modules: Collection[str], left_out: Collection[str] = ()) -> list[Path]:
    """Files that ``modules`` import, directly or indirectly, and the data files that those files list.

    Imports inside functions count too.

    Args:
        root: folder that contains the modules' packages; imports from elsewhere are not followed.
        modules: dotted names.
        left_out: dotted names of modules that are not followed.

    Returns:
        Sorted paths, including those of ``modules``.

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
    """Hash, imports and data files of one file."""

    def __init__(self, file: Path):
        content = file.read_bytes()
        self.imports: tuple[str, ...] = ()
        """Dotted names; relative imports have one leading dot per level."""
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
    """Text that is equal for trees with the same meaning. Skips empty fields, which differ between Python versions."""
    if isinstance(value, ast.Constant):
        constant = value.value
        text = constant.encode("utf-8", "surrogatepass") if isinstance(constant, str) else constant
        return f"{type(constant).__name__} {text!r}"
    if isinstance(value, ast.AST):
        fields = {name: getattr(value, name, None) for name in value._fields if name not in _IGNORED}
        if isinstance(value, ast.arg):
            fields["annotation"] = None
        if isinstance(value, ast.JoinedStr):  # only Python 3.12 has empty parts
            fields["values"] = [part for part in value.values if not (_is_text(part) and part.value == "")]
        parts = (f"{name}={_serialised(field)}" for name, field in fields.items() if field is not None and field != [])
        return f"{type(value).__name__}({','.join(parts)})"
    if isinstance(value, list):
        return f"[{','.join(_serialised(item) for item in value if not _is_docstring(item))}]"
    return repr(value)


def _is_docstring(node: object) -> bool:
    """Whether ``node`` is a docstring of any kind: a string that is a statement of its own."""
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
            for alias in node.names:  # any of them may be a module
                yield module + ("" if module.endswith(".") else ".") + alias.name
        elif not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            yield from _imports(node)


def _data_files(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == DATA_NAME for t in node.targets):
            return tuple(ast.literal_eval(node.value))
    return ()


def _absolute(target: str, package: str) -> list[str]:
    """Absolute name of the module ``target`` imported in ``package``, and of the packages that contain it."""
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
