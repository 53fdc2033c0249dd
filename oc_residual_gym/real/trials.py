"""Trials on disk: each is one demonstration of our own log schema, and what else was measured.

While a trial runs, its rows go into a journal (one JSON object a line, handed to the system at each step); when it has
its verdict, the journal becomes an HDF5 file. What a crash left behind is not lost: :func:`recover` makes the file. A
trial that was over but for its verdict keeps its journal until :func:`judge_later`.

Besides what :mod:`oc_residual_gym.log_schema` has, with the tracked poses as the policy saw them in ``objects``, the
demonstration has these datasets of T rows, NaN where there was nothing:

| dataset | shape | |
|---|---|---|
| ``trial/base_target`` | (T, 8) | the base policy's target |
| ``trial/action`` | (T, 7) | the residual policy's action |
| ``trial/joint_velocities``, ``trial/tcp_velocity`` | (T, 7), (T, 6) | rad/s; m/s and rad/s |
| ``trial/gripper_closed`` | (T,) | the gripper's latch |
| ``trial/period`` | (T,) | measured seconds from the end of the last control step to the end of this one |
| ``trial/age/<object>`` | (T,) | control steps since the object was seen |
| ``trial/readings/<object>/pose`` | (T, 7) | the pose source's newest reading, before gate and filter |
| ``trial/readings/<object>/age`` | (T,) | its seconds from image to use |
| ``trial/readings/<object>/state`` | (T,) | what became of it: its place in :data:`READING_STATES` |

and these attributes: ``trial`` (number), ``attempt``, ``condition`` ("base" or "residual"), ``verdict`` ("success",
"fail" or "invalid"), ``reason`` (the operator's words), ``stop_reason`` (where the trial ended by itself), ``base``,
``residual`` and the SHA-256 of their files, ``cell``, ``calibration`` (id), ``supervisor``, ``versions`` (JSON),
``commit``, ``placement_error`` (metres, of each object from its planned start), ``placement_accepted`` (the operator
started with an object out of its place), ``wrench_bias`` (N and Nm that the robot's estimate read in free space at the
start, and that were subtracted), ``started`` and ``judged`` (UTC), and in monotonic seconds ``started_monotonic``,
``ended_monotonic`` and, where the arm was stopped, ``stop_seen_monotonic`` (the fault was noticed) and
``stopped_monotonic`` (the arm stood still; NaN if that was never seen), with ``stop_detail``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
from numpy.typing import ArrayLike

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.files import Record, write_text
from oc_residual_gym.log_schema import Recording, add
from oc_residual_gym.perception.filter import NEVER
from oc_residual_gym.states import Array

if TYPE_CHECKING:
    from oc_residual_gym.states import Readings

CONDITIONS = ("base", "residual")
"""What is compared: the base policy alone, and under the residual."""
SUFFIX, JOURNAL_SUFFIX = ".hdf5", ".journal"
INTERRUPTED = "interrupted"
READING_STATES = ("used", "jumped", "old", "lost", "missing")
"""As :class:`oc_residual_gym.real.tracking.Readings` names them."""
Rows = dict[str, ArrayLike]
"""Dataset name to its value in one row."""


@dataclass(frozen=True)
class Verdict:
    """What the operator says of a trial."""

    result: Literal["success", "fail", "invalid"]
    """Invalid trials are kept and reported, and count for neither policy."""
    reason: str = ""
    """In the operator's words; invalid trials need one."""


class TrialRecorder:
    """Records one trial.

    Args:
        folder: of the trials.
        name: of the file, without its ending, and of the demonstration in it.
        attributes: of the trial, as far as they are known before it.
        synthetic: whether the robot is simulated.

    Raises:
        SettingsError: there is such a trial already.
    """

    def __init__(self, folder: Path, name: str, attributes: Mapping[str, Any], *, synthetic: bool):
        self.path = folder / f"{name}{SUFFIX}"
        self._journal = folder / f"{name}{JOURNAL_SUFFIX}"
        if self.path.exists() or self._journal.exists():
            raise SettingsError(f"{folder} has a trial {name} already; a trial is never recorded over")
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self._journal, "x", encoding="utf-8")  # noqa: SIM115 (open as long as the trial)
        self.is_over = False
        self._write({"synthetic": synthetic, "attributes": dict(attributes)})

    def add(self, row: Mapping[str, ArrayLike]) -> None:
        """Keep one row; from here on, a crash of this process does not lose it."""
        self._write({name: np.asarray(value).tolist() for name, value in row.items()})

    def over(self, **attributes: Any) -> None:
        """The trial has ended, with these ``attributes``; from here on a crash leaves it open, and not invalid."""
        self._write({"over": attributes})
        self.is_over = True

    def close(self) -> None:
        """Leave the trial as it is."""
        self._file.close()

    def finish(self, verdict: Verdict, **attributes: Any) -> Path:
        """Write the trial's file, with ``attributes`` besides those known before.

        Raises:
            OSError: it cannot be written; the journal stays, and :func:`recover` tries again.
        """
        self._write(_judged(verdict, attributes))
        self.close()
        return _convert(self._journal)

    def _write(self, content: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(content) + "\n")
        self._file.flush()


def recover(folder: Path) -> list[Path]:
    """Make files of the journals in ``folder`` of trials that were interrupted as they ran: they are invalid, and kept.

    Raises:
        OSError: one cannot be written.
    """
    waiting = [trial["journal"] for trial in unjudged(folder)]
    return [_convert(journal) for journal in _journals(folder) if journal not in waiting]


def unjudged(folder: Path) -> list[Record]:
    """Attributes of the trials in ``folder`` that are over and wait for their verdict, and the "journal" of each."""
    waiting = []
    for journal in _journals(folder):
        content = _read(journal)
        if content.over is not None and content.end is None:
            waiting.append(content.head["attributes"] | content.over | {"journal": journal})
    return waiting


def judge_later(journal: Path, verdict: Verdict) -> Path:
    """Give the trial of ``journal``, one of :func:`unjudged`, its verdict; its file.

    Raises:
        OSError: it cannot be written.
    """
    lines = [json.dumps(line) for line in [*_lines(journal), _judged(verdict, {})]]
    write_text(journal, "\n".join(lines) + "\n")
    return _convert(journal)


def read_trials(folder: Path) -> list[Record]:
    """Attributes of every trial in ``folder``, and its ``path``, by number and attempt.

    Raises:
        SettingsError: a file is no trial.
    """
    trials = []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            with h5py.File(path, "r", locking=False) as file:
                attributes = dict(file["demos"][path.stem].attrs)
            trials.append({k: getattr(v, "tolist", lambda v=v: v)() for k, v in attributes.items()} | {"path": path})
            trials[-1]["trial"], trials[-1]["attempt"], trials[-1]["verdict"]
        except (OSError, KeyError) as error:
            raise SettingsError(f"{path} is no trial, or damaged ({error}); move it elsewhere") from error
    return sorted(trials, key=lambda trial: (trial["trial"], trial["attempt"]))


def measured(core: ResidualWorlds, readings: Readings, time: float) -> Rows:
    """What is recorded of the one world of ``core`` before a control step; ``time`` in seconds from the start."""
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
    # The worlds go on in the same arrays.
    return {name: np.array(value) for name, value in row.items()}


def executed(core: ResidualWorlds, action: Array, period: float) -> Rows:
    """What is recorded after the control step that ``action`` (7,) made, in the same row.

    Args:
        core: which made it.
        action: of the residual policy.
        period: measured seconds of the step, NaN where it failed.
    """
    return {"target": core.executed_target[0], "trial/action": action, "trial/period": period}


@dataclass(frozen=True)
class _Journal:
    """What a journal holds, which may have been cut off anywhere."""

    head: Record
    rows: list[Record]
    over: Record | None
    """Attributes that the trial ended with; ``None``: it was still running."""
    end: Record | None
    """Its verdict, and attributes that came with it."""


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{JOURNAL_SUFFIX}"))


def _judged(verdict: Verdict, attributes: Mapping[str, Any]) -> Record:
    return {"verdict": asdict(verdict), "attributes": {"judged": now()} | dict(attributes)}


def _convert(journal: Path) -> Path:
    """The trial's file in place of its journal."""
    path = journal.with_suffix(SUFFIX)
    if not path.exists():
        content = _read(journal)
        end = content.end or {"verdict": asdict(Verdict("invalid", INTERRUPTED)), "attributes": {}}
        attributes: dict[str, Any] = {"stop_reason": ""} | content.head["attributes"] | (content.over or {})
        attributes |= end["attributes"] | end["verdict"] | {"success": end["verdict"]["result"] == "success"}
        attributes["verdict"] = attributes.pop("result")
        recording = Recording(_stacked(content.rows), attributes)
        synthetic = bool(content.head["synthetic"])
        description = f"A policy's trial on {'a simulated' if synthetic else 'a real'} robot"
        add(path, {path.stem: recording}, synthetic=synthetic, description=description)
    journal.unlink()
    return path


def _read(journal: Path) -> _Journal:
    lines = _lines(journal)
    # The first line was written before anything moved: without it nothing is lost but what the file's name says.
    head = lines[0] if lines else {"synthetic": False, "attributes": _identify(journal.stem)}
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
    """The lines that were written to their end."""
    lines = []
    for line in journal.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # cut off
            break
    return lines


def now() -> str:
    """The time of day, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def trial_name(number: int, attempt: int) -> str:
    """ "trial_0007", "trial_0007_2" for its second attempt."""
    return f"trial_{number:04}" + (f"_{attempt}" if attempt > 1 else "")


def _identify(name: str) -> Record:
    _, number, *attempt = name.split("_")
    return {"trial": int(number), "attempt": int(attempt[0]) if attempt else 1, "condition": ""}


def _stacked(rows: list[Record]) -> dict[str, np.ndarray]:
    """Rows (T, ...) of each dataset; NaN in rows that have none."""
    shapes = {name: np.shape(value) for row in rows for name, value in row.items()}
    return {
        name: np.array([row.get(name, np.full(shape, np.nan)) for row in rows], np.float64)
        for name, shape in shapes.items()
    }
