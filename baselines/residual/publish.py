"""``publish``: collects the residual policies of finished trainings on one base policy, and writes their card."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from baselines import BaselineError
from baselines.cards import notes_lines, write_sections
from baselines.residual import POLICY_FILE, REPORT_FILE
from oc_residual_gym.evaluation.comparison import TABLE_FILE
from oc_residual_gym.evaluation.episodes import finished_summary
from oc_residual_gym.evaluation.report import markdown_table, percent, save_figure
from oc_residual_gym.evaluation.statistics import wilson
from oc_residual_gym.files import Record, sha256
from oc_residual_gym.parsing import read_json
from oc_residual_gym.policies.versions import NEWEST
from oc_residual_gym.residuals import UNTRAINED
from oc_residual_gym.residuals.onnx import OnnxResidual
from oc_residual_gym.tasks import TASKS

CURVES_FILE = "learning_curves.png"
_ABOUT = """Residual policies on the frozen base policy `{base}`: from a task's observation (`observation_layout`, whose
names are in each file) to a correction of the base policy's next target. One small network (MLP) per task, trained by
reinforcement learning in the physics domain `nominal` on episodes of the split `train`. Training starts at zero
correction. In training, the critics see true poses and contacts; the policy never does. The published policy is the
last checkpoint of a seed that was chosen beforehand; no best one was selected."""
_CURVES = """Success in the first 50 episodes of `val` during training, in `nominal` with `paper` errors. Shown for
information only: no choice depends on it. The first point is the base policy alone."""
_SEEDS = """Each training seed separately: successes of all episodes, 95 % Wilson intervals in brackets. The first seed
of each task is the published one."""
_LIMITS = """- Trained for one base policy, one task and one version of both; not meant for any other.
- Never trained in `twin`: success there is zero-shot, and `twin` is not a real robot.
- Trained on two cores within minutes; this may not be the best that the algorithm can do."""


@dataclass(frozen=True)
class Training:
    """A finished training and its report."""

    folder: Path
    report: Record


def publish(
    trainings: Sequence[Path], comparison: Path | None, evaluations: Sequence[Path], out: Path, notes: Path | None
) -> Path:
    """Copy the policies of ``trainings`` to ``out``/<Task>.onnx and write their card.

    Args:
        trainings: folders of ``train-residual``, all on the same base policy. The lowest seed of each task is
            published; the others are only listed in the card.
        comparison: folder of ``compare`` for the published policies; its tables become part of the card.
        evaluations: folders of ``oc-residual evaluate`` runs of the trainings' policies, to list each seed.
        out: folder for the files; can be used as ``--residual`` of ``compare`` and ``oc-residual evaluate``.
        notes: Markdown file for the section "Notes"; stored in ``out``, and reused when none is given.

    Returns:
        Path of the card.

    Raises:
        BaselineError: a training is not finished or has another base policy than the others, two have the same task and
            seed, or a comparison or evaluation is of other files.
        SettingsError: a comparison or an evaluation is not finished.
    """
    finished = sorted((_finished(folder) for folder in trainings), key=_order)
    bases = {training.report["base"] for training in finished}
    seeds = [_order(training) for training in finished]
    if len(set(seeds)) != len(seeds):
        raise BaselineError("two of the trainings are of the same task and seed: publish one of them")
    if len(bases) != 1:
        raise BaselineError(f"trainings on several base policies ({', '.join(sorted(bases))}): publish them apart")
    published: dict[str, Training] = {}
    for training in finished:
        published.setdefault(training.report["task"], training)
    sections = {
        "Success": _success(comparison, published),
        "Seeds": _seeds(finished, evaluations),
        "Training": _training(finished),
        "Notes": notes_lines(out, notes),
        "Limits": [_LIMITS],
        "Made by": _made_by(finished),
    }
    out.mkdir(parents=True, exist_ok=True)
    for task, training in published.items():
        temporary = out / f".{task}.onnx.tmp"
        shutil.copyfile(training.folder / POLICY_FILE, temporary)
        temporary.replace(out / f"{task}.onnx")
    _draw(published, out / CURVES_FILE)
    base = bases.pop()
    return write_sections(out, f"Residual policies on {base}", _ABOUT.format(base=base), sections)


def _order(training: Training) -> tuple[int, str, int]:
    task = training.report["task"]
    return list(TASKS).index(task) if task in TASKS else len(TASKS), task, training.report["seed"]


def _finished(folder: Path) -> Training:
    if not (folder / REPORT_FILE).exists():
        raise BaselineError(f"{folder} holds no finished training ({REPORT_FILE}): run train-residual --out {folder}")
    report = read_json(folder / REPORT_FILE)
    report["base"] = NEWEST.get(report["base"], report["base"])
    if not (folder / POLICY_FILE).exists() or sha256(folder / POLICY_FILE) != report["sha256"]:
        raise BaselineError(f"{folder / POLICY_FILE} is not the file that {REPORT_FILE} describes: train again")
    try:
        OnnxResidual(folder / POLICY_FILE)
    except ValueError as error:
        raise BaselineError(str(error)) from error
    return Training(folder, report)


def _success(comparison: Path | None, published: Mapping[str, Training]) -> list[str]:
    """The comparison's page without its title and plot, with headings one level lower."""
    if comparison is None:
        return ["Not compared yet."]
    hashes = finished_summary(comparison, "python -m baselines compare ...")["hashes"]
    for task, training in published.items():
        theirs = tuple(hashes.get(kind, {}).get(task) for kind in ("residual", "base"))
        if theirs != (training.report["sha256"], training.report["base_sha256"]):
            raise BaselineError(f"{comparison} compared another {task} policy, or none: run compare with this one")
    page = (comparison / TABLE_FILE).read_text(encoding="utf-8").splitlines()[1:]
    return [f"#{line}" if line.startswith("#") else line for line in page if not line.startswith("![")]


def _seeds(trainings: Sequence[Training], evaluations: Sequence[Path]) -> list[str]:
    """Success rate of each training's policy, from the evaluations."""
    by_hash = {training.report["sha256"]: training.report for training in trainings}
    measured: dict[tuple[str, int], dict[str, str]] = {}
    for folder in evaluations:
        summary = finished_summary(folder)
        for cell in summary["cells"]:
            task, hashes = cell["task"], summary["hashes"]
            report = by_hash.get(hashes.get("residual", {}).get(task))
            if report is None or cell["residual"] in UNTRAINED or hashes["base"][task] != report["base_sha256"]:
                raise BaselineError(f"{folder} evaluated another {task} policy than that of one of these trainings")
            row = measured.setdefault((task, report["seed"]), {})
            column = ", ".join((cell["domain"], cell["errors"], cell["split"]))
            if column in row:
                raise BaselineError(f"{folder} evaluated seed {report['seed']} of {task} once more in {column}")
            rate = wilson(cell["successes"], cell["episodes"])
            row[column] = f"{cell['successes']} of {cell['episodes']}: {percent(vars(rate))}"
    if not measured:
        return []
    columns = list(dict.fromkeys(column for row in measured.values() for column in row))
    rows = [[task, str(seed), *(row.get(c, "") for c in columns)] for (task, seed), row in sorted(measured.items())]
    return [_SEEDS, "", markdown_table(["task", "seed", *columns], rows, names=2)]


def _training(trainings: Sequence[Training]) -> list[str]:
    head = [
        "task",
        "algorithm",
        "seed",
        "environment steps",
        "updates",
        "minutes",
        "threads",
        "success on val at the end",
    ]
    rows = [
        [
            report["task"],
            report["algorithm"].upper(),
            str(report["seed"]),
            f"{report['steps']:,}",
            f"{report['updates']:,}",
            f"{report['minutes']:.1f}",
            str(report["threads"]),
            f"{report['curve'][-1]['success_rate']:.0%}",
        ]
        for report in (training.report for training in trainings)
    ]
    return [markdown_table(head, rows), _CURVES, "", f"![Learning curves]({CURVES_FILE})"]


def _made_by(trainings: Sequence[Training]) -> list[str]:
    reports = [training.report for training in trainings]
    lines = [f"    {report['command']}" for report in reports]
    origins = dict.fromkeys(
        f"Commit {r['commit']}; {r['machine']['processor']}, {r['machine']['cores']} cores; Stable-Baselines3 "
        f"{r['stable_baselines3']}, PyTorch {r['torch']}; simulation `{r['simulation'][:16]}`; base policy "
        f"`{(r['base_sha256'] or 'no file')[:16]}` ({r['task']})."
        for r in reports
    )
    hashes = [f"- {r['task']}, seed {r['seed']}: `{r['sha256']}`" for r in reports]
    return [*lines, "", *(f"- {origin}" for origin in origins), "", "Files (SHA-256):", "", *hashes]


def _draw(published: Mapping[str, Training], path: Path) -> None:
    """Plot the learning curves, one panel per task."""
    from matplotlib.figure import Figure

    columns = min(3, len(published))
    rows = math.ceil(len(published) / columns)
    figure = Figure(figsize=(3.0 * columns, 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for axes in panels[len(published) :]:
        axes.remove()
    for axes, (task, training) in zip(panels, published.items(), strict=False):
        curve = training.report["curve"]
        axes.plot([r["steps"] / 1000 for r in curve], [r["success_rate"] for r in curve], ".-")
        axes.set_title(task, fontsize="medium")
        axes.set_ylim(-0.03, 1.03)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("thousand environment steps", fontsize="medium")
    figure.supylabel("success on val", fontsize="medium")
    save_figure(figure, path, dpi=110)
