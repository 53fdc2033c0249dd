"""Evaluation of a base policy under a residual policy on an explicit list of (task, seed) rows.

Every row is run once to its end. A world that finishes takes the next row and none waits for another, but all
rows count: short episodes are not favoured over long ones. An episode depends on its row alone, so that
results are the same, byte for byte, for any number of worlds and processes, and after any number of
interruptions.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing, nullcontext
from pathlib import Path

from tqdm import tqdm

from oc_residual_gym.engines import Engine
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.evaluation.episodes import EPISODES_FILE, SUMMARY_FILE, cells, json_line, resume
from oc_residual_gym.evaluation.rollout import run_rows
from oc_residual_gym.evaluation.settings import EvaluationSettings, Row
from oc_residual_gym.evaluation.shards import run_on
from oc_residual_gym.files import Record, read_json, write_json, write_text


def evaluate(
    settings: EvaluationSettings,
    out: Path,
    *,
    worlds: int = 32,
    engine: Engine | None = None,
    rows: Collection[Row] | None = None,
    command: str | None = None,
    bar: tqdm | None = None,
) -> Record:
    """Run those episodes of ``settings`` that ``out`` does not hold yet; write and return the summary of all it holds.

    Args:
        settings: what to evaluate.
        out: folder of episodes.jsonl (one line an episode, appended as they finish and sorted at the end),
            settings.json and summary.json.
        worlds: episodes that run at a time in each process, at most.
        engine: where they run; by default in this process, whose worlds share the cores.
        rows: a part of the settings' rows, for a sample; later calls can complete it.
        command: what the summary names as the command that made it.
        bar: shows the episodes among those of other evaluations; by default they get a bar of their own.

    Raises:
        SettingsError: if ``out`` holds another evaluation, ``rows`` are not the settings', a policy was made for
            another task or returns no actions, or a worker would not run the same.
    """
    wanted = _wanted_rows(settings, rows)
    identity = settings.identity
    episodes = resume(out, identity)
    done = {(episode["task"], episode["seed"]) for episode in episodes}
    left = [row for row in wanted if row not in done]
    if not left and (out / SUMMARY_FILE).exists():  # it names the commit and machine that ran them
        if bar is not None:
            bar.update(len(wanted))
        return read_json(out / SUMMARY_FILE)
    (out / SUMMARY_FILE).unlink(missing_ok=True)  # of fewer rows

    successes = sum(episode["success"] for episode in episodes)
    with (
        open(out / EPISODES_FILE, "a", encoding="utf-8") as file,
        nullcontext(bar) if bar is not None else tqdm(total=len(wanted), unit="episode", disable=None) as shown,
        closing(
            run_rows(settings, left, worlds) if engine is None else run_on(engine, settings, left, worlds, identity)
        ) as run,
    ):
        shown.update(len(wanted) - len(left))
        for episode in run:
            file.write(json_line(episode))
            file.flush()
            episodes.append(episode)
            successes += episode["success"]
            shown.set_postfix_str(f"{episode['task']}, success {successes / len(episodes):.1%}", refresh=False)
            shown.update()

    episodes.sort(key=lambda episode: (episode["task"], episode["seed"]))
    write_text(out / EPISODES_FILE, "".join(map(json_line, episodes)))
    summary = {
        "cells": cells(episodes),
        "versions": identity["versions"],
        "machine": provenance.machine(),
        "commit": provenance.commit(),
        "hashes": identity["hashes"],
        "command": command,
    }
    write_json(out / SUMMARY_FILE, summary)
    return summary


def _wanted_rows(settings: EvaluationSettings, rows: Collection[Row] | None) -> list[Row]:
    """``rows`` in the settings' order, all of them by default. Raises ``SettingsError`` where one is not among them."""
    if rows is None:
        return settings.rows
    chosen = set(rows)
    unknown = sorted(chosen - set(settings.rows))
    if unknown:
        task, seed = unknown[0]
        raise SettingsError(
            f"{len(unknown)} of the rows, such as {task} with seed {seed}, are not among those of this evaluation: "
            f"{', '.join(settings.tasks)} with seeds 0 to {settings.episodes - 1}"
        )
    return [row for row in settings.rows if row in chosen]
