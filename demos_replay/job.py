"""A replay job: it turns log files into one dataset per task, can be resumed, and reports every demonstration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from demos_replay.demo import Demo
from demos_replay.disk import check_space
from demos_replay.log import Log, LogError
from demos_replay.readers import open_log, read_demo
from demos_replay.replay import Replayer
from demos_replay.sources import Poses, Source, by_task, find_sources, read_start_poses
from demos_replay.writers import WriterError
from demos_replay.writers.robomimic import assemble, write_demos
from oc_residual_gym.errors import FileError
from oc_residual_gym.evaluation.provenance import simulation_hash, versions
from oc_residual_gym.files import differences, sha256, write_json
from oc_residual_gym.parsing import read_json
from oc_residual_gym.tasks import TASKS

WORLDS, LONGEST = 32, 600.0
"""Demonstrations replayed in parallel, and the longest duration of one in seconds."""
WORLDS_WITH_IMAGES, LONGEST_WITH_IMAGES = 4, 120.0
"""The same with images: 2 MB per second, kept in memory until their demonstration ends."""
MAX_ATTRIBUTE = 60_000
"""Maximum characters of an attribute (HDF5 allows 64 KiB). Longer values are in the report only."""
JOB = "job.json"

Entry = dict[str, Any]
"""Outcome of one demonstration: status ("success", "failed" or "skipped"), reason, and the replay's report."""


@dataclass(frozen=True)
class ReplaySettings:
    """Settings of a replay job. Only a job with the same settings can resume its work."""

    files: tuple[Path, ...]
    out: Path
    """Output file, for one task; or, if the name has no suffix, a folder that gets one file per task."""
    task: str | None = None
    """Task of all logs; ``None`` uses the task that each log names."""
    images: bool = False
    domain: str = "nominal"
    objects: Path | None = None
    """Sidecar file with start poses of the objects."""


@dataclass(frozen=True)
class _Outputs:
    """Output files of one task."""

    successful: Path
    failed: Path
    report: Path


def replay_files(settings: ReplaySettings, command: str | None = None) -> dict[str, dict[str, Any]]:
    """Run a replay job, or resume an interrupted one.

    For ``out`` NAME.hdf5, successful demonstrations go to that file, failed ones to NAME.failed.hdf5, and a report on
    all demonstrations, skipped ones included, to NAME.report.json.

    Returns:
        Task name to that report.

    Raises:
        LogError: no file can be used, an option is invalid, or ``out`` already holds something else.
        OSError: a file cannot be written, or the disk is full.
    """
    sources = find_sources(settings.files, settings.task)
    poses = None if settings.objects is None else read_start_poses(settings.objects, sources)
    tasks = by_task(sources)
    out = settings.out.resolve()
    outputs = _outputs(out, list(tasks))
    hashes = {str(file): sha256(file) for file in settings.files if file.is_file()}
    parts = out.with_name(f"{out.name}.parts") if out.suffix else out / "replay.parts"
    _claim(parts, settings, outputs, hashes)
    entries = {task: _replay_task(task, tasks[task], settings, parts / task, poses) for task in tasks}
    reports = {}
    for task, output in outputs.items():
        files = dict.fromkeys(str(source.file) for source in tasks[task])
        reports[task] = {
            "task": task,
            "domain": settings.domain,
            "files": {file: hashes[file] for file in files if file in hashes},
            "versions": versions(),
            "command": command or "",
            "demos": entries[task],
        }
        attributes = {key: reports[task][key] for key in ("task", "domain", "files", "command")}
        attributes = {key: value for key, value in attributes.items() if len(json.dumps(value)) < MAX_ATTRIBUTE}
        for status, file in (("success", output.successful), ("failed", output.failed)):
            demos = [_part(parts / task, i) for i, entry in enumerate(entries[task]) if entry["status"] == status]
            if demos:
                check_space(file, sum(part.stat().st_size for part in demos))
                assemble(file, demos, attributes)
        write_json(output.report, reports[task])
    shutil.rmtree(parts)
    return reports


def _outputs(out: Path, tasks: Sequence[str]) -> dict[str, _Outputs]:
    """Task name to the files to write."""
    if out.suffix not in ("", ".hdf5"):
        raise LogError(f"{out} ends in {out.suffix}: give a name that ends in .hdf5, or a folder")
    if out.suffix and len(tasks) > 1:
        raise LogError(f"these are logs of {', '.join(tasks)}: give a folder as --out")
    files = {task: out if out.suffix else out / f"{task}.hdf5" for task in tasks}
    return {
        task: _Outputs(file, file.with_suffix(".failed.hdf5"), file.with_suffix(".report.json"))
        for task, file in files.items()
    }


def _claim(parts: Path, settings: ReplaySettings, outputs: Mapping[str, _Outputs], hashes: Mapping[str, str]) -> None:
    """Create the folder of finished demonstrations, or reuse the one that an interrupted run of this job left."""
    identity = {
        # In order, because parts are numbered by it.
        "files": [str(file.resolve()) for file in settings.files],
        "contents": {str(file.resolve()): hashes.get(str(file)) for file in settings.files},
        "task": settings.task,
        "images": settings.images,
        "domain": settings.domain,
        "objects": None if settings.objects is None else sha256(settings.objects),
        "versions": versions(),
        "simulation": simulation_hash(),
    }
    job = parts / JOB
    if job.exists():
        lines = differences(_job(job), identity)
        if lines:
            text = f"{parts} holds the unfinished work of another replay: remove it, or give another --out"
            raise LogError("\n  ".join([text, *lines]))
        return
    for output in outputs.values():
        for file in (output.successful, output.failed, output.report):
            if file.exists():
                raise LogError(f"{file} exists already: remove it, or give another --out")
    parts.mkdir(parents=True, exist_ok=True)
    if any(parts.iterdir()):
        raise LogError(f"{parts} holds something else: remove it, or give another --out")
    write_json(job, identity)


def _job(file: Path) -> dict[str, Any]:
    """The identity that an interrupted job left; empty if it is damaged."""
    try:
        content = read_json(file)
    except FileError:
        return {}
    return content if isinstance(content, dict) else {}


def _replay_task(
    task: str, sources: Sequence[Source], settings: ReplaySettings, parts: Path, poses: Mapping[str, Poses] | None
) -> list[Entry]:
    """Replay the logs of one task and return the outcome of each demonstration, in the order of ``sources``."""
    parts.mkdir(exist_ok=True)
    files = {source.name: _part(parts, i) for i, source in enumerate(sources)}
    entries: dict[str, Entry] = {}
    for source in sources:
        done = files[source.name].with_suffix(".json")
        if source.reason:
            entries[source.name] = {"status": "skipped", "reason": source.reason}
        elif done.exists():
            entries[source.name] = read_json(done)
    left = [source for source in sources if source.name not in entries]
    with tqdm(total=len(sources), initial=len(entries), unit="demo", desc=task, disable=None) as bar:
        for name, demo in _replay(task, left, settings, poses) if left else ():
            entries[name] = _keep(files[name], demo)
            bar.update()
    return [
        {"name": source.name, "file": str(source.file), "demo": source.demo, **entries[source.name]}
        for source in sources
    ]


def _replay(
    task: str, sources: Sequence[Source], settings: ReplaySettings, poses: Mapping[str, Poses] | None
) -> Iterator[tuple[str, Demo | LogError]]:
    unreadable: list[tuple[str, Demo | LogError]] = []

    def logs() -> Iterator[tuple[str, Log]]:
        for file, members in groupby(sources, key=lambda source: source.file):
            with open_log(file) as (content, reader):
                for source in members:
                    try:
                        yield source.name, read_demo(content, reader, source.demo)
                    except LogError as error:
                        unreadable.append((source.name, error))

    most, longest = (WORLDS_WITH_IMAGES, LONGEST_WITH_IMAGES) if settings.images else (WORLDS, LONGEST)
    worlds = min(most, len(sources))
    replayer = Replayer(TASKS[task], worlds, images=settings.images, domain=settings.domain, longest=longest)
    try:
        yield from chain(replayer.run(logs(), poses), unreadable)
    finally:
        replayer.close()


def _keep(part: Path, demo: Demo | LogError) -> Entry:
    """Save a demonstration to the file ``part`` until all are done, and return its outcome."""
    if isinstance(demo, LogError):
        return {"status": "skipped", "reason": str(demo)}
    arrays = [*vars(demo).values(), *demo.objects.values(), *demo.images.values()]
    check_space(part, 2 * sum(array.nbytes for array in arrays if isinstance(array, np.ndarray)))
    try:
        write_demos(part, [demo], {})
    except WriterError as error:
        return {"status": "skipped", "reason": str(error)}
    status = {"status": "success"} if demo.success else {"status": "failed", "reason": demo.failure}
    entry = {**status, **demo.report}
    write_json(part.with_suffix(".json"), entry)
    return entry


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number}.hdf5"
