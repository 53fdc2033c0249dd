"""Checks whether this machine is ready: versions, simulation, rendering. Says how to install what is missing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

DISTRIBUTION = "oc-residual-gym"
INSTALL_GL = "apt-get install libegl1 libgl1-mesa-dri"
OPTIONAL = {
    "train": "only training needs it",
    "robosuite": "only the bridge to robosuite, recording devices and detailed meshes need it",
}
"""Extras that are looked at, and what they are for."""

_SIMULATE = """
import numpy as np
from oc_residual_gym.envs.core import ResidualWorlds
core = ResidualWorlds("Lift", 1)
core.reset(np.zeros(1, int), [0])
core.step(np.zeros((1, 7)))
"""
_RENDER = _SIMULATE + 'assert core.simulation.render(0, "shoulder", (64, 64)).any()'


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ready: bool
    detail: str
    remedy: str = ""
    """What to do where it is not ready."""


def show(findings: list[Finding]) -> tuple[int, dict[str, Any]]:
    """Print findings; return a command's exit code and result."""
    for finding in findings:
        print(f"{'ok     ' if finding.ready else 'NOT OK '} {finding.name:20} {finding.detail}")
        if not finding.ready and finding.remedy:
            print(f"        {finding.remedy}")
    ready = all(finding.ready for finding in findings)
    return 0 if ready else 1, {"ready": ready, "findings": [asdict(finding) for finding in findings]}


def check() -> list[Finding]:
    """Look at everything; no finding keeps others from being made."""
    return [_python(), *_packages(), _simulation(), _onnxruntime(), rendering(), _cores()]


def _python() -> Finding:
    wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    found = platform.python_version()
    return Finding("Python", found in SpecifierSet(wanted), found, f"use a Python {wanted}")


def _packages() -> list[Finding]:
    """One finding per requirement of this package, and of the extras that are looked at."""
    requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    findings = [_package(r) for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    seen = {finding.name for finding in findings}
    for extra in OPTIONAL:
        wanted = [r for r in requirements if r.name not in seen and r.marker and r.marker.evaluate({"extra": extra})]
        findings += [_package(r, extra) for r in wanted]
    return findings


def _package(requirement: Requirement, extra: str | None = None) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    source = f"{DISTRIBUTION}[{extra}]" if extra else wanted
    remedy = f'pip install "{source}"'
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        detail = f"not installed; {OPTIONAL[extra]}" if extra else "missing"
        return Finding(requirement.name, extra is not None, detail, remedy)
    return Finding(requirement.name, found in requirement.specifier, found, f"{remedy} (this needs {wanted})")


def _simulation() -> Finding:
    """Whether MuJoCo works: one control step of one task."""
    error = _error_of(_SIMULATE)
    return Finding(
        "simulation", not error, error or "works", 'reinstall MuJoCo: pip install --force-reinstall "mujoco"'
    )


def _onnxruntime() -> Finding:
    error = _error_of("import onnxruntime")
    return Finding("ONNX Runtime", not error, error or "works", "reinstall it")


def rendering() -> Finding:
    """Whether one picture can be made, in a process of its own: a failed try leaves traces."""
    error = _error_of(_RENDER)
    remedy = f"on Debian or Ubuntu: {INSTALL_GL}; everything but pictures works without"
    return Finding("rendering", not error, error or "works", remedy)


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("CPU cores", True, f"{usable} usable of {os.cpu_count()}")


def _error_of(program: str) -> str:
    """Run a Python program in a process of its own; return the last line of its error output, or "" if it succeeds."""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    lines = [line for line in run.stderr.splitlines() if line.strip()] or [f"exit code {run.returncode}"]
    return lines[-1].strip() if run.returncode else ""
