"""Results on disk: one JSON line an episode while it runs, a summary at the end, and where both came from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from oc_residual_gym.evaluation import SettingsError
from oc_residual_gym.evaluation.statistics import wilson

Record = dict[str, Any]
"""A JSON object."""


EPISODES_FILE = "episodes.jsonl"
SETTINGS_FILE = "settings.json"
SUMMARY_FILE = "summary.json"

CELL_KEYS = ("task", "base", "residual", "domain", "errors", "split")
"""What episodes of one cell of the summary have in common."""

VERSIONED_PACKAGES = ("oc-residual-gym", "gymnasium", "mujoco", "numpy", "onnxruntime", "scipy")
"""Packages whose versions a result depends on."""

_PACKAGE = Path(__file__).parents[1]
_SIMULATION = ("geometry.py", "envs", "perception", "policies", "robots", "tasks", "worlds")
"""Parts of this package that decide how an episode goes."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file all at once: whoever reads it sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, all at once."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, all at once."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def json_line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def read_episodes(path: Path) -> list[Record]:
    """Read the episodes of a file that may have been cut off within its last line, and remove that line.

    Raises:
        SettingsError: if another line is not JSON.
    """
    content = path.read_bytes() if path.exists() else b""
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        os.truncate(path, len(complete))
    episodes = {}
    for number, line in enumerate(complete.decode("utf-8").splitlines(), start=1):
        try:
            episode = json.loads(line)
            episodes[episode["task"], episode["seed"]] = episode
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{path}, line {number}: not an episode ({error!r}); remove the line or the file"
            ) from error
    return list(episodes.values())


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out} is a file; give a folder as --out")


def claim(out: Path, name: str, identity: Mapping[str, Any]) -> None:
    """Mark the folder ``out`` as that of the one run that ``identity`` describes, in its file ``name``.

    Raises:
        SettingsError: if it is a file, or the folder of another run, naming what differs.
    """
    _check_folder(out)
    wanted = json.loads(json.dumps(identity))  # tuples become lists, as in the file
    if not (out / name).exists():
        write_json(out / name, wanted)
        return
    found = read_json(out / name)
    lines = [f"  {key}: {there} there, {now} now" for key, there, now in differing(found, wanted)]
    if lines:
        raise SettingsError(
            "\n".join([f"{out} holds a run with other settings; choose another --out or remove it", *lines])
        )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Let no other process of this machine use the folder ``out`` meanwhile; it is made if it is not there.

    Raises:
        SettingsError: if it is a file, another process uses it, or its file system knows no locks.
    """
    _check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError as error:
            raise SettingsError(f"another process is at work in {out}: wait until it has ended") from error
        except OSError as error:
            raise SettingsError(f"cannot lock {out} ({error}): choose a folder on a local disk") from error
        yield
    finally:
        os.close(descriptor)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key and both values of what is not the same in ``one`` and ``other``; None where there is no such key."""
    return [(key, one.get(key), other.get(key)) for key in {**one, **other} if one.get(key) != other.get(key)]


def resume(out: Path, identity: Mapping[str, Any]) -> list[Record]:
    """Claim ``out`` for the evaluation that ``identity`` describes; return the episodes it already holds.

    Raises:
        SettingsError: if ``out`` holds another evaluation's episodes, naming what differs.
    """
    _check_folder(out)
    settings_file, begun = out / SETTINGS_FILE, (out / EPISODES_FILE).exists()
    if begun and not settings_file.exists():
        raise SettingsError(f"{out} holds {EPISODES_FILE} without {SETTINGS_FILE}; choose another --out or remove it")
    if not (begun and read_episodes(out / EPISODES_FILE)):
        settings_file.unlink(missing_ok=True)
    claim(out, SETTINGS_FILE, identity)
    return read_episodes(out / EPISODES_FILE)


def finished_summary(folder: Path, command: str = "oc-residual evaluate ...") -> Record:
    """The summary of what ``command`` finished in ``folder``. Raises ``SettingsError`` where it has not."""
    if not (folder / SUMMARY_FILE).exists():
        raise SettingsError(f"{folder} holds no finished evaluation; run `{command} --out {folder}` first")
    return read_json(folder / SUMMARY_FILE)


def cells(episodes: Iterable[Record]) -> list[Record]:
    """Summary of the episodes of each task (and policy, domain, ...), in the order in which they come.

    ``mean_steps`` is over successes and counts control steps to the end of the episode, including the 0.5 s
    for which success must hold; ``None`` where nothing succeeded.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for episode in episodes:
        groups.setdefault(tuple(episode[key] for key in CELL_KEYS), []).append(episode)
    return [dict(zip(CELL_KEYS, key, strict=True)) | _cell(group) for key, group in groups.items()]


def _cell(episodes: list[Record]) -> Record:
    successes = [episode for episode in episodes if episode["success"]]
    rate = wilson(len(successes), len(episodes))

    def mean(key: str, group: list[Record] = episodes) -> float | None:
        return float(np.mean([episode[key] for episode in group])) if group else None

    return {
        "episodes": len(episodes),
        "successes": len(successes),
        "success_rate": rate.mean,
        "ci_low": rate.low,
        "ci_high": rate.high,
        "mean_steps": mean("steps", successes),
        "failures": dict(sorted(Counter(e["failure"] for e in episodes if not e["success"]).items())),
        "mean_return": mean("return"),
        "mean_peak_contact_force": mean("peak_contact_force"),
        "max_peak_contact_force": max(episode["peak_contact_force"] for episode in episodes),
        "mean_correction_mm": mean("correction_mm"),
        "mean_correction_rad": mean("correction_rad"),
        "mean_correction_change_mm": mean("correction_change_mm"),
        "mean_correction_change_rad": mean("correction_change_rad"),
    }


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages a result depends on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONED_PACKAGES}


def machine() -> dict[str, Any]:
    """Describe what the results were computed on."""
    processor = platform.processor()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        models = [line for line in cpu_info.read_text().splitlines() if line.startswith("model name")]
        processor = models[0].partition(":")[2].strip() if models else processor
    library = " ".join(platform.libc_ver())  # not the kernel: arithmetic does not depend on it
    return {
        "system": f"{platform.system()} {platform.machine()}, {library}",
        "processor": processor,
        "cores": os.cpu_count(),
    }


def commit() -> str | None:
    """Git commit of this package, "-dirty" after it where files were changed; None outside its repository."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(_PACKAGE), *arguments], capture_output=True, text=True, check=False)

    try:
        if (
            git("ls-files", "--error-unmatch", "geometry.py").returncode != 0
        ):  # installed below someone else's repository
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").stdout.strip() or None
    except FileNotFoundError:
        return None


def simulation_hash() -> str:
    """SHA-256 over the files of this package that decide how an episode goes."""
    digest = hashlib.sha256()
    for name in _SIMULATION:
        path = _PACKAGE / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in (".py", ".json", ".xml"):
                digest.update(file.relative_to(_PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()
