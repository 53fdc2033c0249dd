"""How the policies of an entry were trained, read from the folders of trainings or from the description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from baselines.residual import REPORT_FILE
from leaderboard import LeaderboardError
from leaderboard.about import About
from oc_residual_gym.files import Record
from oc_residual_gym.parsing import read_json


def training_content(trainings: Sequence[Path], about: About, residual: Record, base: Record) -> Record:
    """The content of "training" in entry.json.

    Args:
        trainings: folders of ``train-residual``, one per task of the residual; empty if ``about`` has everything.
        about: the person's description.
        residual, base: their content in entry.json.

    Raises:
        LeaderboardError: a training is unfinished or of another policy, or something is missing.
    """
    if about.training is None:
        raise LeaderboardError("the entry contains policies: describe their training in the table [training]")
    written = {"checkpoint": "last"} | about.training
    if not trainings:
        return written
    if twice := {"seed", "tasks"} & set(written):
        raise LeaderboardError(f"[training] has {', '.join(sorted(twice))}, which --trainings says: leave it out")
    reports = [_finished(folder) for folder in trainings]
    tasks = [report["task"] for report in reports]
    if sorted(tasks) != sorted(residual["sha256"]):
        wanted = ", ".join(sorted(residual["sha256"]))
        raise LeaderboardError(f"there are trainings for {', '.join(sorted(tasks))}: give one for each of {wanted}")
    seeds = sorted({report["seed"] for report in reports})
    if len(seeds) > 1:
        raise LeaderboardError(f"the trainings have the seeds {', '.join(map(str, seeds))}: an entry has one")
    for folder, report in zip(trainings, reports, strict=True):
        _check_policies(folder, report, {"residual": residual, "base": base})
    machines = sorted({"{processor}, {cores} cores".format(**report["machine"]) for report in reports})
    return {
        "seed": seeds[0],
        "hardware": "; ".join(machines),
        "tasks": {report["task"]: _budget(report) for report in sorted(reports, key=lambda report: report["task"])},
    } | written


def _finished(folder: Path) -> Record:
    """The report of a training."""
    path = folder / REPORT_FILE
    if not path.exists():
        raise LeaderboardError(f"{folder} holds no finished training ({REPORT_FILE}): give the --out of train-residual")
    return read_json(path)


def _check_policies(folder: Path, report: Record, policies: Mapping[str, Record]) -> None:
    """Raise ``LeaderboardError`` if a training did not produce (residual) or use (base) the ``policies`` of the
    entry."""
    task, trained = report["task"], {"residual": report["sha256"], "base": report["base_sha256"]}
    for kind, content in policies.items():
        if trained[kind] != content["sha256"][task]:
            raise LeaderboardError(
                f"{folder} is not the training of what was evaluated: its {kind} policy for {task} has the SHA-256 "
                f"{trained[kind]}, and the evaluated one {content['sha256'][task]}"
            )


def _budget(report: Record) -> Record:
    curve = [[point["steps"], point["success_rate"]] for point in report["curve"]]
    return {"steps": report["steps"], "minutes": report["minutes"], "curve": curve}
