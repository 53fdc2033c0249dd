"""Input of a replay job: the demonstrations of its log files, each with a unique name, and their start poses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from demos_replay.log import LogError
from demos_replay.readers import Skipped, demo_names, open_log, read_demo_or_skip
from oc_residual_gym.errors import FileError, SettingsError
from oc_residual_gym.parsing import read_json
from oc_residual_gym.registration import task_name
from oc_residual_gym.states import Array
from oc_residual_gym.tasks import TASKS

SHOWN = 5
"""Maximum number of reasons, or names, in one message."""
Poses = dict[str, Array]
"""Object name to pose (7,)."""


@dataclass(frozen=True)
class Source:
    """One demonstration of a log file, or a file that cannot be used."""

    file: Path
    demo: str
    """Name in the file; empty if the file as a whole cannot be used."""
    name: str
    """Unique name in a job: the file's name without suffix, after as many folders as needed, and ``demo``."""
    task: str | None
    """Task to replay it as; ``None`` if unknown, and then ``reason`` is set."""
    reason: str = ""
    """Why it cannot be replayed."""


def find_sources(files: Sequence[Path], task: str | None) -> list[Source]:
    """All demonstrations of ``files``, in order, assigned to ``task`` if it is given, else to the task that each names.

    Raises:
        LogError: no file can be used, no demonstration names its task, a file is given twice, or there is no such task.
    """
    if task is not None:
        try:
            task = task_name(task)
        except SettingsError as error:
            raise LogError(str(error)) from error
    sources: list[Source] = []
    labels = _labels(files)
    for file, label in tqdm(labels.items(), unit="file", desc="reading", disable=None, leave=False):
        try:
            with open_log(file) as (content, reader):
                for demo in demo_names(content, reader):
                    found, reason = task, ""
                    if task is None:
                        log = read_demo_or_skip(content, reader, demo)
                        if isinstance(log, Skipped):
                            reason = log.reason
                        elif log.task is None:
                            reason = "it does not name a task of this package: give --task"
                        else:
                            found = log.task
                    sources.append(Source(file, demo, f"{label}/{demo}", found, reason))
        except LogError as error:
            sources.append(Source(file, "", label, None, str(error)))
    if all(source.task is None for source in sources):
        raise LogError(_reasons(sources))
    return sources


def by_task(sources: Sequence[Source]) -> dict[str, list[Source]]:
    """Task name to its sources. A source without a task is listed under all tasks of its file, or else under all."""
    everything = dict.fromkeys(source.task for source in sources if source.task is not None)
    of_file: dict[Path, set[str]] = {}
    for source in sources:
        if source.task is not None:
            of_file.setdefault(source.file, set()).add(source.task)
    return {
        task: [s for s in sources if s.task == task or (s.task is None and task in of_file.get(s.file, everything))]
        for task in everything
    }


def _labels(files: Sequence[Path]) -> dict[Path, str]:
    """File to the shortest end of its path that no other file shares."""
    paths = {file: file.resolve() for file in files}
    if len(set(paths.values())) < len(files):
        twice, _ = Counter(file.resolve() for file in files).most_common(1)[0]
        raise LogError(f"{twice} is given twice")
    shorter = {file: path.with_suffix("") for file, path in paths.items()}
    if len(set(shorter.values())) == len(files):
        paths = shorter
    labels: dict[Path, str] = {}
    for depth in count(1):
        ends = {file: "/".join(path.parts[1:][-depth:]) for file, path in paths.items()}
        holders = Counter(ends.values())
        labels |= {file: end for file, end in ends.items() if holders[end] == 1 and file not in labels}
        if len(labels) == len(files):
            break
    return {file: labels[file] for file in files}


def _reasons(sources: Iterable[Source]) -> str:
    """Why none of ``sources`` can be replayed, each reason once."""
    holders: dict[str, list[str]] = {}
    for source in sources:
        # The reason why a file cannot be used begins with its path.
        holders.setdefault(source.reason, []).append(source.name if source.demo else "")
    lines = []
    for reason, (first, *others) in holders.items():
        also = f" and {len(others)} more" if others else ""
        lines.append(f"{first}{also}: {reason}" if first else reason)
    if len(lines) == 1:
        return lines[0]
    more = [f"and {len(lines) - SHOWN} more reasons"] if len(lines) > SHOWN else []
    return "\n  ".join(["nothing can be replayed:", *lines[:SHOWN], *more])


def read_start_poses(file: Path, sources: Sequence[Source]) -> dict[str, Poses]:
    """Read start poses (metres, base frame) from a sidecar file, by the names of ``sources``.

    The file is JSON: ``{demonstration: {object: [x, y, z, qx, qy, qz, qw]}}``. Any unambiguous end of a demonstration's
    name will do: "demo_0" for one log file, "lift/demo_0" for several.

    Raises:
        LogError: the file is malformed, or names an unknown demonstration or object.
    """
    try:
        content = read_json(file)
    except FileError as error:
        raise LogError(f"cannot read start poses: {error}") from error
    if not isinstance(content, dict):
        raise LogError(f"{file} holds no start poses: give {{demonstration: {{object: [x, y, z, qx, qy, qz, qw]}}}}")
    found: dict[str, Poses] = {}
    unusable = tuple(f"{source.name}/" for source in sources if not source.demo)
    for key, objects in content.items():
        if key.startswith(unusable):
            continue
        source = _named(key, sources, file)
        if source.name in found:
            raise LogError(f"{file}: {key!r} is {source.name}, which has its poses already")
        if not isinstance(objects, dict):
            raise LogError(f"{file}: {key!r} must have {{object: [x, y, z, qx, qy, qz, qw]}}")
        known = [item.name for item in TASKS[source.task].objects] if source.task else list(objects)
        for name in objects:
            if name not in known:
                raise LogError(f"{file}: {key!r} has {name!r}, but {source.task} has {', '.join(known)}")
        found[source.name] = {name: _pose(value, f"{file}: {name!r} of {key!r}") for name, value in objects.items()}
    return found


def _named(key: str, sources: Sequence[Source], file: Path) -> Source:
    """The only demonstration whose name equals or ends in ``key``."""
    demos = [source for source in sources if source.demo]
    matching = [s for s in demos if s.name == key] or [s for s in demos if s.name.endswith(f"/{key}")]
    if len(matching) == 1:
        return matching[0]
    names = [source.name for source in matching or demos]
    listed = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    if matching:
        raise LogError(f"{file}: {key!r} may be any of {listed}: give the whole name")
    raise LogError(f"{file}: {key!r} is not a demonstration of the log files; there are {listed}")


def _pose(value: object, where: str) -> Array:
    try:
        pose = np.array(value, np.float64)
    except (ValueError, TypeError):
        pose = np.zeros(0)
    if pose.shape != (7,) or not np.isfinite(pose).all() or abs(np.linalg.norm(pose[3:]) - 1.0) > 0.01:
        raise LogError(f"{where} is not a pose: give metres, and a unit quaternion xyzw")
    return pose
