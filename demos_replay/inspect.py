"""Text of the commands ``inspect`` and ``validate``: how a log was interpreted, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from demos_replay.log import Log, LogObject
from demos_replay.readers import Skipped, demo_names, open_log, read_demo_or_skip
from oc_residual_gym.errors import outside_text
from oc_residual_gym.tasks import TASKS


def describe(path: str | Path) -> str:
    """Describe how the log file at ``path`` was interpreted and what was assumed, as text.

    Raises:
        LogError: the file as a whole cannot be used.
    """
    demos, format_name = _read(path)
    logs = [demo for demo in demos if isinstance(demo, Log)]
    synthetic = ", synthetic" if any(log.synthetic for log in logs) else ""
    blocks = [f"{path}: {format_name}{synthetic}, {_count(len(demos), 'demonstration')}"]
    blocks += [_block(demo) for demo in demos]
    for title, notes in (
        ("Understood", {log.name: log.facts for log in logs}),
        ("Assumed", {log.name: log.assumptions for log in logs}),
    ):
        lines = _shared(notes)
        if lines:
            blocks.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join(blocks)


def validate(path: str | Path) -> tuple[bool, str]:
    """Whether every demonstration of the log file at ``path`` can be used, and a text that lists the problems.

    Raises:
        LogError: the file as a whole cannot be used.
    """
    demos, format_name = _read(path)
    lines = []
    for demo in demos:
        if isinstance(demo, Skipped):
            lines.append(f"{demo.name}: cannot be used: {demo.reason}")
        else:
            lines += [f"{demo.name}: usable, but {remark}" for remark in remarks(demo)]
    bad = sum(isinstance(demo, Skipped) for demo in demos)
    lines.append(f"{path}: {format_name}, {len(demos) - bad} of {_count(len(demos), 'demonstration')} can be used")
    return bad == 0, "\n".join(lines)


def remarks(log: Log) -> list[str]:
    """What is missing in a log, although a replay needs it or will hardly succeed without it."""
    found = []
    nothing_to_grasp = log.task is not None and TASKS[log.task].grasped is None
    if not log.gripper_closed.any() and not nothing_to_grasp:
        found.append("its gripper never closes: nothing can be grasped")
    if not log.objects:
        found.append("it has no poses of objects: give them in a file, or they are inferred from the grasp")
    if log.task is None:
        found.append("it does not name a task of this package: give one")
    return found


def _read(path: str | Path) -> tuple[list[Log | Skipped], str]:
    with open_log(path) as (file, reader):
        return [_printable(read_demo_or_skip(file, reader, name)) for name in demo_names(file, reader)], reader.NAME


def _printable(demo: Log | Skipped) -> Log | Skipped:
    """``demo`` with all its texts cleaned for printing: they come from the file."""
    if isinstance(demo, Skipped):
        return Skipped(outside_text(demo.name), demo.reason)
    return replace(
        demo,
        name=outside_text(demo.name),
        objects={outside_text(name): item for name, item in demo.objects.items()},
        instruction=outside_text(demo.instruction),
        facts=tuple(map(outside_text, demo.facts)),
        assumptions=tuple(map(outside_text, demo.assumptions)),
    )


def _block(demo: Log | Skipped) -> str:
    if isinstance(demo, Skipped):
        return f"{demo.name}\n  cannot be used: {demo.reason}"
    task = demo.task or "task not known"
    lines = [
        demo.name,
        f"  {task}{f', {demo.instruction!r}' if demo.instruction else ''}",
        f"  {len(demo.time)} rows, {demo.time[-1]:.2f} s, {demo.rate:g} Hz; {_targets(demo)}",
        f"  TCP {_ranges(demo.tcp_pose[:, :3])} m in the base frame; table at z = {demo.table_height:.3f} m",
        f"  gripper {_gripper(demo)}",
    ]
    lines += [_object(name, item) for name, item in demo.objects.items()] or ["  no object poses"]
    return "\n".join(lines)


def _targets(log: Log) -> str:
    kind = "no absolute targets" if log.target is None else "absolute targets"
    return f"{kind}, lag {1000 * log.lag:.0f} ms"


def _ranges(positions: np.ndarray) -> str:
    low, high = positions.min(axis=0), positions.max(axis=0)
    return ", ".join(f"{axis} {a:.3f} to {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True))


def _gripper(log: Log) -> str:
    closed = log.gripper_closed
    events = ["closed from the start"] if closed[0] else []
    for row in np.flatnonzero(np.diff(closed)) + 1:
        events.append(f"{'closes' if closed[row] else 'opens'} at {log.time[row]:.2f} s")
    width = log.gripper_width
    between = "" if width is None else f"; {1000 * width.min():.0f} to {1000 * width.max():.0f} mm between the fingers"
    return (", ".join(events) or "never closes") + between


def _object(name: str, item: LogObject) -> str:
    start = ", ".join(f"{value:.3f}" for value in item.poses[0, :3])
    moved = np.linalg.norm(item.poses[:, :3] - item.poses[0, :3], axis=1).max()
    path = f"moves up to {1000 * moved:.0f} mm" if item.tracked else "only its start pose is known"
    size = "size not known" if item.half_size is None else " x ".join(f"{2000 * s:.0f}" for s in item.half_size) + " mm"
    return f"  {name}: starts at ({start}) m, {size}, {path}"


def _shared(notes: Mapping[str, Iterable[str]]) -> list[str]:
    """Lines with each sentence once, followed by its demonstrations unless it holds for all."""
    holders: dict[str, list[str]] = {}
    for demo, sentences in notes.items():
        for sentence in sentences:
            holders.setdefault(sentence, []).append(demo)
    lines = []
    for sentence, demos in holders.items():
        some = ", ".join(demos[:3]) + (f" and {len(demos) - 3} more" if len(demos) > 3 else "")
        lines.append(f"- {sentence}" if len(demos) == len(notes) else f"- {sentence} ({some})")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
