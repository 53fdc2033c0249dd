"""The rows of an entry: whether a track has all of them, once and in order, and their counts of successes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from leaderboard import tracks
from leaderboard.entry import parse_json
from leaderboard.schema import row_problems
from leaderboard.tracks import BoardCell, Track
from oc_residual_gym.files import Record
from oc_residual_gym.tasks.index import INDEX

SHOWN = 5
"""Maximum number of problems of one kind that are listed."""
Key = tuple[str, str, int]
"""Domain, task and seed."""


def key_of(row: Record) -> Key:
    return row["domain"], row["task"], row["seed"]


def expected(cells: Iterable[BoardCell]) -> list[Key]:
    """The rows of ``cells``, in the order of a rows file."""
    return [(*head, seed) for head in sorted((c.domain, c.task) for c in cells) for seed in range(tracks.EPISODES)]


def count_successes(rows: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Successes by domain and task, as entry.json holds them."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        by_task = counts.setdefault(row["domain"], {})
        by_task[row["task"]] = by_task.get(row["task"], 0) + row["success"]
    return counts


def problems_of(text: str, track: Track, claimed: dict[str, dict[str, int]]) -> list[str]:
    """Problems in ``text``, the content of a track's rows file; ``claimed`` are the successes that the entry claims."""
    rows, problems, lines = [], [], text.splitlines()
    if len(lines) > 2 * (most := tracks.EPISODES * len(track.cells)):
        return [f"it has {len(lines)} lines, and the track {most} rows"]
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
        except ValueError as error:
            problems.append(f"line {number}: not JSON: {error}")
            continue
        found = row_problems(row) or _contradictions(row)
        problems += [f"line {number}: {problem}" for problem in found]
        if not found:
            rows.append(row)
    if problems:
        return shortened(problems)
    problems = completeness(map(key_of, rows), track.cells)
    return problems or _order(rows, track) + _count_problems(count_successes(rows), claimed)


def _contradictions(row: Record) -> list[str]:
    """Contradictions in a row that fits the schema but cannot be an episode."""
    problems, most = [], INDEX[row["task"]].max_episode_steps
    if row["success"] != (row["failure"] is None):
        problems.append("$.failure: it must be null for a success, and only then")
    if row["steps"] > most:
        problems.append(f"$.steps: {row['steps']}, and an episode of {row['task']} ends after {most}")
    return problems


def completeness(found: Iterable[Key], cells: Sequence[BoardCell]) -> list[str]:
    """Problems per cell of ``cells``: rows that are missing, duplicate, or of no cell."""
    counts, problems = Counter(found), []
    for cell in cells:
        of_cell = {seed: counts.pop((cell.domain, cell.task, seed), 0) for seed in range(tracks.EPISODES)}
        missing = [seed for seed, count in of_cell.items() if count == 0]
        double = [seed for seed, count in of_cell.items() if count > 1]
        name = f"{cell.task} in {cell.domain}"
        if missing:
            problems.append(f"{name} lacks {len(missing)} of {tracks.EPISODES} rows: seeds {seeds_text(missing)}")
        if double:
            problems.append(f"{name} has {len(double)} rows more than once: seeds {seeds_text(double)}")
    foreign = sorted({f"{task} in {domain}, seed {seed}" for domain, task, seed in counts})
    return problems + shortened([f"{name} is not a row of this track" for name in foreign])


def seeds_text(seeds: Sequence[int]) -> str:
    more = f" and {len(seeds) - SHOWN} more" if len(seeds) > SHOWN else ""
    return ", ".join(map(str, seeds[:SHOWN])) + more


def shortened(problems: list[str]) -> list[str]:
    """The first of ``problems``, and the number of the others."""
    rest = [f"and {len(problems) - SHOWN} more problems"] if len(problems) > SHOWN else []
    return problems[:SHOWN] + rest


def _order(rows: Sequence[Record], track: Track) -> list[str]:
    if list(map(key_of, rows)) != expected(track.cells):
        return ["the rows are not sorted by domain, task and seed"]
    return []


def _count_problems(counted: dict[str, dict[str, int]], claimed: dict[str, dict[str, int]]) -> list[str]:
    cells = sorted({(domain, task) for counts in (counted, claimed) for domain in counts for task in counts[domain]})
    problems = []
    for domain, task in cells:
        here, there = counted.get(domain, {}).get(task), claimed.get(domain, {}).get(task)
        if here != there:
            problems.append(f"{task} in {domain}: the rows have {here} successes, and entry.json claims {there}")
    return problems
