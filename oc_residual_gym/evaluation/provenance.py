"""Where a result comes from: versions, machine, commit, and what the simulation is."""

from __future__ import annotations

import hashlib
import inspect
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONED_PACKAGES = ("oc-residual-gym", "gymnasium", "mujoco", "numpy", "onnxruntime", "robosuite", "scipy")
"""Packages whose versions a result depends on."""

_PACKAGE = Path(__file__).parents[1]
_SIMULATION = ("geometry.py", "envs", "perception", "policies", "robots", "tasks", "worlds")
"""Parts of this package that decide how an episode goes."""


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


def source_hash(task: type) -> str | None:
    """SHA-256 of the file that holds the class ``task``; ``None`` where there is no such file, as in a notebook."""
    try:
        return hashlib.sha256(Path(inspect.getfile(task)).read_bytes()).hexdigest()
    except (OSError, TypeError):
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
