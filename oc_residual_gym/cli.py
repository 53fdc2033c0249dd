"""The command ``oc-residual``. Each command imports what it needs when it runs, so that ``--help`` is instant."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oc_residual_gym.command_line import (
    HelpFormatter,
    Outcome,
    add_completion,
    add_json_option,
    add_version,
    ends_with_its_reader,
    run_command,
)
from oc_residual_gym.engines import Engine
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.real import cli as real_commands
from oc_residual_gym.registration import env_id, look_in_current_folder

TASK = 'name of a task, or "mypackage.module:MyTask"'
DESCRIPTION = "Object-centric residual reinforcement learning on a frozen manipulation policy."


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0 for success, 1 for a failed check, 2 for invalid input."""
    look_in_current_folder()
    options = _parser().parse_args(arguments)
    if options.json and (options.json.is_dir() or options.json.absolute().parent.is_file()):
        print(f"oc-residual {options.command}: cannot write {options.json}; give another --json FILE", file=sys.stderr)
        return 2
    options.command_line = shlex.join(["oc-residual", *(sys.argv[1:] if arguments is None else arguments)])

    def work() -> int:
        code, result = options.run(options)
        if options.json:
            from oc_residual_gym.files import write_json

            write_json(options.json, result)
        return int(code)

    out = getattr(options, "out", None) or options.json
    return run_command(f"oc-residual {options.command}", work, out=out, resumes=options.command == "evaluate")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="oc-residual", description=DESCRIPTION)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        return _add_command(commands, name, run, text)

    command("tasks", _tasks, "list the tasks: id, instruction, success rule, time limit")

    evaluate = command("evaluate", _evaluate, "run episodes of a base and a residual policy, and summarise them")
    evaluate.add_argument("--task", default="all", help=f'{TASK}, or "all"')
    _add_policy_options(evaluate)
    evaluate.add_argument("--episodes", type=int, default=50, help="episodes per task: seeds 0 to N-1 of the split")
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results; resumes there")
    evaluate.add_argument("--worlds", type=positive, default=32, help="episodes that run at a time in each process")
    add_engine_options(evaluate)

    compare = command("compare", _compare, "compare two finished evaluations, paired by episode")
    compare.add_argument("reference", type=Path, help="folder of an evaluation")
    compare.add_argument("candidate", type=Path, help="folder of an evaluation of the same episodes")
    compare.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of table, plot and summary")

    bench = command("bench", _bench, "measure speed: steps, overhead above physics, resets, images, start-up")
    bench.add_argument("--task", default="all", help=f'{TASK}, or "all"')

    render = command("render", _render, "render one episode as a video (.mp4, .gif), or its first picture (.png)")
    render.add_argument("--task", required=True, help=TASK)
    _add_policy_options(render)
    render.add_argument("--seed", type=int, default=0, help="seed of the episode in the split")
    render.add_argument("--step", type=int, default=0, help="control steps before the first picture")
    render.add_argument("--size", type=_size, default="640x480", metavar="WxH", help="width and height in pixels")
    render.add_argument("--camera", default="person", help='"person", "shoulder" or "wrist"')
    render.add_argument("--out", type=Path, required=True, metavar="FILE", help="what to write: .png, .mp4 or .gif")

    command("check", _check, "check whether this machine is ready, and what to install if it is not")
    real_commands.add_commands(commands, _add_command)
    add_completion(parser)
    return parser


def _add_command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, formatter_class=HelpFormatter)
    add_json_option(sub, run)
    return sub


def _add_policy_options(parser: argparse.ArgumentParser) -> None:
    text = (
        'base policy: "bc", "vla", "hold", "expert" or an .onnx file; by default "bc", or "hold" for a task without it'
    )
    parser.add_argument("--base", help=text)
    text = '"zero", "planner", "oracle", "trained", a .onnx file, or a folder with a TASK.onnx for each task'
    parser.add_argument("--residual", default="zero", help=text)
    parser.add_argument(
        "--domain",
        default="nominal",
        help='physics: "nominal", "randomised" (for training) or "twin" (never train in it)',
    )
    parser.add_argument("--errors", default="paper", help='pose errors: "clean", "paper", "tracker" or "lasting"')
    parser.add_argument("--split", default="val", help='"train", "val" or "test"')


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose where a command's work runs. They do not affect the results."""
    text = "where the work runs: processes on this machine, or a Ray cluster"
    parser.add_argument("--engine", default="local", choices=("local", "ray"), help=text)
    text = 'for --engine ray: "HOST:PORT" or "auto" (default) joins a cluster, "local" starts one on this machine'
    parser.add_argument("--address", help=text)
    text = "jobs at a time; by default 1, or the number of cores of the Ray cluster"
    parser.add_argument("--workers", type=positive, metavar="N", help=text)


@contextmanager
def engine_of(options: argparse.Namespace) -> Iterator[Engine | None]:
    """The engine chosen by the options; ``None`` means this process. Raises ``SettingsError`` if it is unavailable."""
    if options.engine == "ray":
        from oc_residual_gym.engines.cluster import RayEngine

        with RayEngine(options.address or "auto", options.workers) as cluster:
            yield cluster
        return
    if options.address is not None:
        raise SettingsError(f"--address {options.address} is for a Ray cluster: give --engine ray with it")
    if options.workers in (None, 1):
        yield None
        return
    from oc_residual_gym.engines.local import LocalEngine

    with LocalEngine(options.workers) as processes:
        yield processes


def positive(text: str) -> int:
    """Parse an option's value as an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _size(text: str) -> tuple[int, int]:
    """Parse "640x480" (width x height); return (height, width)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 640x480")
    return int(height), int(width)


def _tasks(options: argparse.Namespace) -> Outcome:
    from oc_residual_gym.tasks import TASKS

    listed = [
        {
            "id": env_id(task.name),
            "task": task.name,
            "instruction": task.instruction,
            "success_rule": task.success_rule,
            "max_episode_steps": task.max_episode_steps,
        }
        for task in TASKS.values()
    ]
    for entry in listed:
        print(f"{entry['id']}  ({entry['max_episode_steps']} steps)")
        print(f"    instruction: {entry['instruction']}")
        print(f"    success:     {entry['success_rule']}")
    return 0, listed


def _evaluate(options: argparse.Namespace) -> Outcome:
    from oc_residual_gym.evaluation.evaluator import evaluate
    from oc_residual_gym.evaluation.settings import EvaluationSettings, resolve_tasks
    from oc_residual_gym.policies import DEFAULT_BASE

    settings = EvaluationSettings(
        tasks=resolve_tasks(options.task, options.base or DEFAULT_BASE),
        base=options.base,
        residual=options.residual,
        domain=options.domain,
        errors=options.errors,
        split=options.split,
        episodes=options.episodes,
    )
    with engine_of(options) as engine:
        summary = evaluate(settings, options.out, worlds=options.worlds, engine=engine, command=options.command_line)
    for cell in summary["cells"]:
        rate = f"{cell['success_rate']:6.1%} [{cell['ci_low']:.1%}, {cell['ci_high']:.1%}]"
        failures = ", ".join(f"{kind} {count}" for kind, count in cell["failures"].items())
        print(f"{cell['task']:12} {rate:24} of {cell['episodes']}" + (f"   failures: {failures}" if failures else ""))
    return 0, summary


def _compare(options: argparse.Namespace) -> Outcome:
    from oc_residual_gym.evaluation.comparison import compare

    summary, table = compare(options.reference, options.candidate, options.out)
    print(table, end="")
    return 0, summary


def _bench(options: argparse.Namespace) -> Outcome:
    from oc_residual_gym.bench import BASES, bench, table
    from oc_residual_gym.errors import RenderError
    from oc_residual_gym.evaluation.settings import resolve_tasks

    try:
        result = bench(resolve_tasks(options.task, BASES[0]))
    except RenderError as error:
        print(f"oc-residual bench: {error}", file=sys.stderr)
        return 1, {"error": str(error)}
    print(table(result), end="")
    return 0, result


def _render(options: argparse.Namespace) -> Outcome:
    from oc_residual_gym.errors import RenderError
    from oc_residual_gym.evaluation.settings import EvaluationSettings
    from oc_residual_gym.video import render_episode

    settings = EvaluationSettings(
        (options.task,), options.base, options.residual, options.domain, options.errors, options.split
    )
    try:
        count = render_episode(settings, options.seed, options.out, options.camera, options.size, options.step)
    except RenderError as error:
        print(f"oc-residual render: {error}", file=sys.stderr)
        return 1, {"error": str(error)}
    print(f"{options.out}: {count} picture{'s' if count > 1 else ''} of {settings.tasks[0]}, seed {options.seed}")
    return 0, {"file": str(options.out), "pictures": count, "seed": options.seed}


def _check(options: argparse.Namespace) -> Outcome:
    from oc_residual_gym.check import check, show

    return show(check())


if __name__ == "__main__":
    sys.exit(main())
