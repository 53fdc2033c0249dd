"""Write the site: a folder of static files that needs no server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from leaderboard import LeaderboardError
from leaderboard.entry import VERIFICATIONS, Entry, replace_folder
from leaderboard.site.board import make_board
from leaderboard.site.pages import BOARD_DATA, site_files
from oc_residual_gym.files import write_text

STATIC = Path(__file__).parent / "static"
TOP = {"index.html", "compare.html", "submit.html", "schema.json", "data", "method", "static"}
"""Names of everything in a site's folder."""


def build(entries: Sequence[Entry], out: Path, verifications: Path = VERIFICATIONS) -> None:
    """Build the site of ``entries`` in the folder ``out``, and replace an earlier site there.

    Two builds of the same entries and verifications are identical in every byte.

    Args:
        entries: entries whose files are valid (``check_files``).
        out: folder of the site; open its index.html.
        verifications: folder of the records of ``verify``.

    Raises:
        LeaderboardError: ``out`` holds something that is not a site.
    """
    _check_replaceable(out)
    files = site_files(make_board(entries, verifications))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(STATIC, temporary / "static")
        for name, text in files.items():
            write_text(temporary / name, text)
        replace_folder(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        return
    present = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if not present or ((out / BOARD_DATA).is_file() and present <= TOP):
        return
    raise LeaderboardError(f"{out} holds more than a site of the board; choose another --out or remove it")
