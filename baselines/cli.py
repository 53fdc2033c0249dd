"""The commands of ``python -m baselines``. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines import BaselineError
from demos_replay.log import LogError
from oc_residual_gym.cli import positive
from oc_residual_gym.evaluation import SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 is success, 2 a mistake in what was asked for."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    options.command_line = shlex.join(["python", "-m", "baselines", *given])
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on from the last checkpoint", file=sys.stderr)
        return 130
    except (BaselineError, LogError, SettingsError, OSError) as error:
        print(f"baselines {options.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m baselines", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    formatter = argparse.ArgumentDefaultsHelpFormatter

    text = "train a base policy from replayed demonstrations and export it to ONNX; resumes where it was interrupted"
    train = commands.add_parser("train-base", help=text, description=text, formatter_class=formatter)
    train.add_argument("--base", required=True, choices=("bc", "vla"), help="state policies, or the visual one")
    train.add_argument("--task", default="all", help='name of a task, or "all"')
    train.add_argument("--data", type=Path, nargs="+", required=True, metavar="FILE", help="files of demos-replay")
    train.add_argument("--seed", type=int, default=0, help="of weights, batches and noise")
    train.add_argument("--out", type=Path, metavar="DIR", help="folder of the result (default: results/base/BASE)")
    train.add_argument("--steps", type=positive, help="training steps in place of the recipe's, for a trial")
    train.add_argument("--threads", type=positive, default=1, help="of PyTorch; other numbers round differently")
    train.set_defaults(run=_train_base)

    text = "write a trained policy's card again, with the success that evaluations measured"
    card = commands.add_parser("card", help=text, description=text, formatter_class=formatter)
    card.add_argument("folder", type=Path, metavar="DIR", help="--out of train-base")
    card.add_argument("evaluations", type=Path, nargs="*", metavar="EVALUATION", help="--out of oc-residual evaluate")
    text = "Markdown for the section Notes; kept in DIR, and used again when none is given"
    card.add_argument("--notes", type=Path, metavar="FILE", help=text)
    text = "--data of train-base, to count failed replays again from the reports beside the files"
    card.add_argument("--data", type=Path, nargs="+", default=(), metavar="FILE", help=text)
    card.set_defaults(run=_card)
    return parser


def _train_base(options: argparse.Namespace) -> None:
    from oc_residual_gym.evaluation.evaluator import resolve_tasks

    tasks = resolve_tasks(options.task)
    try:
        from baselines.train_base import Request, train_base
    except ImportError as error:
        raise BaselineError(f"training needs {error.name}: pip install -e '.[train,dev]'") from error
    out = options.out or Path("results/base") / options.base
    request = Request(
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


def _card(options: argparse.Namespace) -> None:
    from baselines.cards import write_card
    from baselines.replays import add_replays

    if options.data:
        add_replays(options.folder, options.data)
    print(write_card(options.folder, options.evaluations, options.notes))
