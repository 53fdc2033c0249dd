"""Model cards, written from reports and evaluations: a policy's data, training and success rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from baselines import BaselineError
from oc_residual_gym.evaluation.episodes import finished_summary
from oc_residual_gym.evaluation.statistics import Estimate, stratified_bootstrap
from oc_residual_gym.files import Record, write_text
from oc_residual_gym.parsing import read_json
from oc_residual_gym.tasks import PAPER_TASKS, in_order

CARD_FILE, NOTES_FILE = "card.md", "notes.md"
_ABOUT = {
    "bc": """State-based action chunks: from filtered object poses, the gripper and the last executed target to 16
absolute end-effector targets (20 Hz, executed open loop). One network (MLP) per task, cloned from replayed
demonstrations, with the pose error models "paper" and "tracker" and the pose filter applied to the object poses.""",
    "bc-few": """State-based action chunks, as "bc": the same network, cloned plainly and from few demonstrations. It
was trained without pose errors and without recoveries from other states, and does not know which poses look alike. It
is meant to be clumsy: a base policy that leaves room to correct, and needs no rendering.""",
    "vla": """One vision-language-action network for all tasks: from two 128 x 128 cameras, the instruction's bytes and
proprioception to 16 absolute end-effector targets (20 Hz, executed open loop), cloned from replayed demonstrations. It
sees no object poses; in training, it also predicts their positions. It is a small convolutional network trained from
scratch on these tasks alone: a placeholder for a real VLA, which understands no other instruction.""",
}
_LIMITS = """- The demonstrations come from a scripted operator with human-like errors, not from people.
- Its pauses are cut out, unless the fingers move, so the policy is faster than its demonstrator.
- It imitates: away from the demonstrated states it may stall or miss. Residuals are meant to correct that."""
_SUCCESS = """Columns give the domain, the pose errors, the split, and the residual ("alone" for none). Entries are
successes of all episodes (seeds from 0), with 95 % Wilson intervals in brackets. The mean weighs all tasks equally; its
interval is a bootstrap stratified by task."""
_FAILURES = """Failed episodes by kind: `no_...` names the first milestone that was never reached; in `not_held` all
were reached, but success did not last, or came too late."""
_REPEATING = """A data file also contains that command and a report on each replay. A file made again from the same logs
with the same version has the same demonstrations, but not always the same bytes."""

Evaluation = dict[str, Record]
"""Task to its summary; all were measured in the same scenario."""


def write_card(folder: Path, evaluations: Sequence[Path] = (), notes: Path | None = None) -> Path:
    """Write the model card of the policies that ``train-base`` put into ``folder``; return its path.

    Args:
        folder: folder of the policies and their reports.
        evaluations: folders of finished ``oc-residual evaluate`` runs of exactly these policies.
        notes: Markdown file for the section "Notes"; stored in ``folder``, and reused when none is given.

    Raises:
        BaselineError: there are no policies, the notes are not text, an evaluation is of other files, or two
            evaluations measure the same.
        SettingsError: an evaluation is not finished.
    """
    reports = [read_json(path) for path in sorted(folder.glob("*.json"))]
    if not reports:
        raise BaselineError(
            f"there are no reports of trained policies in {folder}: run train-base --out {folder} first"
        )
    summaries = {path: _summary(path, reports) for path in evaluations}
    sections = {
        "Success": _success(summaries),
        "Notes": notes_lines(folder, notes),
        "Data": _data(reports),
        "Training": _training(reports),
        "Limits": [_LIMITS],
    }
    return write_sections(folder, reports[0]["policy"], _ABOUT[reports[0]["base"]], sections)


def write_sections(folder: Path, title: str, about: str, sections: Mapping[str, Sequence[str]]) -> Path:
    """Write a card into ``folder`` from the lines of its sections; skip empty sections; return the card's path."""
    lines = [f"# {title}", "", about]
    for heading, content in sections.items():
        lines += ["", f"## {heading}", "", *content] if content else []
    write_text(folder / CARD_FILE, "\n".join(lines) + "\n")
    return folder / CARD_FILE


def _summary(folder: Path, reports: Sequence[Record]) -> Record:
    """Summary of an evaluation. Raises ``BaselineError`` if it evaluated other files than those of ``reports``."""
    summary = finished_summary(folder)
    ours = {task: report["sha256"] for report in reports for task in report["tasks"]}
    for cell in summary["cells"]:
        if summary["hashes"].get("base", {}).get(cell["task"]) != ours.get(cell["task"], ""):
            raise BaselineError(f"{folder} evaluated another {cell['task']} policy: evaluate this one again")
    return summary


def notes_lines(folder: Path, given: Path | None) -> list[str]:
    """Lines of the notes: the text of ``given``, which is then stored in ``folder``, or else the stored text."""
    kept = folder / NOTES_FILE
    if given is None and not kept.exists():
        return []
    try:
        text = (given or kept).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BaselineError(f"{given or kept} is not UTF-8 text: {error}") from error
    write_text(kept, text)
    return [text.strip()] if text.strip() else []


def _success(summaries: Mapping[Path, Record]) -> list[str]:
    if not summaries:
        return ["Not evaluated yet."]
    evaluations: dict[str, Evaluation] = {}
    for folder, summary in summaries.items():
        for cell in summary["cells"]:
            measured = evaluations.setdefault(_scenario(cell), {})
            if cell["task"] in measured:
                raise BaselineError(
                    f"{folder} evaluated {cell['task']} once more in {_scenario(cell)}: give one of the two"
                )
            measured[cell["task"]] = cell
    tasks = in_order(task for cells in evaluations.values() for task in cells)
    columns = evaluations.values()
    head = ["task", *evaluations]
    rates = [[task, *(_rate(cells.get(task)) for cells in columns)] for task in tasks]
    means = ["mean of the paper's five tasks", *(_mean(cells) for cells in columns)]
    kinds = [[task, *(_kinds(cells.get(task)) for cells in columns)] for task in tasks]
    lines = [_SUCCESS, "", *_table(head, [*rates, means]), "", _FAILURES, "", *_table(head, kinds)]
    return [*lines, "", "Made by:", "", *(_made_by(summary) for summary in summaries.values())]


def _scenario(cell: Record) -> str:
    residual = "alone" if cell["residual"] == "zero" else cell["residual"]
    return ", ".join((cell["domain"], cell["errors"], cell["split"], residual))


def _rate(cell: Record | None) -> str:
    if cell is None:
        return "not measured"
    estimate = Estimate(cell["success_rate"], cell["ci_low"], cell["ci_high"])
    return f"{cell['successes']} of {cell['episodes']}: {_percent(estimate)}"


def _mean(cells: Evaluation) -> str:
    if not set(PAPER_TASKS) <= set(cells):
        return "not measured"
    outcomes = {task: np.arange(cells[task]["episodes"]) < cells[task]["successes"] for task in PAPER_TASKS}
    return _percent(stratified_bootstrap(outcomes, (0.0, 1.0)))


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _kinds(cell: Record | None) -> str:
    return "not measured" if cell is None else _counts(cell["failures"])


def _made_by(summary: Record) -> str:
    return f"- `{summary['command']}` (commit {summary['commit']}, simulation `{summary['hashes']['simulation'][:16]}`)"


def _data(reports: Sequence[Record]) -> list[str]:
    """The logs that the policies were trained on, those that were left out and why, and the data files."""
    origins = [origin for report in reports for origin in report.get("replays", {}).values()]
    rows = []
    for report in reports:
        for task, used in report["demonstrations"].items():
            mine = [origin for origin in report.get("replays", {}).values() if origin["task"] == task]
            left_out = Counter[str]()
            for origin in mine:
                left_out.update(origin["failed"])
                left_out["no log that can be replayed"] += origin["skipped"]
            if not mine:
                left_out["in the data files"] = report["failed_replays"].get(task, 0)
            rows.append([task, f"{used} of {used + left_out.total()}", _counts(+left_out), report["rows"][task]])
    lines = _table(
        ["task", "demonstrations used, of those recorded", "replays without success, left out", "rows"], rows
    )
    lines += ["", "Data files (SHA-256):", "", *_hashes(report["data"] for report in reports)]
    if not origins:
        return [*lines, "", "There were no replay reports beside these files; failures were counted in the files only."]
    lines += ["", "Replayed from these logs (SHA-256):", "", *_hashes(origin["logs"] for origin in origins)]
    lines += ["", "Replayed by:", "", *_distinct("    {}", (origin["command"] for origin in origins))]
    return [*lines, "", _REPEATING]


def _training(reports: Sequence[Record]) -> list[str]:
    head = ["file", "steps x batch", "parameters", "minutes", "loss", "held-out loss"]
    rows = []
    for report in reports:
        steps = f"{report['schedule']['steps']} x {report['schedule']['batch']}"
        held_out = "" if report["held_out_loss"] is None else f"{report['held_out_loss']:.3f}"
        size, minutes, loss = f"{report['parameters']:,}", f"{report['minutes']:.1f}", f"{report['loss']:.3f}"
        rows.append([f"{report['name']}.onnx", steps, size, minutes, loss, held_out])
    lines = [*_table(head, rows), "", "Files (SHA-256):", ""]
    lines += _hashes({f"{report['name']}.onnx": report["sha256"]} for report in reports)
    lines += ["", "Made by:", "", *_distinct("    {}", (report["command"] for report in reports)), ""]
    return lines + _distinct(
        "- {}",
        (
            f"Seed {report['seed']}; commit {report['commit']}; {report['machine']['processor']}, "
            f"{report['machine']['cores']} cores, {report['threads']} of them used; PyTorch {report['torch']}."
            for report in reports
        ),
    )


def _table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _hashes(parts: Iterable[Mapping[str, str]]) -> list[str]:
    return _distinct("- {}", (f"{name} `{value}`" for part in parts for name, value in part.items()))


def _distinct(form: str, texts: Iterable[str]) -> list[str]:
    return [form.format(text) for text in dict.fromkeys(texts)]
