"""Model cards: what a policy was trained on, how, and how well it does, written from reports and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from baselines import BaselineError
from oc_residual_gym.evaluation.results import SUMMARY_FILE, Record, read_json, write_text

CARD_FILE = "card.md"
_ABOUT = {
    "bc": """State-based action chunks: from filtered object poses, the gripper and the last executed target to 16
absolute end-effector targets (20 Hz, executed open loop). One network a task (MLP), cloned from replayed demonstrations
whose objects were seen through the pose error models "paper" and "tracker" and the pose filter.""",
    "vla": """One vision-language-action network for all tasks: from two 128 x 128 cameras, the instruction's bytes and
proprioception to 16 absolute end-effector targets (20 Hz, executed open loop), cloned from replayed demonstrations. It
sees no object poses; in training only, their positions are a second thing to predict. A small convolutional network
trained from scratch on these tasks alone: it stands in for a real VLA, and knows no other instruction.""",
}
_LIMITS = """- The demonstrations come from a scripted operator with human-like errors, not from people.
- Its pauses are cut out, unless the fingers move: the policy is quicker than its demonstrator.
- It is imitation: away from the demonstrated states it may stall or miss. That is what residuals are for."""


def write_card(folder: Path, evaluations: Sequence[Path] = ()) -> Path:
    """Write the card of the policies that ``train-base`` put into ``folder``.

    Args:
        folder: of the files and their reports.
        evaluations: folders of finished ``oc-residual evaluate`` runs of these very files.

    Raises:
        BaselineError: there are no policies, an evaluation is not finished, or is one of other files.
    """
    reports = [read_json(path) for path in sorted(folder.glob("*.json"))]
    if not reports:
        raise BaselineError(
            f"there are no reports of trained policies in {folder}: run train-base --out {folder} first"
        )
    base, policy = reports[0]["base"], reports[0]["policy"]
    lines = [f"# {policy}", "", _ABOUT[base], "", "## Success", ""]
    lines += _success([cell for folder in evaluations for cell in _cells(folder, reports)])
    lines += ["", "## Training", "", *_training(reports), "", "## Limits", "", _LIMITS]
    write_text(folder / CARD_FILE, "\n".join(lines) + "\n")
    return folder / CARD_FILE


def _cells(evaluation: Path, reports: Sequence[Record]) -> list[Record]:
    """Cells of an evaluation, if it is one of these files."""
    summary_file = evaluation / SUMMARY_FILE
    if not summary_file.exists():
        raise BaselineError(
            f"{evaluation} holds no finished evaluation ({SUMMARY_FILE}): run oc-residual evaluate there"
        )
    summary = read_json(summary_file)
    by_task = {task: report["sha256"] for report in reports for task in report["tasks"]}
    for cell in summary["cells"]:
        if summary["hashes"]["base"][cell["task"]] != by_task.get(cell["task"]):
            raise BaselineError(f"{evaluation} evaluated another {cell['task']} policy: evaluate this one again")
    return list(summary["cells"])


def _success(cells: Sequence[Record]) -> list[str]:
    if not cells:
        return ["Not evaluated yet."]
    lines = [
        "| task | residual | domain | pose errors | split | episodes | success (95 % Wilson interval) |",
        "|" + "---|" * 7,
    ]
    for cell in cells:
        rate = f"{cell['success_rate']:.1%} ({cell['ci_low']:.1%} to {cell['ci_high']:.1%})"
        columns = (cell[key] for key in ("task", "residual", "domain", "errors", "split", "episodes"))
        lines.append(f"| {' | '.join(map(str, columns))} | {rate} |")
    return lines


def _training(reports: Sequence[Record]) -> list[str]:
    columns = (
        "| file | demonstrations | rows | replays without success, left out | steps x batch | parameters | minutes "
    )
    lines = [columns + "| loss | held-out loss | SHA-256 |", "|" + "---|" * 10]
    for report in reports:
        schedule = report["schedule"]
        held_out = "" if report["held_out_loss"] is None else f"{report['held_out_loss']:.3f}"
        lines.append(
            f"| {report['name']}.onnx | {_total(report['demonstrations'])} | {_total(report['rows'])} "
            f"| {_total(report['failed_replays'])} | {schedule['steps']} x {schedule['batch']} "
            f"| {report['parameters']:,} | {report['minutes']:.1f} | {report['loss']:.3f} | {held_out} "
            f"| `{report['sha256'][:16]}` |"
        )
    first = reports[0]
    machine = first["machine"]
    lines += ["", f"Machine: {machine['processor']}, {machine['cores']} cores; PyTorch {first['torch']}."]
    lines += [f"Seed {first['seed']}. Commit {first['commit']}.", "", "Commands:", ""]
    lines += [f"    {command}" for command in dict.fromkeys(report["command"] for report in reports)]
    lines += ["", "Data (SHA-256):", ""]
    files = {name: value for report in reports for name, value in report["data"].items()}
    return lines + [f"- {name} `{value}`" for name, value in files.items()]


def _total(counts: Record) -> int:
    return sum(counts.values())
