"""The command ``python -m leaderboard``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from leaderboard import LeaderboardError
from leaderboard.about import EXAMPLE
from leaderboard.entry import ENTRIES, ENTRY_FILE, Entry, load_entries
from leaderboard.limits import MEMORY_GIB, WORLDS
from oc_residual_gym.cli import positive
from oc_residual_gym.command_line import HelpFormatter, add_version, ends_with_its_reader, run_command
from oc_residual_gym.errors import outside_text

SITE = Path("results/site")
WORK = Path("results/verify")


@ends_with_its_reader
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 success, 1 a failed check, 2 a user error, 130 interrupted."""
    options = _parser().parse_args(arguments)

    def work() -> int:
        for needed in ("jinja2", "jsonschema", "markdown_it"):
            if importlib.util.find_spec(needed) is None:
                raise LeaderboardError(f"this needs {needed}: pip install -c constraints.txt -e '.[leaderboard]'")
        return int(options.run(options))

    out = getattr(options, "out", None) or getattr(options, "work", None)
    resumes = options.command == "verify"
    return run_command(f"leaderboard {options.command}", work, mistakes=(LeaderboardError,), out=out, resumes=resumes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description="The leaderboard, from a clone.")
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    formatter = HelpFormatter

    text = "make an entry from evaluations on the split test"
    submit = commands.add_parser("submit", help=text, description=text, formatter_class=formatter)
    submit.add_argument("--example", action="store_true", help="print an example of the file for --about, and exit")
    submit.add_argument("--id", help="name of the entry's folder: a to z, 0 to 9, hyphens")
    submit.add_argument("--about", type=Path, metavar="FILE", help="TOML file that describes the entry")
    text = "--out folders of oc-residual evaluate, or of baselines compare"
    submit.add_argument("--evaluations", type=Path, nargs="+", default=(), metavar="DIR", help=text)
    text = "which of their residual policies, if there are several, by its name: zero, planner, oracle, trained, a path"
    submit.add_argument("--residual", metavar="NAME", help=text)
    text = "--out folders of baselines train-residual, one per task"
    submit.add_argument("--trainings", type=Path, nargs="+", default=(), metavar="DIR", help=text)
    text = "--out folders of oc-residual real run, one per task"
    submit.add_argument("--real", type=Path, nargs="+", default=(), metavar="DIR", help=text)
    submit.add_argument("--out", type=Path, default=ENTRIES, metavar="DIR", help="folder of the entries")
    submit.add_argument("--replace", action="store_true", help="replace an existing entry")
    submit.set_defaults(run=_submit)

    text = "check the files and policies of entries"
    validate = commands.add_parser("validate", help=text, description=text, formatter_class=formatter)
    _add_entries(validate)
    validate.set_defaults(run=_validate)

    text = "run the rows of entries again, and record whether they match the claims"
    verify = commands.add_parser("verify", help=text, description=text, formatter_class=formatter)
    _add_entries(verify)
    verify.add_argument("--rows", type=int, metavar="N", help="only N random rows of each cell; by default all")
    verify.add_argument("--worlds", type=positive, default=WORLDS, help="episodes that run in parallel, 64 at most")
    verify.add_argument("--memory", type=float, default=MEMORY_GIB, metavar="GIB", help="memory limit of a process")
    text = "folder for rows until the verdict; an interrupted verification resumes there"
    verify.add_argument("--work", type=Path, default=WORK, metavar="DIR", help=text)
    verify.set_defaults(run=_verify)

    text = "write the site: a folder of static files that needs no server"
    build = commands.add_parser("build", help=text, description=text, formatter_class=formatter)
    build.add_argument("--out", type=Path, default=SITE, metavar="DIR", help="folder of the site")
    build.set_defaults(run=_build)
    return parser


def _add_entries(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help="ids, or folders")
    parser.add_argument("--all", action="store_true", help="all entries of the board")


def _entries(options: argparse.Namespace) -> list[Entry]:
    if options.all == bool(options.entries):
        raise LeaderboardError("say which entries: their ids, their folders, or --all")
    if options.all:
        if not (entries := load_entries()):
            raise LeaderboardError(f"there are no entries in {ENTRIES}: `submit` makes one")
        return entries
    return [_entry(name) for name in options.entries]


def _entry(name: str) -> Entry:
    """The entry with this id on the board, or in this folder."""
    own = ENTRIES / name
    if "/" not in name and own.is_dir():
        return Entry(own)
    if Path(name).is_dir():
        return Entry(Path(name).absolute())
    there = ", ".join(entry.id for entry in load_entries()) or "none yet"
    raise LeaderboardError(f"there is no entry {name!r}, nor such a folder; the entries are: {there}")


def _submit(options: argparse.Namespace) -> int:
    if options.example:
        print(EXAMPLE, end="")
        return 0
    if options.id is None or options.about is None or not (options.evaluations or options.real):
        raise LeaderboardError(
            "give --id, --about and --evaluations (or --real); --example shows what goes into --about"
        )
    from leaderboard.submit import SubmitRequest, submit

    entry, left_out = submit(
        SubmitRequest(
            options.id,
            options.about,
            options.evaluations,
            options.residual,
            options.trainings,
            options.real,
            options.out,
            options.replace,
        )
    )
    print(f"{entry.folder / ENTRY_FILE}: in {', '.join(entry.tracks)}")
    for problem in left_out:
        print(f"not in {problem}", file=sys.stderr)
    return _show_problems([entry])


def _validate(options: argparse.Namespace) -> int:
    return _show_problems(_entries(options))


def _show_problems(entries: Sequence[Entry]) -> int:
    """Validate ``entries``, print their problems, and return the exit code."""
    from tqdm import tqdm

    from leaderboard.validate import validate

    wrong = 0
    for entry in tqdm(entries, desc="checking", unit="entry", disable=None):
        try:
            problems = validate(entry)
            said = "wrong" if problems else "valid"
        except LeaderboardError as error:
            problems, said = [str(error)], "not checked to the end"
        wrong += bool(problems)
        tqdm.write(outside_text(f"{entry.id}: {said}"))
        for problem in problems:
            tqdm.write(f"  {outside_text(problem)}")
    return 1 if wrong else 0


def _verify(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from leaderboard import tracks
    from leaderboard.verdict import risk
    from leaderboard.verify import VerifyRequest, verify

    request = VerifyRequest(options.work, options.rows, options.worlds, options.memory)
    code = 0
    for outcome in verify(_entries(options), request):
        tqdm.write(outside_text(f"{outcome.id}: {outcome.verdict}: {outcome.reason}"))
        code = code if outcome.is_fine else 1
    if options.rows is not None:
        risks = risk(tracks.EPISODES, options.rows).items()
        missed = ", ".join(f"{float(share):.0%} false: {chance:.2g}" for share, chance in risks)
        print(f"chance that {options.rows} random rows of a cell miss its false rows: {missed}")
    return code


def _build(options: argparse.Namespace) -> int:
    from leaderboard.site.build import build
    from leaderboard.validate import check_files

    right = []
    for entry in load_entries():
        problems = check_files(entry)
        for problem in problems:
            print(outside_text(f"{entry.id} is left out: {problem}"), file=sys.stderr)
        right += [] if problems else [entry]
    build(right, options.out)
    print(options.out / "index.html")
    return 0
