"""Trained policies that ship with the package: names, versions and files."""

from __future__ import annotations

from pathlib import Path

from oc_residual_gym.tasks import SHIPPED_TASKS

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the policies. A base policy is ``<version>.onnx``, or a folder ``<version>`` with one file per task. A
residual policy is ``<version>/<version of its base policy>/<Task>.onnx``. Each has a model card beside it."""
NEWEST = {"bc": "bc-v0", "vla": "vla-v0"}
"""Base policies: name without a version to the newest version."""
NEWEST_RESIDUALS = {"trained": "trained-v0"}
"""Residual policies: name without a version to the newest version."""


def base_file(name: str, task: str) -> Path:
    """File of the shipped base policy ``name`` (with or without a version) for ``task``.

    Raises:
        ValueError: there is no such file.
    """
    version = NEWEST.get(name, name)
    if task not in SHIPPED_TASKS:
        raise ValueError(
            f"base policy {version!r} was not trained for {task}: give 'hold', 'expert', or a policy of your own"
        )
    for path in (SHIPPED / version / f"{task}.onnx", SHIPPED / f"{version}.onnx"):
        if path.is_file():
            return path
    raise ValueError(f"base policy {version!r} has no file for {task} in {SHIPPED}: reinstall, or train it")


def residual_folder(name: str, base: str) -> Path:
    """Folder of the shipped residual policy ``name`` on the base policy ``base``: one ``<Task>.onnx`` per task."""
    return SHIPPED / NEWEST_RESIDUALS.get(name, name) / NEWEST.get(base, base)


def residual_file(name: str, task: str, base: str) -> Path:
    """File of the shipped residual policy ``name`` for ``task`` on the base policy ``base``.

    Raises:
        ValueError: there is no such file; the message lists the available ones.
    """
    if isinstance(base, str) and (path := residual_folder(name, base) / f"{task}.onnx").is_file():
        return path
    version = NEWEST_RESIDUALS.get(name, name)
    tasks: dict[str, list[str]] = {}
    for file in sorted((SHIPPED / version).glob("*/*.onnx")):
        tasks.setdefault(file.parent.name, []).append(file.stem)
    there = "; ".join(f"on {base_version} {', '.join(names)}" for base_version, names in tasks.items())
    raise ValueError(
        f"there is no residual {version!r} for {task} on base policy {base!r} (there are: {there or 'none at all'}): "
        "train one and give its .onnx file, or choose one that there is"
    )
