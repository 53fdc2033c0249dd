"""``submit``: make an entry from evaluations on the split ``test``, trainings, and trials on a real robot."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from leaderboard import LeaderboardError, rows, trials
from leaderboard.about import About, read_about
from leaderboard.entry import ENTRIES, ENTRY_FILE, ENTRY_ID, Entry, replace_folder, row_of
from leaderboard.evaluations import CellRows, cell_rows, described, read_evaluations
from leaderboard.tracks import REAL, TRACKS, BoardCell
from leaderboard.trainings import training_content
from leaderboard.validate import OWN_BASES
from oc_residual_gym.evaluation.episodes import json_line
from oc_residual_gym.files import Record, sha256, write_json, write_text
from oc_residual_gym.policies.versions import NEWEST, residual_file
from oc_residual_gym.residuals import TRAINED, UNTRAINED


@dataclass(frozen=True)
class SubmitRequest:
    """Arguments of ``submit``."""

    id: str
    about: Path
    evaluations: Sequence[Path] = ()
    """Folders of ``oc-residual evaluate`` or ``baselines compare``."""
    residual: str | None = None
    """Which of their residual policies, by its name there; required if they have several."""
    trainings: Sequence[Path] = ()
    real: Sequence[Path] = ()
    """Folders of ``oc-residual real run``."""
    out: Path = ENTRIES
    replace: bool = False
    """Whether to replace an existing entry with this id."""


@dataclass(frozen=True)
class Policy:
    """A policy for one task, as evaluations or trials name it."""

    name: str
    sha256: str | None


Policies = dict[str, dict[str, Policy]]
"""Kind ("base" or "residual") to task to policy."""


def submit(request: SubmitRequest) -> tuple[Entry, list[str]]:
    """Write the entry that ``request`` describes; it is not validated yet.

    Returns:
        The entry, and the problems that keep it out of other tracks.

    Raises:
        LeaderboardError: something is missing or inconsistent.
        SettingsError: an evaluation is not finished.
    """
    if not re.fullmatch(ENTRY_ID, request.id):
        raise LeaderboardError(f"--id is {request.id!r}: use 3 to 40 characters of a to z, 0 to 9 and inner hyphens")
    target = request.out / request.id
    if target.exists() and not request.replace:
        raise LeaderboardError(f"there is an entry {target} already; --replace replaces it")
    about = read_about(request.about)
    cells = cell_rows(read_evaluations(request.evaluations, request.residual))
    cells, left_out = _complete_tracks(cells)
    real = _comparisons(request.real)
    if not cells and not real:
        raise LeaderboardError("\n".join(["no track is complete:", *(left_out or ["there are no evaluations"])]))
    policies = _policies(cells.values(), real)
    temporary = request.out / f".{request.id}.{os.getpid()}.tmp"
    try:
        content = _written(temporary, about, request, cells, real, policies)
        write_json(temporary / ENTRY_FILE, content)
        replace_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Entry(target), left_out


def _complete_tracks(cells: dict[BoardCell, CellRows]) -> tuple[dict[BoardCell, CellRows], list[str]]:
    """The ``cells`` of complete tracks, and what the incomplete tracks lack."""
    complete: dict[BoardCell, CellRows] = {}
    left_out: list[str] = []
    for track in TRACKS.values():
        lacking = [cell for cell in track.cells if cell not in cells or not cells[cell].is_complete]
        if not lacking:
            complete |= {cell: cells[cell] for cell in track.cells}
        elif len(lacking) < len(track.cells) or any(cell in cells for cell in lacking):
            found = [
                (cell.domain, cell.task, seed) for cell in lacking if cell in cells for seed in cells[cell].episodes
            ]
            left_out += [f"{track.title}: {problem}" for problem in rows.completeness(found, lacking)]
    return complete, left_out


def _comparisons(folders: Sequence[Path]) -> dict[str, tuple[Path, Record]]:
    """Task to folder and settings of its comparison on a real robot."""
    found: dict[str, tuple[Path, Record]] = {}
    for folder in folders:
        settings = trials.read_settings(folder)
        if settings["task"] in found:
            raise LeaderboardError(f"{found[settings['task']][0]} and {folder} are of the same task: give one of them")
        found[settings["task"]] = (folder, settings)
    return found


def _policies(cells: Iterable[CellRows], real: dict[str, tuple[Path, Record]]) -> Policies:
    """The base and the residual policy of each task. Raises ``LeaderboardError`` if a task has several."""
    used = [(part.cell.task, part.base, part.base_sha256, part.residual, part.residual_sha256) for part in cells]
    for task, (_, settings) in real.items():
        hashes = settings["hashes"]
        used.append((task, settings["base"], hashes["base"], settings["residual"], hashes["residual"]))
    policies: Policies = {"base": {}, "residual": {}}
    for task, base, base_sha256, residual, residual_sha256 in used:
        for kind, policy in (("base", Policy(base, base_sha256)), ("residual", Policy(residual, residual_sha256))):
            known = policies[kind].setdefault(task, policy)
            if known.sha256 != policy.sha256 or (policy.sha256 is None and known.name != policy.name):
                raise LeaderboardError(
                    f"{task} was run with several {kind} policies ({known.name}, {policy.name}): an entry has one for "
                    "both domains and the robot"
                )
    return policies


def _written(
    folder: Path,
    about: About,
    request: SubmitRequest,
    cells: dict[BoardCell, CellRows],
    real: dict[str, tuple[Path, Record]],
    policies: Policies,
) -> Record:
    """Write all files but entry.json to ``folder``; return the content of entry.json."""
    base = _policy_content(folder, "base", policies, about)
    residual = _policy_content(folder, "residual", policies, about)
    evaluations = [evaluation for part in cells.values() for evaluation in part.evaluations]
    with_files = base["files"] or residual["files"]
    claims = _write_rows(folder, cells) | _write_real(folder, real)
    return {
        "schema": 1,
        "name": about.name,
        "reference": about.reference,
        "description": about.description,
        "authors": about.authors,
        "code": about.code,
        "paper": about.paper,
        "date": about.date,
        "base": base,
        "residual": residual,
        "training": training_content(request.trainings, about, residual, base) if with_files else None,
        "tracks": claims,
        "evaluation": described(evaluations) if evaluations else None,
    }


def _policy_content(folder: Path, kind: str, policies: Policies, about: About) -> Record:
    """Content of entry.json for the "base" or "residual" policy; its files are copied to ``folder``."""
    by_task = dict(sorted(policies[kind].items()))
    names = {_full_name(kind, policy.name) for policy in by_task.values()}
    hashes = {task: policy.sha256 for task, policy in by_task.items()}
    known = OWN_BASES if kind == "base" else UNTRAINED
    if names & set(known):
        if len(names) > 1:
            raise LeaderboardError(f"the {kind} policies are {', '.join(sorted(names))}: an entry has one in all tasks")
        return {"name": names.pop(), "files": False, "sha256": hashes}
    name = getattr(about, kind)
    if not name:
        raise LeaderboardError(
            f"the {kind} policy {', '.join(sorted(names))} needs a name on the board: `{kind} = ...`"
        )
    files = any(hashes.values())
    if not files and kind == "residual":
        raise LeaderboardError(
            f"the residual policies {', '.join(sorted(names))} have no files that could be run again"
        )
    for task, policy in by_task.items() if files else ():
        source = _source(kind, task, policy, policies["base"][task].name)
        (folder / kind).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / kind / f"{task}.onnx")
        if sha256(folder / kind / f"{task}.onnx") != policy.sha256:
            raise LeaderboardError(f"{source} is not the {kind} policy that was run in {task} any more")
    return {"name": name, "files": files, "sha256": hashes}


def _full_name(kind: str, name: str) -> str:
    return NEWEST.get(name, name) if kind == "base" else name


def _source(kind: str, task: str, policy: Policy, base: str) -> Path:
    """The file of a policy. Raises ``LeaderboardError`` if it does not exist."""
    if kind == "residual" and policy.name in TRAINED:
        return residual_file(policy.name, task, base)
    path = Path(policy.name)
    if path.suffix != ".onnx":
        path = path / f"{task}.onnx"
    if not path.is_file():
        raise LeaderboardError(
            f"there is no {path}, the {kind} policy that was run in {task}: run `submit` where the evaluation was run"
        )
    return path


def _write_rows(folder: Path, cells: dict[BoardCell, CellRows]) -> Record:
    claims: Record = {}
    for track in TRACKS.values():
        if track.cells and set(track.cells) <= set(cells):
            by_key = {
                (cell.domain, cell.task, seed): row_of(episode)
                for cell in track.cells
                for seed, episode in cells[cell].episodes.items()
            }
            kept = [by_key[key] for key in rows.expected(track.cells)]
            path = folder / "rows" / f"{track.name}.jsonl"
            write_text(path, "".join(map(json_line, kept)))
            claims[track.name] = {"sha256": sha256(path), "successes": rows.count_successes(kept)}
    return claims


def _write_real(folder: Path, real: dict[str, tuple[Path, Record]]) -> Record:
    if not real:
        return {}
    files, counts = {}, {}
    for task, (source, settings) in sorted(real.items()):
        counts[task] = trials.count_trials(source, settings)
        for relative in trials.files_of(source):
            path = folder / "real" / task / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / relative, path)
            files[f"{task}/{relative.as_posix()}"] = sha256(path)
    return {REAL: {"files": files, "trials": counts}}
