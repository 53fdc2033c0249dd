"""Results on disk: one JSON line per episode during the run, a summary at the end, and the settings of both."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.statistics import wilson
from oc_residual_gym.files import Record, check_folder, claim
from oc_residual_gym.parsing import parse_json, read_json

EPISODES_FILE = "episodes.jsonl"
SETTINGS_FILE = "settings.json"
SUMMARY_FILE = "summary.json"

CELL_KEYS = ("task", "base", "residual", "domain", "errors", "split")
"""Keys by which episodes are grouped; each group gives one entry of the summary's list "cells"."""


def json_line(record: Record) -> str:
    """``record`` as one line of JSON."""
    return json.dumps(record, allow_nan=False) + "\n"


def read_episodes(path: Path) -> list[Record]:
    """Read the episodes in a file; remove an incomplete last line, left by an interrupted run.

    Raises:
        SettingsError: another line is not an episode.
    """
    content = path.read_bytes() if path.exists() else b""
    complete = content[: content.rfind(b"\n") + 1]
    if complete != content:
        os.truncate(path, len(complete))
    episodes = {}
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            episode = parse_json(line.decode("utf-8"))
            episodes[episode["task"], episode["seed"]] = episode
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{path}, line {number}: not an episode ({error!r}); remove the line or the file"
            ) from error
    return list(episodes.values())


def resume(out: Path, identity: Mapping[str, Any]) -> list[Record]:
    """Reserve ``out`` for the evaluation that ``identity`` describes; return the episodes it already holds.

    Raises:
        SettingsError: ``out`` holds episodes of another evaluation; the message lists what differs.
    """
    check_folder(out)
    settings_file, begun = out / SETTINGS_FILE, (out / EPISODES_FILE).exists()
    if begun and not settings_file.exists():
        raise SettingsError(f"{out} holds {EPISODES_FILE} without {SETTINGS_FILE}; choose another --out or remove it")
    if not (begun and read_episodes(out / EPISODES_FILE)):
        settings_file.unlink(missing_ok=True)
    claim(out, SETTINGS_FILE, identity)
    return read_episodes(out / EPISODES_FILE)


def finished_summary(folder: Path, command: str = "oc-residual evaluate ...") -> Record:
    """Read the summary that ``command`` wrote to ``folder``. Raises ``SettingsError`` if there is none yet."""
    if not (folder / SUMMARY_FILE).exists():
        raise SettingsError(f"{folder} holds no finished evaluation; run `{command} --out {folder}` first")
    return read_json(folder / SUMMARY_FILE)


def cells(episodes: Iterable[Record]) -> list[Record]:
    """Summarise episodes by :data:`CELL_KEYS` (task, policies, domain, ...), in the order of first appearance.

    ``mean_steps`` is the mean number of control steps of successful episodes, including the 0.5 s for which success
    must hold; ``None`` if none succeeded.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for episode in episodes:
        groups.setdefault(tuple(episode[key] for key in CELL_KEYS), []).append(episode)
    return [dict(zip(CELL_KEYS, key, strict=True)) | _cell(group) for key, group in groups.items()]


def _cell(episodes: list[Record]) -> Record:
    successes = [episode for episode in episodes if episode["success"]]
    rate = wilson(len(successes), len(episodes))

    def mean(key: str, group: list[Record] = episodes) -> float | None:
        return float(np.mean([episode[key] for episode in group])) if group else None

    return {
        "episodes": len(episodes),
        "successes": len(successes),
        "success_rate": rate.mean,
        "ci_low": rate.low,
        "ci_high": rate.high,
        "mean_steps": mean("steps", successes),
        "failures": dict(sorted(Counter(e["failure"] for e in episodes if not e["success"]).items())),
        "mean_return": mean("return"),
        "mean_peak_contact_force": mean("peak_contact_force"),
        "max_peak_contact_force": max(episode["peak_contact_force"] for episode in episodes),
        "mean_correction_mm": mean("correction_mm"),
        "mean_correction_rad": mean("correction_rad"),
        "mean_correction_change_mm": mean("correction_change_mm"),
        "mean_correction_change_rad": mean("correction_change_rad"),
    }
