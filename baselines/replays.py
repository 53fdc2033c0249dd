"""Origin of data files: the logs behind them and their replays, from the reports that ``demos-replay`` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from baselines import BaselineError
from baselines.data import file_hashes
from demos_replay.writers.robomimic import demo_names
from oc_residual_gym.files import Record, write_json
from oc_residual_gym.parsing import read_json


def replays_of(files: Sequence[Path], tasks: Sequence[str]) -> dict[str, Record]:
    """Read the origin of each data file of ``tasks`` that has a report (NAME.report.json beside NAME.hdf5).

    Returns:
        File name to a record: "task", "command", "logs" (name to SHA-256), "succeeded" (number), "failed" (reason to
        number) and "skipped" (number of logs that could not be replayed at all).

    Raises:
        BaselineError: a report is damaged, or does not match its data file.
        LogError: a file is not a data file.
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
    """Add the origin of the data files to the reports of the policies in ``folder``, which were trained on them.

    Raises:
        BaselineError: the policies were trained on other files, or a file's report is damaged.
        LogError: a file is not a data file.
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
        raise BaselineError(
            f"{path} is not a report by demos-replay ({error!r}): replay again, or remove it"
        ) from error
