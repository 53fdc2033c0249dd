"""``validate``: check that an entry is consistent and complete. All its problems are listed, not only the first."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from leaderboard import LeaderboardError, rows, trials
from leaderboard.entry import ENTRY_FILE, ENTRY_ID, Entry
from leaderboard.probe import probe_policies
from leaderboard.schema import entry_problems
from leaderboard.tracks import REAL, TRACKS
from oc_residual_gym.evaluation.provenance import MEASURED_MUJOCO
from oc_residual_gym.files import sha256
from oc_residual_gym.policies.versions import NEWEST, NEWEST_RESIDUALS, base_file
from oc_residual_gym.residuals import UNTRAINED

OWN_BASES = (*NEWEST.values(), "hold")
"""Base policies of the package that an entry may name; the others read the true state or run on a server."""
TAKEN = (*NEWEST, *OWN_BASES, *NEWEST_RESIDUALS, *NEWEST_RESIDUALS.values(), *UNTRAINED, "expert", "expert-offset")
"""Names that an entry's own policies must not have."""
LARGEST, LARGEST_JSON = 100, 8
"""Maximum MiB of a file, and of a JSON file, which takes much more memory than its size."""


def validate(entry: Entry) -> list[str]:
    """Problems of an entry, each with its place; empty if it is valid.

    Raises:
        LeaderboardError: its policies could not be tried, for a reason that is not theirs.
    """
    return check_files(entry) or probe_policies(entry)


def check_files(entry: Entry) -> list[str]:
    """Problems of an entry that can be found without running its policies.

    Raises:
        LeaderboardError: its files cannot be read on this machine.
    """
    try:
        return _file_problems(entry)
    except RecursionError:
        return ["its JSON is nested too deeply"]
    except OSError as error:
        raise LeaderboardError(f"{entry.folder} cannot be read: {error}") from error


def _file_problems(entry: Entry) -> list[str]:
    problems, found = _found(entry)
    if not entry.folder.is_dir():
        return [f"there is no folder {entry.folder}"]
    if not re.fullmatch(ENTRY_ID, entry.id):
        problems.append(f"the folder's name {entry.id!r} is not an id: use 3 to 40 of a to z, 0 to 9 and inner hyphens")
    if ENTRY_FILE not in found:
        return [*problems, f"{ENTRY_FILE} is missing: `submit` makes one"]
    try:
        wrong = entry_problems(entry.content)
    except LeaderboardError as error:
        return [*problems, str(error)]
    if wrong:  # the other checks rely on the schema
        return problems + [f"{ENTRY_FILE}: {problem}" for problem in wrong]
    problems += [f"{ENTRY_FILE}: {problem}" for problem in _policy_problems(entry) + _training_problems(entry)]
    used = (entry.content.get("evaluation") or {"versions": {}})["versions"].get("mujoco", MEASURED_MUJOCO)
    if used != MEASURED_MUJOCO:
        problems.append(
            f"{ENTRY_FILE}: evaluated with MuJoCo {used}; the board lists figures made with {MEASURED_MUJOCO} alone"
        )
    wanted = _wanted(entry)
    problems += [f"{name}: it is missing" for name in sorted(set(wanted) - found)]
    unknown = sorted(found - set(wanted) - {ENTRY_FILE})
    problems += [f"{name!r}: an entry has no such file, or entry.json does not name it" for name in unknown]
    intact = set()
    for name in sorted(found & set(wanted)):
        actual = sha256(entry.folder / name)
        if actual == wanted[name]:
            intact.add(name)
        else:
            problems.append(f"{name}: its SHA-256 is {actual}, and entry.json says {wanted[name]}")
    for track in entry.tracks:
        if track != REAL and f"rows/{track}.jsonl" in found:
            problems += _row_problems(entry, track)
    return problems + _real_problems(entry, intact)


def _found(entry: Entry) -> tuple[list[str], set[str]]:
    """Problems of files that are not plain or too large, and the names of the other files, relative to the entry."""
    problems, found = [], set()
    if entry.folder.is_symlink():
        problems.append("the folder is a symbolic link: entries hold their files themselves")
    for folder, folders, files in os.walk(entry.folder):
        for name in folders + files:
            path = Path(folder) / name
            relative = path.relative_to(entry.folder).as_posix()
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            if stat.S_ISLNK(status.st_mode):
                problems.append(f"{relative!r}: it is a symbolic link; entries hold their files themselves")
            elif not stat.S_ISREG(status.st_mode):
                problems.append(f"{relative!r}: it is not a regular file")
            elif status.st_size > (most := LARGEST_JSON if path.suffix in (".json", ".jsonl") else LARGEST) * 2**20:
                problems.append(f"{relative!r}: it has more than {most} MiB")
            else:
                found.add(relative)
    return problems, found


def _wanted(entry: Entry) -> dict[str, str | None]:
    """File name to SHA-256, for all files that the entry must have besides entry.json."""
    content, wanted = entry.content, {}
    for track in entry.tracks:
        if track != REAL:
            wanted[f"rows/{track}.jsonl"] = content["tracks"][track]["sha256"]
    for kind in ("base", "residual"):
        for task in entry.tasks if content[kind]["files"] else []:
            wanted[f"{kind}/{task}.onnx"] = content[kind]["sha256"].get(task)
    real = content["tracks"].get(REAL, {"files": {}})["files"]
    return wanted | {f"real/{name}": value for name, value in real.items()}


def _policy_problems(entry: Entry) -> list[str]:
    content, problems = entry.content, []
    for kind in ("base", "residual"):
        policy = content[kind]
        hashes, name = policy["sha256"], policy["name"]
        if sorted(hashes) != entry.tasks:
            there, tasks = ", ".join(sorted(hashes)) or "none", ", ".join(entry.tasks)
            problems.append(f"$.{kind}.sha256: it has the tasks {there}; the tracks have {tasks}")
        valid = OWN_BASES if kind == "base" else UNTRAINED
        on_robots_only = kind == "base" and not entry.cells  # such as a large model on a server
        if policy["files"] and name in TAKEN:
            problems.append(f"$.{kind}.name: {name!r} is the name of something in the package; choose another one")
        if not (policy["files"] or name in valid or on_robots_only):
            problems.append(f"$.{kind}.name: {name!r} has no files here; without them, it is one of {', '.join(valid)}")
            continue
        for task in sorted(set(hashes) & set(entry.tasks)):
            expected = hashes[task] if policy["files"] else _hash_of(name, task)
            if hashes[task] != expected or (policy["files"] and expected is None):
                has = f"{name} of this package has {expected}" if not policy["files"] else "the file needs one"
                problems.append(f"$.{kind}.sha256.{task}: it is {hashes[task]}; {has}")
    if content["residual"]["name"] == "oracle" and not content["reference"]:
        problems.append("$.reference: the oracle reads true state, so it can only be a reference")
    if content["evaluation"] is None and entry.cells:
        problems.append("$.evaluation: it is null, and there are rows in simulation")
    return problems


def _hash_of(name: str, task: str) -> str | None:
    """SHA-256 of the package's policy ``name``; ``None`` if it has no file."""
    return sha256(base_file(name, task)) if name in NEWEST.values() else None


def _training_problems(entry: Entry) -> list[str]:
    content = entry.content
    training, files = content["training"], content["base"]["files"] or content["residual"]["files"]
    if not files:
        return ["$.training: the entry contains no policy files, so it must be null"] if training else []
    if training is None:
        return ["$.training: the entry contains policy files, so it must say how they were trained"]
    if sorted(training["tasks"]) != entry.tasks:
        there = ", ".join(sorted(training["tasks"]))
        return [f"$.training.tasks: it has {there}; the tracks have {', '.join(entry.tasks)}"]
    return []


def _row_problems(entry: Entry, track: str) -> list[str]:
    path = entry.rows_file(track)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        return [f"rows/{track}.jsonl: it is not UTF-8 text ({error})"]
    found = rows.problems_of(text, TRACKS[track], entry.content["tracks"][track]["successes"])
    return [f"rows/{track}.jsonl: {problem}" for problem in found]


def _real_problems(entry: Entry, intact: set[str]) -> list[str]:
    """Problems of the trials on real robots; their files are read only if they are ``intact``."""
    real: dict[str, Any] = entry.content["tracks"].get(REAL, {"files": {}, "trials": {}})
    problems = []
    tasks = {name.partition("/")[0] for name in real["files"]}
    if tasks != set(real["trials"]):
        problems.append(f"{ENTRY_FILE}: $.tracks.{REAL}: files and trials are not of the same tasks")
    for task in sorted(tasks & set(real["trials"])):
        own = {f"real/{name}" for name in real["files"] if name.startswith(f"{task}/")}
        if own <= intact:
            problems += [f"real/{task}: {problem}" for problem in _trial_problems(entry, task, real["trials"][task])]
    return problems


def _trial_problems(entry: Entry, task: str, claimed: dict[str, Any]) -> list[str]:
    folder, problems = entry.real_folder(task), []
    try:
        settings = trials.read_settings(folder)
        counted = trials.count_trials(folder, settings)
    except LeaderboardError as error:
        return [str(error)]
    if settings["task"] != task:
        problems.append(f"the trials are of {settings['task']}")
    for kind in ("base", "residual"):
        if settings["hashes"][kind] != entry.content[kind]["sha256"].get(task):
            problems.append(f"the trials were run with another {kind} policy than that of the entry")
    if counted != claimed:
        problems.append(f"the trial files have {counted}, and entry.json claims {claimed}")
    return problems
