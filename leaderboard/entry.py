"""An entry: one folder with ``entry.json``, the rows of each track, the policy files and trials on real robots.

<id>/entry.json             what ``schema.json`` describes; holds the SHA-256 of all other files
<id>/rows/<track>.jsonl     one line per episode, sorted by domain, task and seed
<id>/residual/<Task>.onnx   the residual policy, if it has files
<id>/base/<Task>.onnx       the base policy, if it is not one of the package
<id>/real/<Task>/...        a comparison on a real robot, as ``oc-residual real run`` left it
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from leaderboard import LeaderboardError
from leaderboard.tracks import ERRORS, REAL, SPLIT, TRACKS, BoardCell
from oc_residual_gym import parsing
from oc_residual_gym.files import Record
from oc_residual_gym.parsing import read_json

ENTRIES = Path(__file__).parent / "entries"
VERIFICATIONS = Path(__file__).parent / "verifications"
"""Folder with one ``<id>.json`` per entry, written by ``verify``; submitters do not touch it."""
ENTRY_FILE = "entry.json"
ENTRY_ID = r"[a-z0-9][a-z0-9-]{1,38}[a-z0-9]"
"""Pattern for the names of entry folders."""
SAME_IN_ALL = ("base", "residual", "errors", "split")
"""Keys of the evaluator's episodes that the rows of an entry leave out, because entry and track give them."""


def parse_json(text: str) -> Any:
    """Parse ``text`` as strict JSON, which every parser reads in the same way.

    Raises:
        ValueError: it is not, for example because of NaN, infinity, integers beyond 2**53, lone surrogates, or
            duplicate keys in an object.
    """
    content = parsing.parse_json(text, _exact)
    try:
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # fails for lone surrogates
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return content


def _exact(text: str) -> int:
    value = int(text)
    if abs(value) > 2**53:
        raise ValueError("it has an integer beyond 2**53")
    return value


@dataclass(frozen=True)
class Entry:
    """An entry on disk. It is not checked here; ``validate`` does that."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @cached_property
    def _description(self) -> bytes:
        """Bytes of entry.json, read once, so that content and hash agree even if the file changes."""
        try:
            return (self.folder / ENTRY_FILE).read_bytes()
        except FileNotFoundError as error:
            raise LeaderboardError(f"{self.folder} has no {ENTRY_FILE}: `submit` makes one") from error

    @cached_property
    def content(self) -> dict[str, Any]:
        """Parsed content of entry.json."""
        try:
            return parse_json(self._description.decode("utf-8"))
        except ValueError as error:
            raise LeaderboardError(f"{ENTRY_FILE} is not JSON: {error}") from error

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of entry.json, and so of the whole entry: it holds the hashes of the other files."""
        return hashlib.sha256(self._description).hexdigest()

    @property
    def tracks(self) -> list[str]:
        """Its tracks, in the order of the board."""
        return [name for name in TRACKS if name in self.content["tracks"]]

    @property
    def tasks(self) -> list[str]:
        """The tasks of all its tracks, sorted by name."""
        real = self.content["tracks"].get(REAL, {"trials": {}})
        return sorted({cell.task for cell in self.cells} | set(real["trials"]))

    @property
    def cells(self) -> list[BoardCell]:
        """All cells that can be run again."""
        return [cell for name in self.tracks for cell in TRACKS[name].cells]

    def rows_file(self, track: str) -> Path:
        return self.folder / "rows" / f"{track}.jsonl"

    def rows(self, track: str) -> list[Record]:
        """The episodes of a track in simulation, in the evaluator's form."""
        return [self._episode(parse_json(line)) for line in self.rows_file(track).read_text("utf-8").splitlines()]

    def rows_of(self, cell: BoardCell) -> list[Record]:
        """The episodes of one cell by seed, in the evaluator's form."""
        track = next(name for name in self.tracks if cell in TRACKS[name].cells)
        return [row for row in self.rows(track) if (row["task"], row["domain"]) == (cell.task, cell.domain)]

    def policy(self, kind: str, task: str) -> str:
        """Name or absolute path by which the evaluator loads the "base" or "residual" policy of ``task``."""
        policy = self.content[kind]
        return str(self.policy_file(kind, task).absolute()) if policy["files"] else policy["name"]

    def policy_file(self, kind: str, task: str) -> Path:
        """File of the "base" or "residual" policy of ``task``, if the entry contains it."""
        return self.folder / kind / f"{task}.onnx"

    def real_folder(self, task: str) -> Path:
        """Folder of the comparison on a real robot for ``task``."""
        return self.folder / "real" / task

    def _episode(self, row: Mapping[str, Any]) -> Record:
        names = {"base": self.content["base"]["name"], "residual": self.content["residual"]["name"]}
        scenario = {"domain": row["domain"], "errors": ERRORS[row["domain"]], "split": SPLIT}
        head = {"task": row["task"], "seed": row["seed"]} | names | scenario
        return head | {key: value for key, value in row.items() if key not in head}


def row_of(episode: Record) -> Record:
    """The part of an evaluator's episode that an entry keeps."""
    return {key: value for key, value in episode.items() if key not in SAME_IN_ALL}


def load_entries(root: Path = ENTRIES) -> list[Entry]:
    """The entries in ``root``, sorted by id."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [Entry(folder) for folder in folders if folder.is_dir() and not folder.name.startswith(".")]


def verification_of(entry: Entry, root: Path = VERIFICATIONS) -> Record | None:
    """The last record of ``verify`` for exactly this content of the entry; None if there is none."""
    path = root / f"{entry.id}.json"
    try:
        record = read_json(path) if path.exists() else None
    except ValueError as error:
        raise LeaderboardError(f"{path} is not JSON ({error}): remove it, and verify the entry again") from error
    return record if record and record["entry_sha256"] == entry.sha256 else None


def replace_folder(new: Path, target: Path) -> None:
    """Move the finished folder ``new`` to ``target``, replacing an older one if there is one."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
