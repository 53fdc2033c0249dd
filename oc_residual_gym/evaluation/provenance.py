"""Provenance of a result: package versions, machine, commit, and the hash of the simulation's code."""

from __future__ import annotations

import inspect
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from oc_residual_gym.syntax import code_hash, file_hash
from oc_residual_gym.tasks.index import INDEX

VERSIONED_PACKAGES = ("mujoco", "numba", "numpy", "onnxruntime", "scipy")
"""Packages whose versions affect a result. This package is not listed: the simulation hash is more precise."""

MEASURED_MUJOCO = "3.9.0"
"""MuJoCo version of all published figures. Others round differently, and a few successes flip."""
PACKAGE = Path(__file__).parents[1]
_TASKS = (entry.source.partition(":")[0] for entry in INDEX.values() if entry.shipped)
SIMULATION = ("oc_residual_gym.evaluation.rollout", *_TASKS)
"""Modules that run an episode, with the tasks, which are imported by name; the simulation hash covers these modules and
everything that they import."""
# Exceptions: imported modules that cannot change an episode. Server clients (openpi, gr00t, server) are left out, as no
# result has a hash of a server's model, and other base policies never call them. The rest name and store results.
NOT_SIMULATION = (
    "oc_residual_gym",
    "oc_residual_gym.registration",
    "oc_residual_gym.policies.gr00t",
    "oc_residual_gym.policies.openpi",
    "oc_residual_gym.policies.server",
    "oc_residual_gym.evaluation.settings",
    "oc_residual_gym.evaluation.provenance",
    "oc_residual_gym.caches",
    "oc_residual_gym.files",
    "oc_residual_gym.identity",
    "oc_residual_gym.parsing",
    "oc_residual_gym.syntax",
)


def versions() -> dict[str, str]:
    """Installed versions of Python and of :data:`VERSIONED_PACKAGES`."""
    return {"python": platform.python_version()} | {name: _version(name) for name in VERSIONED_PACKAGES}


@cache
def _version(package: str) -> str:
    return metadata.version(package)  # reads a file each time


def machine() -> dict[str, Any]:
    """System, processor and number of cores of this machine."""
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
    """Git commit of this package, with "-dirty" if files were changed; ``None`` outside its repository."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=False)

    try:
        # It may be installed inside someone else's repository.
        if git("ls-files", "--error-unmatch", "geometry.py").returncode != 0:
            return None
        return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*").stdout.strip() or None
    except FileNotFoundError:
        return None


def source_hash(task: type) -> str | None:
    """:func:`file_hash` of the file that defines the class ``task``; ``None`` if there is none, as in a notebook."""
    try:
        return file_hash(Path(inspect.getfile(task)))
    except (OSError, TypeError):
        return None


@cache
def simulation_hash() -> str:
    """SHA-256 over all files that determine an episode: their syntax trees, and the bytes of data files."""
    return code_hash(PACKAGE.parent, SIMULATION, NOT_SIMULATION)
