"""``verify``: run the rows of entries again, and judge whether they match the claims."""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from leaderboard import LeaderboardError, tracks
from leaderboard.entry import ENTRY_FILE, Entry
from leaderboard.limits import LEAST_MEMORY_GIB, MEMORY_GIB, WORLDS, Limits, PolicyFailure, run_limited
from leaderboard.platforms import check_mujoco, current_platform, differences, identity
from leaderboard.records import LISTED, NOT_VERIFIED, Outcome, record_of, recorded
from leaderboard.tracks import BoardCell
from leaderboard.validate import check_files, validate
from leaderboard.verdict import REJECTED, Rerun, compare_rows, judge, risk
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.episodes import EPISODES_FILE, read_episodes
from oc_residual_gym.files import Record, alone, write_json
from oc_residual_gym.parsing import read_json
from oc_residual_gym.tasks.index import INDEX

STEP_SECONDS = 0.05
"""Maximum time of a policy that keeps up with 20 Hz, per control step of one world."""
SPARE_SECONDS = 120.0
"""Extra time for loading the policies and building the worlds."""
STATE_FILE = "verification.json"


@dataclass(frozen=True)
class VerifyRequest:
    """Arguments of ``verify``."""

    work: Path
    """Folder that keeps the rows of unfinished verifications."""
    rows: int | None = None
    """Number of random rows per cell; by default all."""
    worlds: int = WORLDS
    """Episodes that run in parallel."""
    memory_gib: float = MEMORY_GIB
    records: Path | None = None
    """Folder of the records; by default the board's, and then entries in other folders get no record."""

    def __post_init__(self) -> None:
        if self.rows is not None and not 1 <= self.rows < tracks.EPISODES:
            most = tracks.EPISODES - 1
            raise LeaderboardError(f"--rows is {self.rows}: give 1 to {most}, or leave it out to run all rows again")
        if not LEAST_MEMORY_GIB <= self.memory_gib < math.inf:
            raise LeaderboardError(f"--memory is {self.memory_gib:g} GiB: give {LEAST_MEMORY_GIB:g} or more")
        if not 1 <= self.worlds <= WORLDS:
            raise LeaderboardError(f"--worlds is {self.worlds}: give 1 to {WORLDS}, for which memory was measured")


def verify(entries: Sequence[Entry], request: VerifyRequest) -> Iterator[Outcome]:
    """Verify ``entries`` one after the other and write a record of each, with a progress bar over all rows.

    An interrupted verification resumes with the same sample. An entry that fails or crashes does not affect the others.

    Raises:
        LeaderboardError: this environment has another version of MuJoCo than published figures.
    """
    check_mujoco()
    platform = current_platform()
    per_cell = request.rows or tracks.EPISODES
    checked = [
        (entry, _validated(entry, request, platform))
        for entry in tqdm(entries, desc="checking", unit="entry", disable=None)
    ]
    total = sum(per_cell * len(entry.cells) for entry, outcome in checked if outcome is None)
    with tqdm(total=total, unit="row", disable=None) as bar:
        for entry, outcome in checked:
            if outcome is not None:
                yield outcome
                continue
            before = bar.n
            try:
                folder = _work_folder(entry, request, platform)
                with alone(folder):
                    outcome = _verify(entry, folder, request, platform, bar)
            except (LeaderboardError, SettingsError, OSError) as error:
                outcome = Outcome(entry.id, NOT_VERIFIED, str(error))
            yield outcome
            bar.update(before + per_cell * len(entry.cells) - bar.n)  # rows that were not run


def _validated(entry: Entry, request: VerifyRequest, platform: Record) -> Outcome | None:
    """The outcome for an entry if it is known without running rows; ``None`` if rows must be run."""
    try:
        problems = validate(entry)
        if problems and not (entry.folder / ENTRY_FILE).is_file():
            return Outcome(entry.id, REJECTED, "; ".join(problems))
        if problems:
            return recorded(entry, record_of(entry, platform, REJECTED, "; ".join(problems)), request.records)
    except (LeaderboardError, OSError) as error:
        return Outcome(entry.id, NOT_VERIFIED, str(error))
    return None if entry.cells else Outcome(entry.id, LISTED, "trials on a real robot cannot be re-run")


def _verify(entry: Entry, folder: Path, request: VerifyRequest, platform: Record, bar: tqdm) -> Outcome:
    """Run rows of a valid entry again in ``folder``, and record the verdict.

    Raises:
        LeaderboardError, SettingsError, OSError: the rows could not be run, for a reason that is not the entry's.
    """
    state = _state(folder, request)
    sample = _sample(state["sample_seed"], request.rows, len(entry.cells))
    reruns: list[Rerun] = []
    failure = None
    for cell, seeds in zip(entry.cells, sample, strict=True):
        bar.set_description_str(f"{entry.id}: {cell.task} in {cell.domain}")
        began = time.monotonic()
        try:
            reruns.append(_run(entry, cell, seeds, request, folder, bar))
        except PolicyFailure as error:
            failure = f"{cell.task} in {cell.domain}: {error}"
            break
        except LeaderboardError as error:
            raise LeaderboardError(f"{cell.task} in {cell.domain}: {error}") from error
        finally:
            state["seconds"] += time.monotonic() - began
            write_json(folder / STATE_FILE, state)
    if _has_changed(entry):
        shutil.rmtree(folder)  # its rows may be of the old or the new content
        raise LeaderboardError("its files were changed while it was verified: verify it again")
    same = not differences(entry.content["evaluation"], platform)
    verdict, reason = (REJECTED, failure) if failure else judge(reruns, same)
    record = record_of(entry, platform, verdict, reason, reruns, same) | {
        "total": tracks.EPISODES * len(entry.cells),
        "sample": _described_sample(state, request),
        "minutes": round(state["seconds"] / 60.0, 1),
    }
    outcome = recorded(entry, record, request.records)
    shutil.rmtree(folder)
    return outcome


def _has_changed(entry: Entry) -> bool:
    """Whether the files have changed since ``entry`` was first read."""
    now = Entry(entry.folder)
    return bool(check_files(now)) or now.sha256 != entry.sha256


def _work_folder(entry: Entry, request: VerifyRequest, platform: Record) -> Path:
    """Working folder, with a unique name for everything on which the rows depend."""
    what = [entry.sha256, str(entry.folder.absolute()), request.rows, identity(platform)]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return request.work.absolute() / f"{entry.id}-{digest[:12]}"


def _state(folder: Path, request: VerifyRequest) -> Record:
    """State of an interrupted verification, or of a new one."""
    path = folder / STATE_FILE
    if path.exists():
        return read_json(path)
    # From the system's entropy, so that nobody can foresee the sample and hide false rows from it. Every JSON parser
    # reads 53 bits exactly.
    state = {"sample_seed": secrets.randbits(53) if request.rows else None, "seconds": 0.0}
    write_json(path, state)
    return state


def _sample(seed: int | None, rows: int | None, cells: int) -> list[list[int]]:
    """For each of ``cells`` cells, the seeds to run again."""
    if seed is None:
        return [list(range(tracks.EPISODES))] * cells
    rng = np.random.default_rng(seed)
    return [sorted(rng.permutation(tracks.EPISODES)[:rows].tolist()) for _ in range(cells)]


def _described_sample(state: Record, request: VerifyRequest) -> Record | None:
    if request.rows is None:
        return None
    risks = risk(tracks.EPISODES, request.rows)
    return {"rows_per_cell": request.rows, "seed": state["sample_seed"], "risk": risks}


def _run(entry: Entry, cell: BoardCell, seeds: Sequence[int], request: VerifyRequest, folder: Path, bar: tqdm) -> Rerun:
    """Run the rows ``seeds`` of one cell in a child process, and compare them with the claim."""
    out = folder / f"{cell.domain}-{cell.task}"
    policies = {kind: entry.policy(kind, cell.task) for kind in ("base", "residual")}
    scenario = {"domain": cell.domain, "errors": cell.errors, "split": tracks.SPLIT, "episodes": tracks.EPISODES}
    order = {
        "task": cell.task,
        "settings": policies | scenario,
        "seeds": list(seeds),
        "worlds": request.worlds,
        "out": str(out),
    }
    limits = _limits(cell.task, min(request.worlds, len(seeds)), request.memory_gib)
    with closing(run_limited("leaderboard.rerun_worker", order, limits)) as messages:
        for message in messages:
            bar.update(message["episodes"])
    episodes = read_episodes(out / EPISODES_FILE)
    if sorted(episode["seed"] for episode in episodes) != list(seeds):
        raise LeaderboardError(f"{out} holds rows other than those that were run: remove it and verify again")
    return compare_rows(cell, entry.rows_of(cell), episodes)


def _limits(task: str, worlds: int, memory_gib: float) -> Limits:
    """Limits for a cell: the time in which an episode ends if a policy at 20 Hz steps the worlds one after the
    other."""
    steps = INDEX[task].max_episode_steps
    seconds = math.ceil(worlds * steps * STEP_SECONDS + SPARE_SECONDS)
    means = (
        f"no episode ended within {seconds} s: a policy that keeps up with 20 Hz steps {worlds} worlds {steps} times"
    )
    return Limits(seconds, means, memory_gib)
