"""Plain words for why an episode failed, for films and other places where people read it."""

from __future__ import annotations

from oc_residual_gym.tasks.base import Task

FAULTS = {
    "not_held": "success did not last",
    "not_done": "not done",
    "diverged": "the physics diverged",
    "robot_reflex": "the arm pressed too hard",
    "base_policy_failed": "the base policy failed",
}
"""Failures that are not milestones of a task, without a robot's stop reasons, which read well as they are."""


def failure_in_words(task: Task, failure: str) -> str:
    """``info["failure"]`` in words: "no_insert" of PegInsert is "peg not inserted".

    A task without words for a milestone gets "insert not reached".

    Args:
        task: the episode's task.
        failure: the failure as the environment names it.
    """
    if failure in FAULTS:
        return FAULTS[failure]
    milestone = failure.removeprefix("no_")
    if milestone != failure and milestone in task.weights:
        return task.failures.get(milestone, f"{milestone} not reached")
    return failure.replace("_", " ")
