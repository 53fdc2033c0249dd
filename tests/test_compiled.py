"""The cache of compiled code may be missing, full, damaged or removed: what was compiled works all the same."""

from __future__ import annotations

import logging
import os
import pwd
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from oc_residual_gym import caches, compiled

NO_ROOM = Path("/dev/null")
"""A path below which nobody can make a folder."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiled, "_DIRECTORY", tmp_path / "cache")
    monkeypatch.setattr(compiled, "_problems", set())
    return tmp_path / "cache"


def half() -> Any:
    """A freshly compiled function, as in another process."""

    def halved(x):
        return x / 2.0

    return compiled.njit("float64(float64)")(halved)


def hits(function: Any) -> int:
    return sum(function.stats.cache_hits.values())


def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of a container that sets only a number: without HOME, and not in passwd."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", caches.VARIABLE):
        monkeypatch.delenv(name, raising=False)


def test_compiled_code_is_kept_for_the_next_process(cache: Path) -> None:
    assert hits(half()) == 0
    again = half()
    assert hits(again) == 1 and again(3.0) == 1.5


@pytest.mark.parametrize("keep", [0, 10, 1000])
@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
def test_a_damaged_cache_is_written_again(cache: Path, kind: str, keep: int) -> None:
    half()
    (file,) = cache.rglob(kind)
    file.write_bytes(file.read_bytes()[:keep] if keep < 1000 else b"\xff" * 1000)
    assert half()(3.0) == 1.5
    assert hits(half()) == 1


@pytest.mark.parametrize("size", [0, 100, 1000])
def test_a_full_disk_costs_only_time(cache: Path, caplog: pytest.LogCaptureFixture, size: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        assert half()(3.0) == 1.5
        assert half()(3.0) == 1.5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (said,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(cache) in said and caches.VARIABLE in said


def test_a_cache_that_cannot_be_read_costs_only_time(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    half()
    (index,) = cache.rglob("*.nbi")
    index.unlink()
    index.mkdir()
    assert half()(3.0) == 1.5
    assert str(cache) in caplog.text and caches.VARIABLE in caplog.text


def test_a_cache_that_another_process_removes_is_made_again(cache: Path) -> None:
    first = half()
    shutil.rmtree(cache)
    assert half()(3.0) == first(3.0) == 1.5
    assert hits(half()) == 1


def test_a_cache_folder_that_cannot_be_made_costs_only_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "_DIRECTORY", NO_ROOM / "cache")
    monkeypatch.setattr(compiled, "_problems", set())
    assert half()(3.0) == 1.5
    assert caches.VARIABLE in caplog.text


def test_old_caches_may_vanish_while_they_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / name for name in "abcdefgh"]
    for age, folder in enumerate(folders):
        folder.mkdir()
        os.utime(folder, (1000 + age, 1000 + age))

    def listed(path: Path) -> Any:
        yield tmp_path / "removed by another process"
        yield from folders

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", listed)
        compiled._drop_old_caches(folders[0])
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["a", *"efgh"]  # its own, and the four used last
    shutil.rmtree(tmp_path)
    compiled._drop_old_caches(folders[0])


def test_nothing_is_made_in_the_temporary_folder_where_the_users_cache_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv(caches.VARIABLE, str(tmp_path / "home"))
    folder = compiled._cache_directory()
    assert folder is not None and folder.is_relative_to(tmp_path / "home")
    assert next(caches.cache_folders()).is_relative_to(tmp_path / "home")
    assert list((tmp_path / "temporary").iterdir()) == []
    monkeypatch.setenv(caches.VARIABLE, "/dev/null/cache")
    folder = compiled._cache_directory()
    assert folder is not None and folder.is_relative_to(tmp_path / "temporary")


def test_without_a_home_the_cache_is_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = compiled._cache_directory()
    assert folder is not None and folder.is_relative_to(tmp_path)
    shutil.rmtree(tmp_path / f"cache-{os.getuid()}")
    (tmp_path / f"cache-{os.getuid()}").mkdir()
    (tmp_path / f"cache-{os.getuid()}").chmod(0o777)  # whoever made it could put code there
    assert compiled._cache_directory() is None


@pytest.mark.parametrize("variable", [{"XDG_CACHE_HOME": "/dev/null/cache"}, {"HOME": "/dev/null"}, {}])
def test_without_any_folder_the_package_works(variable: dict[str, str], tmp_path: Path) -> None:
    program = """
import pwd, tempfile
def missing(*arguments):
    raise KeyError("no such user")
def none(*arguments):
    raise FileNotFoundError("No usable temporary directory found")
pwd.getpwuid, tempfile.gettempdir = missing, none
import oc_residual_gym.compiled
def halved(x):
    return x / 2.0
print(oc_residual_gym.compiled.njit("float64(float64)")(halved)(3.0))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", caches.VARIABLE)}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", program],
        cwd=Path(__file__).parents[1],
        env=environment | variable,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1.5"
    assert done.stderr.count(caches.VARIABLE) == 1


def test_processes_that_start_together_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
from oc_residual_gym import compiled
def halved(x):
    return x / 2.0
print(compiled.njit("float64(float64)")(halved)(3.0))
"""
    environment = os.environ | {caches.VARIABLE: str(tmp_path)}
    old = tmp_path / caches.NAME / "compiled"
    for number in range(100):  # removed by all of them at once
        (old / f"{number}").mkdir(parents=True)
    command = [sys.executable, "-c", program]
    cwd = Path(__file__).parents[1]
    started = [
        subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        out, errors = process.communicate(timeout=300)
        assert (process.returncode, out.strip()) == (0, "1.5"), errors
