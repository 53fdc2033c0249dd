"""The command ``demos-replay``. Heavy imports wait until a command needs them, so that ``--help`` is instant."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from demos_replay import LOGS
from demos_replay.log import LogError
from oc_residual_gym.cli import positive
from oc_residual_gym.command_line import HelpFormatter, add_completion, add_version, ends_with_its_reader, run_command
from oc_residual_gym.registration import look_in_current_folder

V3 = (
    "LeRobot 0.4 and later read v3.0; to convert, run there: python -m lerobot.datasets.v30.convert_dataset_v21_to_v30 "
    "--push-to-hub false --repo-id"
)
DESCRIPTION = "Inspect teleoperation logs, replay them in simulation, record new ones, and convert the result."


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 no usable result, 2 a user error, 130 interrupted."""
    look_in_current_folder()
    options = _parser().parse_args(arguments)
    options.command_line = shlex.join(["demos-replay", *(sys.argv[1:] if arguments is None else arguments)])
    return run_command(
        f"demos-replay {options.command}",
        lambda: options.run(options),
        mistakes=_mistakes(),
        out=getattr(options, "out", None),
        resumes=options.command in ("replay", "record"),
    )


def _mistakes() -> tuple[type[Exception], ...]:
    """Errors that a user can cause; any other exception is a bug and shows its traceback."""
    from demos_replay.devices import DeviceError
    from demos_replay.writers import WriterError
    from oc_residual_gym.errors import RenderError

    return LogError, DeviceError, WriterError, RenderError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demos-replay", description=DESCRIPTION)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, formatter_class=HelpFormatter)
        sub.set_defaults(run=run)
        return sub

    command("logs", _logs, "list the synthetic logs that ship with this package")
    inspect = command("inspect", _inspect, "print how a log file was interpreted and what was assumed")
    inspect.add_argument("file", type=Path, help="HDF5 file")
    validate = command("validate", _validate, "check a log file and list its problems")
    validate.add_argument("file", type=Path, help="HDF5 file")

    replay = command("replay", _replay, "replay logs in simulation and write the successes to a dataset")
    replay.add_argument("files", type=Path, nargs="+", metavar="FILE", help="HDF5 log files")
    replay.add_argument("--task", help="task whose scene and success rule to use; by default the log's")
    replay.add_argument(
        "--out",
        type=Path,
        required=True,
        help="NAME.hdf5, or a folder for one file per task; NAME.mp4 for --mode states",
    )
    replay.add_argument(
        "--mode",
        choices=("dynamic", "states"),
        default="dynamic",
        help="dynamic: simulate the robot's targets and judge success; states: film the recorded states, unjudged",
    )
    replay.add_argument("--demo", help="demonstration to show with --mode states; by default the first")
    replay.add_argument(
        "--images", action="store_true", help="also record the images of both cameras, 128 x 128, per step"
    )
    replay.add_argument("--objects", type=Path, metavar="FILE", help="JSON file of start poses, in place of the log's")
    replay.add_argument("--domain", choices=("nominal", "twin"), default="nominal", help="physics domain")

    record = command("record", _record, "record demonstrations by the scripted operator, or by a person at a device")
    record.add_argument("--task", required=True, help='name of a task, or "mypackage.module:MyTask"')
    record.add_argument("--out", type=Path, required=True, metavar="FILE", help="log file; an existing one is resumed")
    who = record.add_mutually_exclusive_group(required=True)
    who.add_argument("--operator", choices=("scripted",), help="the task's expert with human-like errors")
    who.add_argument("--device", help="keyboard, spacemouse or dualsense")
    record.add_argument("--demos", type=positive, default=50, help="number of successful demonstrations")
    record.add_argument("--domain", choices=("nominal", "twin"), default="twin", help="physics domain")

    convert = command("convert", _convert, "convert a replayed dataset for another package")
    convert.add_argument("file", type=Path, help="dataset that `replay` wrote")
    text = "LeRobot v2.1 with GR00T's modality.json (for LeRobot below 0.4, openpi and GR00T), or Minari"
    convert.add_argument("--to", choices=("lerobot", "minari"), required=True, help=text)
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    convert.add_argument("--dataset-id", default="oc-residual/demos-v0", help="dataset id for Minari")
    add_completion(parser)
    return parser


def _logs(options: argparse.Namespace) -> int:
    for file in sorted(LOGS.glob("*.hdf5")):
        print(file)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from demos_replay.inspect import describe

    print(describe(options.file))
    return 0


def _validate(options: argparse.Namespace) -> int:
    from demos_replay.inspect import validate

    good, text = validate(options.file)
    print(text)
    return 0 if good else 1


def _replay(options: argparse.Namespace) -> int:
    if options.mode == "states":
        return _show(options)
    from demos_replay.job import ReplaySettings, replay_files
    from demos_replay.report import assumptions, table

    if options.demo is not None:
        raise LogError("--demo selects what --mode states shows; dynamic replay uses all demonstrations of a file")
    settings = ReplaySettings(
        tuple(options.files), options.out, options.task, options.images, options.domain, options.objects
    )
    reports = replay_files(settings, options.command_line)
    for report in reports.values():
        print(table(report))
    notes = list(dict.fromkeys(note for report in reports.values() for note in assumptions(report)))
    if notes:
        print("Assumptions:", *(f"- {note}" for note in notes), sep="\n")
    return 0 if any(entry["status"] == "success" for report in reports.values() for entry in report["demos"]) else 1


def _show(options: argparse.Namespace) -> int:
    if len(options.files) > 1 or options.images or options.domain != "nominal":
        raise LogError("--mode states shows one file as it was recorded: give one file, without --images and --domain")
    if options.out.suffix != ".mp4":
        raise LogError(f"--mode states makes a video: {options.out} must end in .mp4")
    from demos_replay.readers import open_log, read_demo
    from demos_replay.sources import find_sources, read_start_poses
    from demos_replay.states import show_states
    from oc_residual_gym.tasks import TASKS

    (file,) = options.files
    sources = find_sources([file], options.task)
    names = [source.demo for source in sources]
    if options.demo not in (None, *names):
        raise LogError(f"{file} has no demonstration {options.demo!r}; it has {', '.join(names)}")
    source = sources[0 if options.demo is None else names.index(options.demo)]
    if source.task is None:
        raise LogError(f"{source.name}: {source.reason}")
    poses = {} if options.objects is None else read_start_poses(options.objects, sources)
    with open_log(file) as (content, reader):
        log = read_demo(content, reader, source.demo)
    count = show_states(log, TASKS[source.task], options.out, poses.get(source.name))
    print(f"{options.out}: {count} frames of {source.demo}, as recorded; nothing was simulated or judged")
    return 0


def _record(options: argparse.Namespace) -> int:
    from demos_replay.record import record_person, record_scripted
    from oc_residual_gym.registration import task_name

    task = task_name(options.task)
    if options.operator:
        result = record_scripted(task, options.out, demos=options.demos, domain=options.domain)
    else:
        from demos_replay.devices import connect

        operator = connect(options.device)
        result = record_person(task, options.out, operator, demos=options.demos, domain=options.domain)
    print(
        f"{result['file']}: {result['demos']} demonstrations, {result['new']} new, from {result['seeds_tried']} tries"
    )
    return 0


def _convert(options: argparse.Namespace) -> int:
    from demos_replay.disk import check_space
    from demos_replay.writers.robomimic import demo_names, read_demos

    count = len(demo_names(options.file))
    out = options.out.resolve()
    check_space(out, options.file.stat().st_size)
    if options.to == "lerobot":
        from demos_replay.writers.lerobot import write_lerobot

        write_lerobot(read_demos(options.file), out)
    else:
        from demos_replay.writers.minari import write_minari

        write_minari(read_demos(options.file), options.dataset_id, out)
    print(f"{options.out}: {count} demonstrations")
    if options.to == "lerobot":
        print(
            f"The format is v2.1, which LeRobot below 0.4, openpi and GR00T read. {V3} {out.name} --root {out.parent}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
