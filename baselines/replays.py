"""What became of the logs behind data files, from the reports that ``demos-replay`` writes beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from baselines import BaselineError
from baselines.data import file_hashes
from demos_replay.writers.robomimic import demo_names
from oc_residual_gym.files import Record, read_json, write_json


def replays_of(files: Sequence[Path], tasks: Sequence[str]) -> dict[str, Record]:
    """Origin of each data file of one of ``tasks`` that has a report, NAME.report.json beside NAME.hdf5.

    Returns:
        By the data file's name: task; command; logs, SHA-256 by name; succeeded, a number; failed, numbers by reason;
        skipped, the number of logs that could not be replayed at all.

    Raises:
        BaselineError: a report is damaged, or is not that of the data file.
        LogError: the data file is none.
    """
    origins = {}
    for file in files:
        path = file.with_suffix(".report.json")
        if path.is_file():
            origin = _origin(path)
            held = len(demo_names(file))
            if origin["succeeded"] != held:
                raise BaselineError(
                    f"{path} tells of {origin['succeeded']} successful replays, but {file} holds {held}: replay again, "
                    "or remove the report"
                )
            if origin["task"] in tasks:
                origins[file.name] = origin
    return origins


def add_replays(folder: Path, files: Sequence[Path]) -> None:
    """Put the origin of the data files into the reports of the policies in ``folder`` that were trained from them.

    Raises:
        BaselineError: the policies were trained from other files, or a file's report is damaged.
        LogError: a data file is none.
    """
    hashes = file_hashes(files)
    reports = {path: read_json(path) for path in sorted(folder.glob("*.json"))}
    for path, report in reports.items():
        differing = [name for name in {**report["data"], **hashes} if report["data"].get(name) != hashes.get(name)]
        if differing:
            raise BaselineError(
                f"{path} was trained from other data files; these differ: {', '.join(sorted(differing))}"
            )
    for path, report in reports.items():
        write_json(path, report | {"replays": replays_of(files, report["tasks"])})


def _origin(path: Path) -> Record:
    try:
        report = read_json(path)
        states = Counter(entry["status"] for entry in report["demos"])
        failed = Counter(entry["reason"] for entry in report["demos"] if entry["status"] == "failed")
        return {
            "task": report["task"],
            "command": report["command"],
            "logs": dict(report["files"]),
            "succeeded": states["success"],
            "failed": dict(sorted(failed.items())),
            "skipped": states["skipped"],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise BaselineError(f"{path} is no report of demos-replay ({error!r}): replay again, or remove it") from error
