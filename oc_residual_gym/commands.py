"""What all commands do with errors that a user can cause: one line, an exit code, and no traceback."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from pathlib import Path

from oc_residual_gym.errors import SettingsError

INVALID, INTERRUPTED = 2, 130
"""Exit codes after an error that a user can cause, and after Ctrl+C."""
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, or give another place"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "give a place that you may write, or the rights to it"),
    errno.ENOENT: "it may have been removed meanwhile",
    errno.ENOLCK: "its file system has no locks: give a place on a local disk",
}
"""What to do about an error of the operating system."""


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
