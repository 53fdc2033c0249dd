"""Failures in plain words: every milestone of our tasks has some, and films show them."""

from __future__ import annotations

from typing import ClassVar

import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.judges import SimulationJudge
from oc_residual_gym.errors import StopReason
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.failures import failure_in_words
from oc_residual_gym.tasks.lift import Lift


def test_every_milestone_has_words(task: str) -> None:
    spec = TASKS[task]
    assert set(spec.failures) == set(spec.weights)
    assert all(" not " in words and "_" not in words for words in spec.failures.values())
    assert len(set(spec.failures.values())) == len(spec.failures)


def test_whatever_a_judge_says_is_put_into_words(task: str) -> None:
    core = ResidualWorlds(task, 1, base_policy="hold")
    judge = core._judge
    assert isinstance(judge, SimulationJudge)
    for failure in [*judge._names, *StopReason, "diverged", "not_done"]:
        assert "_" not in failure_in_words(TASKS[task], failure)
    core.close()


@pytest.mark.parametrize(
    ("name", "failure", "words"),
    [
        ("PegInsert", "no_insert", "peg not inserted"),
        ("Lift", "no_lift", "block not lifted"),
        ("Lift", "not_held", "success did not last"),
        ("Lift", "robot_reflex", "the arm pressed too hard"),
        ("Lift", "poses_silent", "poses silent"),
    ],
)
def test_some_words(name: str, failure: str, words: str) -> None:
    assert failure_in_words(TASKS[name], failure) == words


def test_a_task_without_words_names_the_milestone() -> None:
    class Own(Lift):
        failures: ClassVar[dict[str, str]] = {}

    assert failure_in_words(Own(), "no_grasp") == "grasp not reached"
