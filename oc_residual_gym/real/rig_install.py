"""The rig's own Python environment, created on first use, because franka-sim pins an older MuJoCo than ours."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from oc_residual_gym.caches import cache_folders
from oc_residual_gym.errors import RigError

FRANKA_SIM = "1.1.7"
REQUIREMENTS = (f"franka-sim=={FRANKA_SIM}", "mujoco==3.2.7", "numpy==1.26.4", "pyzmq==27.1.0")
ENVIRONMENT = "OC_RESIDUAL_RIG"
"""Environment variable that sets the folder of the rig's Python environment."""

_SECONDS = 600.0


def ensure_rig() -> Path:
    """Return the folder of the rig's Python environment; create it on first use (about 15 s, 40 MB download).

    It is ``$OC_RESIDUAL_RIG``, or ``rig-<version of franka-sim>`` in this package's cache.

    Raises:
        RigError: it cannot be created: no network, no ``venv`` module, or a folder that is not writable.
    """
    if named := os.environ.get(ENVIRONMENT):
        folder = Path(os.path.expanduser(named)).absolute()
    elif cache := next(cache_folders(), None):
        folder = cache / f"rig-{FRANKA_SIM}"
    else:
        raise RigError(f"this user has no home, and the machine no temporary folder: name a folder in ${ENVIRONMENT}")
    if python_of(folder).exists():
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise RigError(f"{folder} is not empty and holds no Python environment: name another one in ${ENVIRONMENT}")
    print(f"making the rig's environment in {folder} (once)", file=sys.stderr, flush=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _install([sys.executable, "-m", "venv", str(temporary)])
        _install([str(python_of(temporary)), "-m", "pip", "install", "--quiet", *REQUIREMENTS])
        with contextlib.suppress(OSError):
            folder.rmdir()
        try:
            temporary.rename(folder)
        except OSError:
            if not python_of(folder).exists():  # else another process was faster
                raise
    except OSError as error:
        raise RigError(f"cannot make the rig's environment in {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@functools.cache
def rig_available() -> str:
    """Reason why the rig cannot run on this machine; "" if it can. Installs it on first use."""
    try:
        ensure_rig()
    except RigError as error:
        return str(error)
    return ""


def python_of(folder: Path) -> Path:
    """Python interpreter of the environment in ``folder``."""
    return folder / "bin" / "python"


def _install(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RigError(f"{' '.join(command)} took longer than {_SECONDS:.0f} s") from error
    if result.returncode != 0:
        tail = "\n".join((result.stderr or result.stdout).strip().splitlines()[-6:])
        raise RigError(f"{' '.join(command)} failed; is there a network?\n{tail}")
