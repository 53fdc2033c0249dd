"""The commands ``oc-residual real ...`` and ``oc-residual rehearse``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oc_residual_gym.errors import SettingsError

CommandMaker = Callable[[Any, str, Callable[[argparse.Namespace], Any], str], argparse.ArgumentParser]
REPORT = "oc-residual real report"
RESIDUAL = '"trained", "planner", "zero", a .onnx file, or a folder of them'
INSTALL = 'install it with pip install "oc-residual-gym[real]"'


def add_commands(commands: Any, command: CommandMaker) -> None:
    """Add ``real`` with its own commands, and ``rehearse``."""
    text = "a real FR3: check the cell, run blind trials, report on them"
    real = commands.add_parser("real", help=text, description=text)
    steps = real.add_subparsers(dest="real_command", required=True, metavar="COMMAND")

    check = command(steps, "check", _check, "test a cell before the first motion")
    _add_cell_options(check)

    run = command(steps, "run", _run, "run blind trials of base and residual in random order; can be resumed")
    _add_cell_options(run)
    run.add_argument("--base", default="bc", help='base policy, such as "bc"')
    run.add_argument("--residual", default="trained", help=RESIDUAL)
    run.add_argument("--starts", type=int, default=20, help="start poses; each gives two trials, in random order")
    run.add_argument("--split", default="test", help='where start poses come from: "train", "val" or "test"')
    run.add_argument("--dry-run", action="store_true", help="move nothing, and print the targets")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the trials")

    report = command(steps, "report", _report, "success with intervals, failures, and the sequential test STEP")
    report.add_argument("trials", type=Path, metavar="DIR", help="folder of the trials")
    report.add_argument("--decision", action="store_true", help="say only whether to continue; for a blind operator")
    text = "report even if trials are open; whoever reads it must not judge any more of them"
    report.add_argument("--unblind", action="store_true", help=text)

    rehearse = command(commands, "rehearse", _rehearse, "run trials through the robot's own client on a simulated cell")
    rehearse.add_argument("--task", required=True, help='name of a task, or "all"')
    rehearse.add_argument("--base", default="bc", help='base policy, such as "bc"')
    rehearse.add_argument("--residual", default="trained", help=RESIDUAL)
    rehearse.add_argument("--arm-alone", action="store_true", help="simulate no objects, only publish their poses")
    rehearse.add_argument("--steps", type=int, help="control steps per trial; by default the task's limit")
    rehearse.add_argument("--starts", type=int, default=1, help="start poses; each gives two trials")
    rehearse.add_argument("--speed-cap", type=float, default=0.2, metavar="M_S", help="maximum target speed in m/s")
    rehearse.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the trials")


def _add_cell_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="cell's file, see examples/cell.yaml"
    )
    parser.add_argument("--task", required=True, help='name of a task, or "mypackage.module:MyTask"')


def _needed(options: argparse.Namespace) -> None:
    """Raise ``SettingsError`` if a package that a robot needs is not installed, or the task does not exist."""
    from oc_residual_gym.registration import task_name

    for module, name in (("franky", "franky-control"), ("yaml", "pyyaml"), ("zmq", "pyzmq")):
        try:
            __import__(module)
        except ImportError as error:
            raise SettingsError(f"a robot needs {name} ({error}): {INSTALL}") from error
    if not (options.command == "rehearse" and options.task == "all"):
        options.task = task_name(options.task)


def _check(options: argparse.Namespace) -> tuple[int, Any]:
    _needed(options)
    from oc_residual_gym.check import show
    from oc_residual_gym.real.cell import load_cell
    from oc_residual_gym.real.check import check_cell

    return show(check_cell(load_cell(options.config), options.task))


def _run(options: argparse.Namespace) -> tuple[int, Any]:
    _needed(options)
    from oc_residual_gym.errors import RobotStopped
    from oc_residual_gym.real.cell import load_cell
    from oc_residual_gym.real.operator import TerminalOperator
    from oc_residual_gym.real.run import run_trials
    from oc_residual_gym.real.session import make_env, open_cell
    from oc_residual_gym.real.settings import TrialSettings

    cell = load_cell(options.config)
    settings = TrialSettings(
        options.task, cell, options.base, options.residual, options.split, options.starts, rehearsal=options.dry_run
    )
    try:
        with (
            TerminalOperator() as operator,
            open_cell(cell, options.task, operator.verdict, options.dry_run, operator.wants_stop) as world,
        ):
            summary = run_trials(
                settings, lambda: make_env(world, settings.base_policy, options.split), operator, options.out
            )
    except RobotStopped as error:
        raise SettingsError(str(error)) from error
    except KeyboardInterrupt:
        print(
            "\nThe arm is stopped. A running trial is kept as invalid; a finished one waits for its verdict. "
            "Continue with the same command"
        )
        raise
    # The full report would unblind an operator who still has to judge.
    then = f"continue with the same command; to see whether that is needed: {REPORT} {options.out} --decision"
    if not summary["open"]:
        then = f"{REPORT} {options.out}"
    print(f"{summary['judged']} of {summary['trials']} trials have a verdict: {then}")
    return 0, summary


def _report(options: argparse.Namespace) -> tuple[int, Any]:
    from oc_residual_gym.real.report import decision, markdown, report
    from oc_residual_gym.real.run import SETTINGS_FILE

    if options.decision:
        if not (options.trials / SETTINGS_FILE).exists():
            raise SettingsError(f"{options.trials} holds no trials")
        text = decision(options.trials)
        print(text)
        return 0, {"decision": text}
    summary = report(options.trials, unblind=options.unblind)
    print(markdown(summary), end="")
    return 0, summary


def _rehearse(options: argparse.Namespace) -> tuple[int, Any]:
    _needed(options)
    from oc_residual_gym.errors import RobotStopped
    from oc_residual_gym.evaluation.settings import resolve_tasks
    from oc_residual_gym.real.rehearse import Rehearsal, rehearse
    from oc_residual_gym.real.rig import RigError

    tasks, summaries = resolve_tasks(options.task, options.base), {}
    for task in tasks:
        settings = Rehearsal(
            task,
            options.base,
            options.residual,
            full_scene=not options.arm_alone,
            steps=options.steps,
            starts=options.starts,
            speed_cap=options.speed_cap,
        )
        out = options.out / task if len(tasks) > 1 else options.out
        try:
            summaries[task] = rehearse(settings, out)
        except (RigError, RobotStopped) as error:
            raise SettingsError(str(error)) from error
        for trial in summaries[task]["trials"]:
            period, distance = trial["period_ms"], trial["tracking_error_mm"]
            print(
                f"{task:12} {trial['condition']:9} {trial['steps']:4} steps, period {period['mean']} ms (99 % below "
                f"{period['p99']}), TCP {distance['mean']} mm from its target (at most {distance['max']}): "
                f"{trial['stop_reason'] or trial['verdict']}"
            )
        link = summaries[task]["link"]
        print(
            f"{task:12} link: {link['late']} of {link['answers']} answers were late, by {link['latest_ms']:.1f} ms at "
            "most; a real robot loses late answers, and stops after 20 in a row"
        )
    return 0, summaries
