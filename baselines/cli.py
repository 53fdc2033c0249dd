"""Train, compare and publish base and residual policies."""

# Each command imports what it needs when it runs, so that ``--help`` is instant.

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines import BaselineError
from baselines.residual.algorithms import ALGORITHMS, TEACHERS
from demos_replay.log import LogError
from oc_residual_gym.cli import TASK, add_engine_options, engine_of, positive
from oc_residual_gym.command_line import HelpFormatter, add_version, ends_with_its_reader, run_command

BASES = ("bc", "bc-few", "vla")
"""Base policies that ``train-base`` makes."""


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 for success, 1 for a failed training, 2 for invalid input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    options.command_line = shlex.join(["python", "-m", "baselines", *given])
    return run_command(
        f"baselines {options.command}",
        lambda: options.run(options),
        mistakes=(BaselineError, LogError),
        out=getattr(options, "out", None),
        resumes=options.command in ("train-base", "train-residual", "sweep", "compare"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m baselines", description=__doc__)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    formatter = HelpFormatter

    text = "train a base policy on replayed demonstrations and export it to ONNX; resumes where it was interrupted"
    train = commands.add_parser("train-base", help=text, description=text, formatter_class=formatter)
    text = "state-based policies, the same from few demonstrations, or the visual policy"
    train.add_argument("--base", required=True, choices=BASES, help=text)
    train.add_argument("--task", default="all", help=f'{TASK}, or "all"')
    train.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="files of demos-replay")
    train.add_argument("--seed", type=int, default=0, help="seed of weights, batches and noise")
    train.add_argument("--out", type=Path, metavar="DIR", help="folder of the result (default: results/base/BASE)")
    train.add_argument("--steps", type=positive, help="training steps instead of the recipe's, for a trial")
    train.add_argument("--threads", type=positive, default=1, help="PyTorch threads; other numbers round differently")
    train.set_defaults(run=_train_base)

    text = "train a residual policy on a frozen base policy and export it to ONNX; resumes where it was interrupted"
    residual = commands.add_parser("train-residual", help=text, description=text, formatter_class=formatter)
    residual.add_argument("--task", required=True, help=TASK)
    residual.add_argument("--algo", default="sac", choices=ALGORITHMS, help="algorithm of Stable-Baselines3")
    residual.add_argument("--base", default="bc", help='base policy, as for gym.make: "bc", "vla", an .onnx file, ...')
    teacher = "whom to imitate first; with none, reinforcement learning starts at the base policy"
    residual.add_argument("--teacher", default="none", choices=TEACHERS, help=teacher)
    residual.add_argument("--seed", type=_seed, default=0, help="seed of weights, exploration and episodes")
    text = "folder of the result (default: results/residual/TASK-BASE-ALGO-SEED)"
    residual.add_argument("--out", type=Path, metavar="DIR", help=text)
    residual.add_argument("--steps", type=positive, help="environment steps instead of the settings', for a trial")
    residual.add_argument(
        "--threads", type=positive, default=1, help="PyTorch and simulation threads; other numbers round differently"
    )
    residual.set_defaults(run=_train_residual)

    text = "train residual policies for all tasks, algorithms and seeds given; resumes where it was interrupted"
    sweep = commands.add_parser("sweep", help=text, description=text, formatter_class=formatter)
    sweep.add_argument("--task", nargs="+", default=["all"], metavar="TASK", help='names of tasks, or "all"')
    sweep.add_argument("--base", default="bc", help='base policy: "bc", "vla", an .onnx file, ...')
    sweep.add_argument("--algo", nargs="+", default=["sac"], choices=ALGORITHMS, help="algorithms of Stable-Baselines3")
    sweep.add_argument("--teacher", default="none", choices=TEACHERS, help=teacher)
    sweep.add_argument("--seeds", nargs="+", type=_seed, default=[0], metavar="SEED", help="training seeds")
    sweep.add_argument("--steps", type=positive, help="environment steps instead of the settings', for a trial")
    text = "folder for the table, with one folder per training"
    sweep.add_argument("--out", type=Path, default=Path("results/residual"), metavar="DIR", help=text)
    add_engine_options(sweep)
    sweep.set_defaults(run=_sweep)

    text = "evaluate a base policy alone, with residual, planner and oracle; resumes where it was interrupted"
    compare = commands.add_parser("compare", help=text, description=text, formatter_class=formatter)
    text = 'base policy: "vla", "bc", an .onnx file, ...; "auto": the one that the files of --residual name, and for '
    text += '"trained" "vla", or without OpenGL the default base policy'
    compare.add_argument("--base", default="auto", help=text)
    compare.add_argument("--task", nargs="+", default=["all"], metavar="TASK", help='names of tasks, or "all"')
    compare.add_argument("--episodes", type=positive, default=50, help="episodes per task: seeds 0 to N-1 of the split")
    compare.add_argument("--split", default="test", help='"train", "val" or "test"')
    text = 'residual policy: "trained", an .onnx file, or a folder with a TASK.onnx for each task'
    compare.add_argument("--residual", default="trained", help=text)
    text = "folder for table, plot, summary and episodes"
    compare.add_argument("--out", type=Path, default=Path("results/compare"), metavar="DIR", help=text)
    add_engine_options(compare)
    compare.set_defaults(run=_compare)

    text = "collect the residual policies of finished trainings on one base policy in a folder, with a card"
    publish = commands.add_parser("publish", help=text, description=text, formatter_class=formatter)
    publish.add_argument("trainings", type=Path, nargs="+", metavar="TRAINING", help="--out of train-residual")
    publish.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of TASK.onnx files and the card"
    )
    publish.add_argument("--comparison", type=Path, metavar="DIR", help="--out of compare, for the card")
    text = "--out of oc-residual evaluate, to list each training seed"
    publish.add_argument("--evaluations", type=Path, nargs="+", default=(), metavar="DIR", help=text)
    text = "Markdown for the section Notes; kept in DIR, and used again when none is given"
    publish.add_argument("--notes", type=Path, metavar="FILE", help=text)
    publish.set_defaults(run=_publish)

    text = "write a video of one episode, with the base policy alone beside base and residual: .gif or .mp4"
    film = commands.add_parser("film", help=text, description=text, formatter_class=formatter)
    film.add_argument("--task", required=True, help=TASK)
    film.add_argument("--base", default="bc", help='base policy: "bc", "vla", an .onnx file, ...')
    film.add_argument(
        "--residual", default="trained", help='"trained", "planner", "oracle", an .onnx file, or a folder of them'
    )
    film.add_argument("--domain", default="twin", help='physics: "nominal" or "twin"')
    film.add_argument("--errors", default="tracker", help='pose errors: "clean", "paper" or "tracker"')
    film.add_argument("--split", default="test", help='"train", "val" or "test"')
    which = film.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="seed of the episode in the split")
    text = "--out of compare: shows the first seed on which the base policy fails and the residual succeeds"
    which.add_argument("--compared", type=Path, metavar="DIR", help=text)
    film.add_argument("--speed", type=positive, default=2, help="1 is real time")
    film.add_argument("--out", type=Path, required=True, metavar="FILE", help="what to write: .gif or .mp4")
    film.set_defaults(run=_film)

    text = "rewrite a trained policy's card, with success rates from evaluations"
    card = commands.add_parser("card", help=text, description=text, formatter_class=formatter)
    card.add_argument("folder", type=Path, metavar="DIR", help="--out of train-base")
    card.add_argument("evaluations", type=Path, nargs="*", metavar="EVALUATION", help="--out of oc-residual evaluate")
    text = "Markdown for the section Notes; kept in DIR, and used again when none is given"
    card.add_argument("--notes", type=Path, metavar="FILE", help=text)
    text = "--data of train-base, to count failed replays from the reports beside the files"
    card.add_argument("--data", type=Path, nargs="+", default=(), metavar="FILE", help=text)
    card.set_defaults(run=_card)
    return parser


def _train_base(options: argparse.Namespace) -> None:
    from oc_residual_gym.evaluation.settings import resolve_tasks

    tasks = resolve_tasks(options.task)
    try:
        from baselines.train_base import TrainBaseRequest, train_base
    except ImportError as error:
        raise BaselineError(f"training needs {error.name}: pip install -c constraints.txt -e '.[train]'") from error
    out = options.out or Path("results/base") / options.base
    request = TrainBaseRequest(
        options.base,
        tasks,
        tuple(options.data),
        out,
        options.seed,
        options.command_line,
        options.steps,
        options.threads,
    )
    for path in train_base(request):
        print(path)


def _seed(text: str) -> int:
    """Parse a seed that all random generators accept."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError("must be 0 to 2**32 - 1")
    return value


def _check_training_packages() -> None:
    for needed in ("stable_baselines3", "tensorboard", "onnx"):
        if importlib.util.find_spec(needed) is None:
            raise BaselineError(f"training needs {needed}: pip install -c constraints.txt -e '.[train]'")


def _train_residual(options: argparse.Namespace) -> None:
    _check_training_packages()
    from baselines.residual.train import TrainResidualRequest, train_residual
    from baselines.sweep import Training
    from oc_residual_gym.registration import task_name

    task = task_name(options.task)
    name = Training(task, options.base, options.algo, options.teacher, options.seed).name
    request = TrainResidualRequest(
        task,
        options.base,
        options.algo,
        options.seed,
        options.out or Path("results/residual") / name,
        options.command_line,
        options.teacher,
        options.steps,
        options.threads,
    )
    print(train_residual(request))


def _sweep(options: argparse.Namespace) -> int:
    _check_training_packages()
    from baselines.sweep import TABLE_FILE, SweepRequest, sweep
    from oc_residual_gym.engines.local import LocalEngine

    request = SweepRequest(
        tuple(options.task),
        options.base,
        tuple(options.algo),
        options.teacher,
        tuple(options.seeds),
        options.steps,
        options.out,
        options.command_line,
    )
    with engine_of(options) as engine, LocalEngine(1) as process:
        summary, table = sweep(request, engine or process)
    print(table)
    print(f"written: {options.out / TABLE_FILE}")
    return 1 if summary["failures"] else 0


def _compare(options: argparse.Namespace) -> None:
    from baselines.auto_base import AUTO, auto_base
    from baselines.compare import CompareRequest, run_comparison

    request = CompareRequest(
        auto_base(options.residual) if options.base == AUTO else options.base,
        options.residual,
        tuple(options.task),
        options.split,
        options.episodes,
        options.out,
        options.command_line,
    )
    with engine_of(options) as engine:
        print(run_comparison(request, engine)[1])
    print(f"written: {', '.join(map(str, request.reports))}; the episodes are in {request.runs}")


def _publish(options: argparse.Namespace) -> None:
    from baselines.residual.publish import publish

    print(publish(options.trainings, options.comparison, options.evaluations, options.out, options.notes))


def _film(options: argparse.Namespace) -> None:
    from baselines.film import film, seed_to_show
    from oc_residual_gym.evaluation.settings import EvaluationSettings

    settings = EvaluationSettings(
        (options.task,), options.base, options.residual, options.domain, options.errors, options.split
    )
    seed = seed_to_show(settings, options.compared) if options.seed is None else options.seed
    outcome = film(settings, seed, options.out, options.speed)
    print(f"{options.out}: seed {seed}; {outcome}")


def _card(options: argparse.Namespace) -> None:
    from baselines.cards import write_card
    from baselines.replays import add_replays

    if options.data:
        add_replays(options.folder, options.data)
    print(write_card(options.folder, options.evaluations, options.notes))
