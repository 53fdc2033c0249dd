"""What command lines share: version, help, shell completion, JSON output, readers that end early, and users' errors.

An error that a user can cause ends a command with one line, an exit code, and no traceback.
"""

from __future__ import annotations

import argparse
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import shtab

from oc_residual_gym.errors import SettingsError

Outcome = tuple[int, Any]
"""Exit code, and the content of the --json file."""
STANDARD_OUTPUT = Path("-")
"""FILE of ``--json`` that means standard output."""
CLOSED_PIPE = 128 + 13
"""Exit code where nobody reads standard output any more: what shells report for a program that SIGPIPE (13) ended."""
INVALID, INTERRUPTED = 2, 130
"""Exit codes after an error that a user can cause, and after Ctrl+C."""
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, or give another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "give a place that you may write, or the rights to it"),
    errno.ENOENT: "it may have been removed meanwhile",
    errno.ENOLCK: "its file system has no locks: give a place on a local disk",
}
"""What to do about an error of the operating system."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds an option's default to its help, unless the default is that the option is not given."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        left_out = action.default is None or action.default is False or action.default in ((), [])
        return action.help if left_out else super()._get_help_string(action)


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``, the version of this package."""
    version = f"{parser.prog} {metadata.version('oc-residual-gym')}"
    parser.add_argument("--version", action="version", version=version)


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add ``--print-completion SHELL`` to an installed command; call it when the parser has all commands."""
    shtab.add_argument_to(parser, "--print-completion", help="print a script that completes this command in a shell")
    _complete_paths(parser)


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command)
        elif action.type is Path:
            cast(Any, action).complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE


def add_json_option(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], Outcome]) -> None:
    """Add ``--json FILE`` to the parser of a command, and set ``run`` as the default of ``run``.

    With ``--json -``, only the result is printed to standard output; what ``run`` prints goes to standard error.
    """
    text = 'also write the result to FILE; "-" is standard output, and all other text goes to standard error'
    parser.add_argument("--json", type=Path, metavar="FILE", help=text)
    parser.set_defaults(run=functools.partial(_run, run))


def _run(run: Callable[[argparse.Namespace], Outcome], options: argparse.Namespace) -> Outcome:
    if options.json != STANDARD_OUTPUT:
        return run(options)
    with redirect_stdout(sys.stderr):
        code, result = run(options)
    print(json.dumps(result, indent=2, allow_nan=False))
    options.json = None
    return code, result


def ends_with_its_reader(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Decorate the ``main`` of a command: where the reader of its output ends early (``| head``), it ends silently."""

    @functools.wraps(main)
    def wrapped(arguments: Sequence[str] | None = None) -> int:
        output = _Output(sys.stdout)
        with redirect_stdout(cast(TextIO, output)):
            try:
                return main(arguments)
            finally:
                output.flush()

    return wrapped


def run_command(
    name: str,
    work: Callable[[], int | None],
    *,
    mistakes: tuple[type[Exception], ...] = (),
    out: Path | None = None,
    resumes: bool = False,
) -> int:
    """Run a command; return its exit code.

    Args:
        name: the command, for messages.
        work: does the work and returns the exit code; ``None`` means 0.
        mistakes: errors that a user can cause, besides ``SettingsError`` and ``OSError``. Any other exception is a bug,
            and keeps its traceback.
        out: what the command writes, for errors that name no file.
        resumes: whether the same command, run again, continues where it ended.

    Returns:
        What ``work`` returns, 2 after an error that a user can cause, or 130 after Ctrl+C.
    """
    known: tuple[type[Exception], ...] = (SettingsError, *mistakes)
    try:
        return work() or 0
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; what was written stays valid", file=sys.stderr)
        code = INTERRUPTED
    except known as error:
        print(f"{name}: {error}", file=sys.stderr)
        return INVALID
    except OSError as error:
        print(f"{name}: {describe(error, out)}", file=sys.stderr)
        code = INVALID
    if resumes:
        print("what is finished is kept: run the same command again to resume", file=sys.stderr)
    return code


def describe(error: OSError, out: Path | None = None) -> str:
    """Where ``error`` happened (in ``out``, if it does not say), what it is and what to do, in one line."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = " or ".join(names) or (str(out) if out is not None else "")
    what = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0)
    return " ".join(
        f"{f'{where}: ' if where else ''}cannot read or write: {what}{f'; {remedy}' if remedy else ''}".split()
    )


class _Output:
    """Standard output that ends the program, without an error that others might handle, where nobody reads it."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._end()

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._end()

    def _end(self) -> NoReturn:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())  # Python flushes once more when it ends
        raise SystemExit(CLOSED_PIPE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
