"""Results are identified by what code means: other words change nothing, another number does."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from oc_residual_gym import compiled, syntax
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.evaluation.provenance import NOT_SIMULATION, PACKAGE, SIMULATION
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.policies import onnx_policy
from oc_residual_gym.tasks import TASKS

SETTINGS = EvaluationSettings(("Lift", "Stack"), base="expert", residual="oracle", domain="twin", errors="tracker")
SNIPPET = '''
"""Module."""
from __future__ import annotations

class A(B, metaclass=C):
    """Class."""
    x: int = 1
    """Attribute."""

    def f(self, a: int, /, *b: str, c: float = -1.5e-300, **d: A) -> str:
        """Function."""
        # A comment.
        return f"{a!r:>{c:.1f}} {b}" "" 'é' + u"" + rf"\\n{d}{{"

@d
async def g(): return [i async for i in h() if (k := i)], {**x}, lambda: ..., b"\\0", 1_000, 0x10, 1j, None, True
'''


def files_of(root: Path) -> list[Path]:
    return syntax.imported_files(root, SIMULATION, NOT_SIMULATION)


def hash_of(root: Path) -> str:
    return syntax.code_hash(root, SIMULATION, NOT_SIMULATION)


def run(program: str, path: Path, **environment: str) -> Any:
    """What ``program`` prints as JSON in its last line, with the package that lies in ``path``."""
    environment = {**os.environ, "PYTHONPATH": str(path), **environment}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with a copy of the package, without shipped policies."""
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("shipped", "__pycache__"))
    return tmp_path


def reworded(source: str) -> str:
    """The same program with other docstrings, in another layout, without comments but one."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            for statement in node.body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    statement.value.value = "Other words."
    return ast.unparse(tree) + "\n# A comment.\n"


def test_other_words_leave_the_identity_as_it_is(copied: Path, tmp_path: Path) -> None:
    for file in copied.rglob("*.py"):
        file.write_text(reworded(file.read_text()))
    assert hash_of(copied) == provenance.simulation_hash()
    program = """
import json, test_provenance
from oc_residual_gym import compiled
print(json.dumps([compiled.__file__, compiled._DIRECTORY.name, test_provenance.SETTINGS.identity]))
"""
    shutil.copy(__file__, copied)
    file, cache, identity = run(program, copied, NUMBA_DISABLE_JIT="1", XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert Path(file).is_relative_to(copied)
    assert identity == json.loads(json.dumps(SETTINGS.identity))
    assert cache == compiled._DIRECTORY.name  # nor is anything compiled again


def test_sources_are_parsed_for_the_cache_of_compiled_code_only_when_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    def file_hash(file: Path) -> str:
        parsed.append(file)
        return syntax.file_hash(file)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled, "file_hash", file_hash)
    folder = compiled._cache_directory()
    assert folder.is_relative_to(tmp_path) and set(parsed) == set(PACKAGE.rglob("*.py"))
    parsed.clear()
    assert compiled._cache_directory() == folder and not parsed


def test_every_file_of_the_simulation_counts(copied: Path) -> None:
    before = hash_of(copied)
    assert before == provenance.simulation_hash()
    for file in files_of(copied):
        content = file.read_bytes()
        file.write_bytes(content + b"\nCHANGED = 1\n")
        assert hash_of(copied) != before, file
        file.write_bytes(content)
    assert hash_of(copied) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("worlds/scene.py", "PHYSICS_TIMESTEP = 0.002", "PHYSICS_TIMESTEP = 0.0021"),
        ("compiled.py", "numba.njit(function)", "numba.njit(function, fastmath=True)"),
        ("robots/fr3.json", "0.", "1."),
    ],
)
def test_another_number_is_another_simulation(copied: Path, name: str, old: str, new: str) -> None:
    file = copied / PACKAGE.name / name
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    assert hash_of(copied) != provenance.simulation_hash()


def test_no_other_file_counts(copied: Path) -> None:
    others = set((copied / PACKAGE.name).rglob("*.*")) - set(files_of(copied))
    names = {file.relative_to(copied / PACKAGE.name).as_posix() for file in others}
    assert {"cli.py", "real/world.py", "video.py", "envs/vector_env.py", "bridge/fr3_controller.json"} <= names
    for file in others:
        file.write_bytes(file.read_bytes() + b"\nCHANGED = 1\n")
    assert hash_of(copied) == provenance.simulation_hash()


def test_the_simulation_is_what_its_worlds_import_and_read() -> None:
    program = """
import json, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from oc_residual_gym.evaluation.rollout import run_rows
from oc_residual_gym.evaluation.settings import EvaluationSettings
for base in ("vla", "bc"):
    list(run_rows(EvaluationSettings(("Lift",), base, "trained", "twin", "tracker"), [("Lift", 0)], 1))
from oc_residual_gym.tasks import SHIPPED_TASKS, TASKS
made = [TASKS[name] for name in SHIPPED_TASKS]
files = [m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "oc_residual_gym"]
print(json.dumps([files, opened]))
"""
    modules, opened = run(program, PACKAGE.parent)
    left_out = {syntax._file_of(PACKAGE.parent, name) for name in NOT_SIMULATION}
    assert None not in left_out
    code = {file for file in files_of(PACKAGE.parent) if file.suffix == ".py"}
    assert set(map(Path, modules)) - left_out == code

    # Files of policies have hashes of their own in results.
    read = {Path(file) for file in opened if Path(file).is_relative_to(PACKAGE)}
    data = {file for file in read if file.suffix not in (".py", ".pyc", ".onnx") and file.is_file()}
    assert data == set(files_of(PACKAGE.parent)) - code


def test_results_name_no_package_that_the_simulation_does_not_import() -> None:
    trees = [ast.parse(file.read_text()) for file in files_of(PACKAGE.parent) if file.suffix == ".py"]
    imported = {name.partition(".")[0] for tree in trees for name in syntax._imports(tree)}
    assert set(provenance.VERSIONED_PACKAGES) <= imported


def test_hashes_are_the_same_on_all_versions_of_python() -> None:
    assert syntax.tree_hash(SNIPPET) == "96ba5df4c17e020f8cd6b5e955d8abc2d87e1603a15fdd57378dcd67aa498022"
    assert syntax.tree_hash(reworded(SNIPPET)) == syntax.tree_hash(SNIPPET)
    assert syntax.tree_hash(SNIPPET.replace("'é'", "'è'")) != syntax.tree_hash(SNIPPET)


def test_imports_at_any_level_are_followed(tmp_path: Path) -> None:
    sources = {
        "own/__init__.py": "",
        "own/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import own.typed\nimport own.left, numpy",
        "own/left.py": "import own.behind",
        "own/behind.py": "",
        "own/typed.py": "",
        "own/inner/__init__.py": "from . import sibling\nDATA_FILES = ('numbers.json',)",
        "own/inner/sibling.py": "def f():\n    from ..c import x\n    import own.d as d",
        "own/inner/numbers.json": "1",
        "own/c.py": "x = 1",
        "own/d.py": "import own.a",
        "own/alone.py": "import own.inner.sibling",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    found = syntax.imported_files(tmp_path, ["own.inner"], ["own.left"])
    names = ["__init__", "a", "c", "d", "inner/__init__", "inner/sibling"]
    assert found == sorted([tmp_path / f"own/{name}.py" for name in names] + [tmp_path / "own/inner/numbers.json"])
    with pytest.raises(FileNotFoundError, match=r"no module own\.nothing"):
        syntax.imported_files(tmp_path, ["own.nothing"])


def test_each_file_is_read_once_for_all_settings_of_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: Counter[bytes] = Counter()
    reads: Counter[Path] = Counter()
    session, file = onnxruntime.InferenceSession, syntax._File

    def load(data: bytes, *arguments: Any, **options: Any) -> onnxruntime.InferenceSession:
        loads[data] += 1
        return session(data, *arguments, **options)

    def read(path: Path) -> syntax._File:
        reads[path] += 1
        return file(path)

    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    monkeypatch.setattr(syntax, "_File", read)
    for cache in (onnx_policy._loaded, syntax._read, provenance.simulation_hash):
        cache.cache_clear()
    identities = [
        EvaluationSettings((task,), "bc", residual, *condition).identity
        for condition in (("nominal", "paper"), ("twin", "tracker"))
        for residual in ("zero", "trained", "oracle")
        for task in TASKS
        for _ in range(2)
    ]
    assert len(identities) == 72
    assert len(loads) == 12 and set(loads.values()) == {1}
    assert set(reads) == set(files_of(PACKAGE.parent)) and set(reads.values()) == {1}


def test_a_policy_that_changed_on_disk_is_loaded_again(tmp_path: Path) -> None:
    shipped = PACKAGE / "policies" / "shipped" / "bc-v0"
    file = tmp_path / "policy.onnx"
    shutil.copy(shipped / "Lift.onnx", file)
    first = onnx_policy.load_onnx(file)
    assert onnx_policy.load_onnx(str(file)) is first
    shutil.copy(shipped / "Stack.onnx", file)
    assert onnx_policy.load_onnx(file).hash != first.hash
