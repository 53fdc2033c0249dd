"""Trials on disk: each one is a demonstration in our own log schema, with additional measurements.

While a trial runs, each step is appended to a journal (one JSON object per line, flushed at each step) and kept in
memory. With the verdict, it becomes an HDF5 file; if the folder is gone or full by then,
:mod:`oc_residual_gym.real.keeping` finds a place. After a crash, :func:`recover` converts the journal. A finished trial
without a verdict keeps its journal until :func:`judge_later`.

In addition to the datasets of :mod:`oc_residual_gym.log_schema` (``objects`` holds the poses as the policy saw them), a
demonstration has these, with T entries each, NaN for missing values:

| dataset | shape | |
|---|---|---|
| ``trial/base_target`` | (T, 8) | the base policy's target |
| ``trial/action`` | (T, 7) | the residual policy's action |
| ``trial/joint_velocities``, ``trial/tcp_velocity`` | (T, 7), (T, 6) | rad/s; m/s and rad/s |
| ``trial/gripper_closed`` | (T,) | state of the gripper's latch |
| ``trial/period`` | (T,) | measured seconds from the end of the last control step to the end of this one |
| ``trial/age/<object>`` | (T,) | control steps since the object was last seen |
| ``trial/readings/<object>/pose`` | (T, 7) | the pose source's newest reading, before gate and filter |
| ``trial/readings/<object>/age`` | (T,) | its seconds from image to use |
| ``trial/readings/<object>/state`` | (T,) | its status, as an index into :data:`READING_STATES` |

and these attributes: ``trial`` (number), ``attempt``, ``condition`` ("base" or "residual"), ``verdict`` ("success",
"fail" or "invalid"), ``reason`` (the operator's words), ``stop_reason`` (if the trial was stopped), ``base``,
``residual`` and the SHA-256 of their files, ``cell``, ``calibration`` (id), ``supervisor``, ``versions`` (JSON),
``commit``, ``placement_error`` and ``placement_turn`` (metres and radians of each object from its planned start, up to
what looks the same), ``placement_accepted`` (the operator started with a misplaced object), ``wrench_bias`` (N and Nm;
the robot's estimate in free space at the start, which was subtracted), ``started`` and ``judged`` (UTC), and in
monotonic seconds ``started_monotonic``, ``ended_monotonic`` and, if the arm was stopped, ``stop_seen_monotonic`` (when
the fault was noticed) and ``stopped_monotonic`` (when the arm stood still; NaN if never observed), with
``stop_detail``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import FileError, KeptElsewhere, SettingsError
from oc_residual_gym.files import Record, write_bytes, write_text
from oc_residual_gym.hdf5 import opened
from oc_residual_gym.log_schema import Recording, packed
from oc_residual_gym.perception.filter import NEVER
from oc_residual_gym.real.keeping import keep
from oc_residual_gym.states import Array

if TYPE_CHECKING:
    from oc_residual_gym.states import Readings

CONDITIONS = ("base", "residual")
"""Conditions that are compared: the base policy alone, and with the residual."""
SUFFIX, JOURNAL_SUFFIX = ".hdf5", ".journal"
INTERRUPTED = "interrupted"
READING_STATES = ("used", "jumped", "old", "lost", "missing", "outside", "contradicted")
"""States of readings, as in :class:`oc_residual_gym.states.Readings`."""
Rows = dict[str, ArrayLike]
"""Dataset name to its value at one step."""


@dataclass(frozen=True)
class Verdict:
    """The operator's verdict on a trial."""

    result: Literal["success", "fail", "invalid"]
    """Invalid trials are kept and reported, but count for neither policy."""
    reason: str = ""
    """The operator's reason; required for invalid trials."""


class TrialRecorder:
    """Records one trial. A disk that fills or a folder that vanishes while the trial runs does not end the trial.

    Args:
        folder: folder of the trials.
        name: name of the demonstration, and of its file without suffix.
        attributes: attributes that are known before the trial.
        synthetic: whether the robot is simulated.

    Raises:
        SettingsError: the trial exists already, or nothing can be written into the folder.
    """

    def __init__(self, folder: Path, name: str, attributes: Mapping[str, Any], *, synthetic: bool):
        self.path = folder / f"{name}{SUFFIX}"
        self._journal = folder / f"{name}{JOURNAL_SUFFIX}"
        if self.path.exists() or self._journal.exists():
            raise SettingsError(f"{folder} has a trial {name} already; a trial is never recorded over")
        self._lines: list[Record] = []
        self._complete = True  # whether the journal has all lines
        self.is_over = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._journal, "x", encoding="utf-8")  # noqa: SIM115 (open as long as the trial)
        except OSError as error:
            raise SettingsError(f"{folder} cannot be written ({error.strerror}): the trial has not begun") from error
        self._write({"synthetic": synthetic, "attributes": dict(attributes)})
        if not self._complete:
            self._remove_journal()
            raise SettingsError(f"{folder} cannot be written (is the disk full?): the trial has not begun")

    def add(self, row: Mapping[str, ArrayLike]) -> None:
        """Append one step; a crash of this process does not lose it, unless the journal cannot be written either."""
        self._write({name: np.asarray(value).tolist() for name, value in row.items()})

    def over(self, **attributes: Any) -> None:
        """Mark the trial as finished, with ``attributes``. After that, a crash leaves it open instead of invalid."""
        self._write({"over": attributes})
        self.is_over = True

    def close(self) -> None:
        """Close the journal; the trial stays as it is. Writes the journal again if it is gone or incomplete.

        Raises:
            KeptElsewhere: the journal is in another place.
            OSError: it cannot be written anywhere.
        """
        self._end()
        if not (self._complete and self._journal.exists()):
            keep(self._journal, "".join(json.dumps(line) + "\n" for line in self._lines).encode())

    def finish(self, verdict: Verdict, **attributes: Any) -> Path:
        """Write the trial's file, with additional ``attributes``; return its path.

        Raises:
            KeptElsewhere: the file is in another place.
            OSError: it cannot be written anywhere. The journal stays, and :func:`recover` tries again.
        """
        self._write(_judged(verdict, attributes))
        self._end()
        try:
            keep(self.path, _trial_file(self.path.stem, self._lines))
        except KeptElsewhere:
            self._remove_journal()  # what it has is in the file
            raise
        self._remove_journal()
        return self.path

    def _remove_journal(self) -> None:
        with suppress(OSError):
            self._journal.unlink()

    def _end(self) -> None:
        with suppress(OSError):  # what is still buffered is in memory too
            self._file.close()

    def _write(self, content: Mapping[str, Any]) -> None:
        self._lines.append(dict(content))
        try:
            self._file.write(json.dumps(content) + "\n")
            self._file.flush()
        except OSError:  # the disk is full, or the network folder is gone
            self._complete = False


def recover(folder: Path) -> list[Path]:
    """Convert the journals of interrupted trials in ``folder`` to files, as invalid trials; return the files.

    Raises:
        OSError: a file cannot be written.
    """
    waiting = [trial["journal"] for trial in unjudged(folder)]
    return [_convert(journal) for journal in _journals(folder) if journal not in waiting]


def unjudged(folder: Path) -> list[Record]:
    """Attributes and "journal" of each finished trial in ``folder`` that has no verdict yet."""
    waiting = []
    for journal in _journals(folder):
        content = _sorted_lines(journal.stem, _lines(journal))
        if content.over is not None and content.end is None:
            waiting.append(content.head["attributes"] | content.over | {"journal": journal})
    return waiting


def judge_later(journal: Path, verdict: Verdict) -> Path:
    """Add the verdict to the trial of ``journal``, one of :func:`unjudged`; return the trial's file.

    Raises:
        OSError: the file cannot be written.
    """
    lines = [json.dumps(line) for line in [*_lines(journal), _judged(verdict, {})]]
    write_text(journal, "\n".join(lines) + "\n")
    return _convert(journal)


def read_trials(folder: Path) -> list[Record]:
    """Attributes and "path" of every trial in ``folder``, sorted by number and attempt.

    Raises:
        SettingsError: a file is not a trial.
    """
    trials = []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            with opened(path) as file:
                attributes = dict(file["demos"][path.stem].attrs)
            trials.append({k: getattr(v, "tolist", lambda v=v: v)() for k, v in attributes.items()} | {"path": path})
            trials[-1]["trial"], trials[-1]["attempt"], trials[-1]["verdict"]
        except (FileError, OSError, KeyError) as error:
            raise SettingsError(f"{path} is not a trial, or is damaged ({error}); move it elsewhere") from error
    return sorted(trials, key=lambda trial: (trial["trial"], trial["attempt"]))


def measured(core: ResidualWorlds, readings: Readings, time: float) -> Rows:
    """Values to record before a control step; ``core`` has one world, ``time`` is in seconds from the start."""
    robot, seen = core.world.robot, core.filter
    row: Rows = {
        "time": time,
        "tcp_pose": robot.tcp_pose[0],
        "joint_positions": robot.joint_positions[0],
        "gripper_width": robot.gripper_width[0],
        "wrench": robot.wrench[0],
        "trial/base_target": core.base_target[0],
        "trial/joint_velocities": robot.joint_velocities[0],
        "trial/tcp_velocity": robot.tcp_velocity[0],
        "trial/gripper_closed": core.latch.closed[0],
    }
    for i, item in enumerate(core.task.objects):
        row[f"objects/{item.name}"] = seen.poses[0, i]
        row[f"objects_valid/{item.name}"] = seen.valid[0, i]
        row[f"trial/age/{item.name}"] = seen.age[0, i] if seen.age[0, i] < NEVER else np.nan
        row[f"trial/readings/{item.name}/pose"] = readings.poses[i]
        row[f"trial/readings/{item.name}/age"] = readings.ages[i]
        row[f"trial/readings/{item.name}/state"] = READING_STATES.index(readings.states[i])
    # Copies, because the world keeps updating the same arrays.
    return {name: np.array(value) for name, value in row.items()}


def executed(core: ResidualWorlds, action: Array, period: float) -> Rows:
    """Values to record after a control step.

    Args:
        core: the world that was stepped.
        action: (7,) action of the residual policy.
        period: measured duration of the step in seconds; NaN if it failed.
    """
    return {"target": core.executed_target[0], "trial/action": action, "trial/period": period}


@dataclass(frozen=True)
class _Journal:
    """Content of a journal, which may be cut off anywhere."""

    head: Record
    rows: list[Record]
    over: Record | None
    """Attributes from the end of the trial; ``None`` if it was still running."""
    end: Record | None
    """Verdict and further attributes; ``None`` without a verdict."""


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{JOURNAL_SUFFIX}"))


def _judged(verdict: Verdict, attributes: Mapping[str, Any]) -> Record:
    return {"verdict": asdict(verdict), "attributes": {"judged": now()} | dict(attributes)}


def _convert(journal: Path) -> Path:
    """Replace a journal by the trial's file."""
    path = journal.with_suffix(SUFFIX)
    if not path.exists():
        write_bytes(path, _trial_file(path.stem, _lines(journal)))
    journal.unlink()
    return path


def _trial_file(name: str, lines: Sequence[Record]) -> bytes:
    """Content of the file of the trial ``name``, from its journal's lines; without a verdict, it is invalid."""
    content = _sorted_lines(name, lines)
    end = content.end or {"verdict": asdict(Verdict("invalid", INTERRUPTED)), "attributes": {}}
    attributes: dict[str, Any] = {"stop_reason": ""} | content.head["attributes"] | (content.over or {})
    attributes |= end["attributes"] | end["verdict"] | {"success": end["verdict"]["result"] == "success"}
    attributes["verdict"] = attributes.pop("result")
    recording = Recording(_stacked(content.rows), attributes)
    synthetic = bool(content.head["synthetic"])
    description = f"A policy's trial on {'a simulated' if synthetic else 'a real'} robot"
    return packed({name: recording}, synthetic=synthetic, description=description)


def _sorted_lines(name: str, lines: Sequence[Record]) -> _Journal:
    # The first line is written before the arm moves; if it is missing, the file's name says all there is.
    head = lines[0] if lines else {"synthetic": False, "attributes": _identify(name)}
    rows, over, end = [], None, None
    for line in lines[1:]:
        if "verdict" in line:
            end = line
        elif "over" in line:
            over = line["over"]
        else:
            rows.append(line)
    return _Journal(head, rows, over, end)


def _lines(journal: Path) -> list[Record]:
    """The journal's complete lines."""
    lines = []
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # cut off
            break
    return lines


def now() -> str:
    """The present time as ISO 8601 text, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def trial_name(number: int, attempt: int) -> str:
    """Name of an attempt: "trial_0007", or "trial_0007_2" for the second one."""
    return f"trial_{number:04}" + (f"_{attempt}" if attempt > 1 else "")


def _identify(name: str) -> Record:
    _, number, *attempt = name.split("_")
    return {"trial": int(number), "attempt": int(attempt[0]) if attempt else 1, "condition": ""}


def _stacked(rows: list[Record]) -> dict[str, np.ndarray]:
    """Stack steps to (T, ...) per dataset; missing values become NaN."""
    shapes = {name: np.shape(value) for row in rows for name, value in row.items()}
    return {
        name: np.array([row.get(name, np.full(shape, np.nan)) for row in rows], np.float64)
        for name, shape in shapes.items()
    }
