"""Reading whole log files in tests; the program itself reads one demonstration at a time, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from demos_replay.log import Log
from demos_replay.readers import Skipped, demo_names, open_log, read_demo_or_skip


def read_logs(path: str | Path) -> Iterator[Log | Skipped]:
    """Every demonstration of the file at ``path``, or the reason why it is skipped, in natural order.

    Raises:
        LogError: the file as a whole cannot be used.
    """
    with open_log(path) as (file, reader):
        for name in demo_names(file, reader):
            yield read_demo_or_skip(file, reader, name)
