"""A replay job: any number of log files into one data set a task, resumable, with a report on every demonstration."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from demos_replay.log import Log, LogError
from demos_replay.readers import demo_names, open_log, read_demo
from demos_replay.replay import Replayer, demo_name
from demos_replay.writers.robomimic import assemble, write_demos
from oc_residual_gym.evaluation.results import versions, write_json
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.base import Array

WORLDS, WORLDS_WITH_IMAGES = 32, 8
"""Demonstrations at a time: those with images are kept in memory until they end."""
BATCH = 64
"""Logs that are read at a time."""


@dataclass(frozen=True)
class ReplaySettings:
    """What is replayed into what. A job with other settings does not go on with this one's work."""

    files: tuple[Path, ...]
    out: Path
    """A file for logs of one task; a folder, with one file a task in it, where the name has no suffix."""
    task: str | None = None
    """Of all the logs; by default each log says it."""
    images: bool = False
    domain: str = "nominal"
    objects: Path | None = None
    """Sidecar file of start poses."""


def replay_files(settings: ReplaySettings, command: str | None = None) -> dict[str, dict[str, Any]]:
    """Run a job, or what is left of it.

    For ``out`` NAME.hdf5 writes the successful demonstrations there, the failed ones into NAME.failed.hdf5 and a report
    on all of them, and on those that were skipped, into NAME.report.json.

    Returns:
        By task, that report.

    Raises:
        LogError: a file is no log, an option makes no sense, or ``out`` belongs to something else.
    """
    outputs = _outputs(settings)
    for out in outputs.values():
        if out.exists():
            raise LogError(f"{out} exists already: remove it, or give another --out")
    parts = settings.out.with_name(settings.out.name + ".parts")
    _claim(parts, settings)
    poses = None if settings.objects is None else read_sidecar(settings.objects)
    entries = {task: _replay_task(task, settings, parts / task, poses) for task in outputs}
    reports = {}
    for task, out in outputs.items():
        reports[task] = {
            "task": task,
            "domain": settings.domain,
            "files": {str(file): _sha256(file) for file in settings.files},
            "versions": versions(),
            "command": command or "",
            "demos": entries[task],
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        by_success: dict[bool, list[Path]] = {True: [], False: []}
        for entry in entries[task]:
            if entry["status"] != "skipped":
                by_success[entry["status"] == "success"].append(parts / task / f"{entry['part']}.hdf5")
        attributes = {key: reports[task][key] for key in ("task", "domain", "files", "command")}
        for success, files in by_success.items():
            if files:
                assemble(out if success else out.with_suffix(".failed.hdf5"), files, attributes)
        write_json(out.with_suffix(".report.json"), reports[task])
    shutil.rmtree(parts)
    return reports


def read_sidecar(file: Path) -> dict[str, dict[str, Array]]:
    """Start poses by demonstration and object: ``{demo: {object: [x, y, z, qx, qy, qz, qw]}}``, metres, base frame.

    Raises:
        LogError: it is no such file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        poses = {d: {o: np.array(p, np.float64) for o, p in objects.items()} for d, objects in content.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise LogError(f"cannot read start poses from {file}: {error}") from error
    for demo, objects in poses.items():
        for name, pose in objects.items():
            if pose.shape != (7,) or not np.isfinite(pose).all() or abs(np.linalg.norm(pose[3:]) - 1.0) > 0.01:
                raise LogError(f"{file}: {name} of {demo} is no pose: give metres, and a unit quaternion xyzw")
    return poses


def _outputs(settings: ReplaySettings) -> dict[str, Path]:
    """By task, the file to write."""
    tasks = [settings.task] if settings.task else []
    for file in settings.files:
        with open_log(file) as (content, reader):
            if settings.task:
                continue
            hints = [_hint(content, reader, name) for name in demo_names(content, reader)]
            if not any(hints):
                raise LogError(f"{file} does not say which of our tasks it shows: give --task")
            tasks += [hint for hint in hints if hint is not None]
    for task in tasks:
        if task not in TASKS:
            raise LogError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    tasks = list(dict.fromkeys(tasks))
    if settings.out.suffix == ".hdf5":
        if len(tasks) > 1:
            raise LogError(f"these are logs of {', '.join(tasks)}: give a folder as --out")
        return {tasks[0]: settings.out}
    if settings.out.suffix:
        raise LogError(f"{settings.out} ends in {settings.out.suffix}: give a name that ends in .hdf5, or a folder")
    return {task: settings.out / f"{task}.hdf5" for task in tasks}


def _hint(content: Any, reader: Any, name: str) -> str | None:
    try:
        return read_demo(content, reader, name).task
    except LogError:
        return None


def _claim(parts: Path, settings: ReplaySettings) -> None:
    """Make the folder of finished demonstrations, or take over one that the same job has left."""
    identity = {
        "files": {str(file.resolve()): _sha256(file) for file in settings.files},
        "task": settings.task,
        "images": settings.images,
        "domain": settings.domain,
        "objects": None if settings.objects is None else _sha256(settings.objects),
        "versions": versions(),
    }
    file = parts / "job.json"
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != identity:
        raise LogError(f"{parts} holds the unfinished work of another replay: remove it, or give another --out")
    parts.mkdir(parents=True, exist_ok=True)
    write_json(file, identity)


def _replay_task(
    task: str, settings: ReplaySettings, parts: Path, poses: Mapping[str, Mapping[str, Array]] | None
) -> list[dict[str, Any]]:
    """Replay the logs of one task; returns what came of each demonstration, in the order of the files."""
    parts.mkdir(exist_ok=True)
    replayer = Replayer(
        TASKS[task],
        WORLDS_WITH_IMAGES if settings.images else WORLDS,
        images=settings.images,
        domain=settings.domain,
    )
    entries: list[dict[str, Any]] = []
    try:
        for file in settings.files:
            entries += _replay_file(file, task, settings, replayer, parts, poses)
    finally:
        replayer.close()
    return entries


def _replay_file(
    file: Path,
    task: str,
    settings: ReplaySettings,
    replayer: Replayer,
    parts: Path,
    poses: Mapping[str, Mapping[str, Array]] | None,
) -> list[dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    with open_log(file) as (content, reader), tqdm(unit="demo", desc=f"{task}, {file.name}", disable=None) as bar:
        names = demo_names(content, reader)
        bar.total = len(names)

        def finish(name: str, entry: dict[str, Any]) -> None:
            entries[name] = {"demo": name, **entry}
            bar.update()

        def pending() -> Iterator[Log]:
            for name in names:
                done = parts / f"{_part(file, name)}.json"
                if done.exists():
                    finish(name, json.loads(done.read_text(encoding="utf-8")))
                    continue
                try:
                    log = read_demo(content, reader, name)
                except LogError as error:
                    finish(name, {"status": "skipped", "reason": str(error)})
                    continue
                if settings.task or log.task == task:
                    yield log
                elif log.task is None:
                    finish(
                        name,
                        {"status": "skipped", "reason": "it does not say which of our tasks it shows: give --task"},
                    )

        for log, demo in replayer.run(pending(), poses):
            if isinstance(demo, LogError):
                finish(log.name, {"status": "skipped", "reason": str(demo)})
                continue
            part = _part(file, log.name)
            write_demos(parts / f"{part}.hdf5", [demo], {})
            status = {"status": "success"} if demo.success else {"status": "failed", "reason": demo.failure}
            entry = {**status, "part": part, **demo.report}
            write_json(parts / f"{part}.json", entry)
            finish(log.name, entry)
    return [entries[name] for name in names if name in entries]


def _part(file: Path, name: str) -> str:
    return demo_name(str(file), name).replace("/", "--")


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def table(report: Mapping[str, Any]) -> str:
    """One line a demonstration, and the totals, as text for people."""
    lines = []
    for entry in report["demos"]:
        line = f"{entry['demo']:14} {entry['status']:8}"
        if "tcp_drift_mm" in entry:
            drift, turn = entry["tcp_drift_mm"], entry["tcp_drift_degrees"]
            line += f" TCP drift {drift['mean']:5.1f} mm ({drift['max']:.1f} at most), {turn['mean']:.1f} degrees"
            line += "".join(f"; {name} {d['end']:.1f} mm at the end" for name, d in entry["object_drift_mm"].items())
        lines.append(line + (f"   {entry['reason']}" if "reason" in entry else ""))
    count = {status: sum(e["status"] == status for e in report["demos"]) for status in ("success", "failed", "skipped")}
    total = f"{report['task']}: {count['success']} of {len(report['demos'])} succeed"
    lines.append(f"{total}, {count['failed']} fail, {count['skipped']} skipped")
    return "\n".join(lines)


def assumptions(report: Mapping[str, Any]) -> Sequence[str]:
    """Every assumption that was made for any demonstration, once."""
    return list(dict.fromkeys(text for entry in report["demos"] for text in entry.get("assumptions", ())))
