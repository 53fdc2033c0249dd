"""Evaluation of a base policy with a residual policy on an explicit list of (task, seed) rows.

Every row runs once, to the end of its episode. A world that finishes takes the next row without waiting for the others.
Every row counts, so short episodes are not favoured over long ones. An episode depends only on its row: results are
byte-identical for any number of worlds and processes, and after any number of interruptions.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing, nullcontext
from pathlib import Path

from tqdm import tqdm

from oc_residual_gym.engines import Engine
from oc_residual_gym.errors import SettingsError, StopReason
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.evaluation.episodes import EPISODES_FILE, SUMMARY_FILE, cells, json_line, resume
from oc_residual_gym.evaluation.rollout import run_rows
from oc_residual_gym.evaluation.settings import EvaluationSettings, Row
from oc_residual_gym.evaluation.shards import run_on
from oc_residual_gym.files import Record, write_json, write_text
from oc_residual_gym.parsing import read_json


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
    """Run the episodes of ``settings`` that are missing in ``out``; write and return the summary of all in ``out``.

    Args:
        settings: what to evaluate.
        out: folder for episodes.jsonl (one line per episode, appended as episodes finish and sorted at the end),
            settings.json and summary.json.
        worlds: maximum number of episodes that run at a time in each process.
        engine: where the episodes run; by default in this process, whose worlds share the cores.
        rows: subset of the settings' rows to run; later calls can run the rest.
        command: command line to record in the summary.
        bar: progress bar shared with other evaluations; by default a new one.

    Raises:
        SettingsError: ``out`` holds another evaluation, ``rows`` has rows that are not in the settings, a policy was
            made for another task or returns invalid actions, the base policy raises an exception or fails in every
            episode of a task, or a worker has other versions or files. Episodes that were finished stay in ``out``.
    """
    wanted = _wanted_rows(settings, rows)
    identity = settings.identity
    episodes = resume(out, identity)
    done = {(episode["task"], episode["seed"]) for episode in episodes}
    left = [row for row in wanted if row not in done]
    if not left and (out / SUMMARY_FILE).exists():  # keep it: it names the commit and machine that ran them
        if bar is not None:
            bar.update(len(wanted))
        return read_json(out / SUMMARY_FILE)
    (out / SUMMARY_FILE).unlink(missing_ok=True)  # it covers fewer rows

    successes, problems = sum(episode["success"] for episode in episodes), dict[str, str]()
    with (
        open(out / EPISODES_FILE, "a", encoding="utf-8") as file,
        nullcontext(bar) if bar is not None else tqdm(total=len(wanted), unit="episode", disable=None) as shown,
        closing(
            run_rows(settings, left, worlds) if engine is None else run_on(engine, settings, left, worlds, identity)
        ) as run,
    ):
        shown.update(len(wanted) - len(left))
        for episode in run:
            if "problem" in episode:
                problems[episode["task"]] = episode.pop("problem")
            file.write(json_line(episode))
            file.flush()
            episodes.append(episode)
            successes += episode["success"]
            shown.set_postfix_str(f"{episode['task']}, success {successes / len(episodes):.1%}", refresh=False)
            shown.update()

    episodes.sort(key=lambda episode: (episode["task"], episode["seed"]))
    # Where it fails in the first step of every episode, the policy has never run.
    worked = {e["task"] for e in episodes if e["failure"] != StopReason.BASE_POLICY_FAILED or e["steps"] > 1}
    useful = [episode for episode in episodes if episode["task"] in worked]
    write_text(out / EPISODES_FILE, "".join(map(json_line, useful)))
    if len(useful) < len(episodes):
        lost = sorted({episode["task"] for episode in episodes} - worked)
        reason = next((problems[task] for task in lost if task in problems), "run it again to see why")
        raise SettingsError(
            f"the base policy failed at once in every episode of {', '.join(lost)}, which is not a result and was not "
            f"kept: {reason}"
        )
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
    """``rows`` in the settings' order; by default all rows. Raises ``SettingsError`` if one is not in the settings."""
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
