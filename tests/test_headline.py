"""The result of a comparison at a glance: one sentence, and a picture with a line for each task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from baselines.compare import DIFFERENCES
from baselines.headline import sentence
from oc_residual_gym.evaluation.dumbbells import lines_of, plot_dumbbells
from oc_residual_gym.evaluation.pairing import paired_rates
from oc_residual_gym.files import Record
from oc_residual_gym.tasks import PAPER_TASKS, SHIPPED_TASKS

EPISODES = 50
LABELS = {side: side for side in ("base", "residual", "planner", "oracle")}


def records(**rates: Mapping[str, float]) -> list[Record]:
    """Records of a comparison whose sides succeed in the first so many percent of each task's episodes."""
    episodes = {
        side: [
            {"task": task, "seed": seed, "split": "test", "success": 100 * seed < rate * EPISODES}
            for task, rate in by_task.items()
            for seed in range(EPISODES)
        ]
        for side, by_task in rates.items()
    }
    return paired_rates(episodes, DIFFERENCES)


def alike(base: float, residual: float, planner: float, tasks: tuple[str, ...] = SHIPPED_TASKS) -> list[Record]:
    """The same rates in all tasks."""
    rates = {"base": base, "residual": residual, "planner": planner, "oracle": 100.0}
    return records(**{side: dict.fromkeys(tasks, rate) for side, rate in rates.items()})


@pytest.mark.parametrize(
    ("rates", "effect", "rival"),
    [
        (
            (40.0, 96.0, 80.0),
            "the residual raises the mean success of the paper's five tasks from 40.0 % to 96.0 % (+56.0 [",
            "reaches 80.0 %, measurably less.",
        ),
        (
            (60.0, 30.0, 90.0),
            "the residual lowers the mean success of the paper's five tasks from 60.0 % to 30.0 % (-30.0 [",
            "reaches 90.0 %, measurably more.",
        ),
        (
            (98.0, 100.0, 100.0),
            "the residual does not measurably change the mean success of the paper's five tasks: 98.0 % without it, "
            "100.0 % with it (+2.0 [",
            "reaches 100.0 %, which is not measurably different.",
        ),
        (
            (100.0, 100.0, 98.0),
            "the residual does not measurably change the mean success of the paper's five tasks: 100.0 % without it, "
            "100.0 % with it (+0.0 [",
            "reaches 98.0 %, which is not measurably different.",
        ),
    ],
)
def test_the_sentence_claims_what_the_paired_interval_shows(
    rates: tuple[float, float, float], effect: str, rival: str
) -> None:
    text = sentence({"in the training world": alike(*rates)})
    assert text.startswith(f"In the training world, {effect}")
    assert text.endswith(f"points), and the planner, which learns nothing, {rival}")


def test_the_sentence_has_a_clause_for_each_world_and_names_what_is_averaged() -> None:
    text = sentence({"here": alike(10, 90, 50, ("Lift",)), "there": alike(90, 10, 50, ("Lift", "Stack"))})
    first, second = text.split("; ")
    assert first.startswith("Here, the residual raises success in Lift from 10.0 % to 90.0 %")
    assert second.startswith("there, the residual lowers the mean success of these 2 tasks from 90.0 % to 10.0 %")
    assert text.count("which learns nothing") == 1


def test_the_picture_has_the_mean_first_and_then_the_tasks_by_gain() -> None:
    gains = {"Lift": 10.0, "PickPlace": 50.0, "Stack": 0.0, "CloseDrawer": -20.0, "StandCup": 30.0, "PegInsert": 60.0}
    base = dict.fromkeys(gains, 40.0)
    after = {task: 40.0 + gain for task, gain in gains.items()}
    trained = records(base=base, residual=after, planner=base, oracle=base)
    order = ["PegInsert", "PickPlace", "StandCup", "Lift", "Stack", "CloseDrawer"]
    assert lines_of({"first": trained, "second": alike(10, 10, 10)}) == ["paper's five tasks", *order]

    del after["PegInsert"], after["Lift"]
    some = records(base=base, residual=after, planner=base, oracle=base)
    assert lines_of({"": some}) == ["the 4 tasks with a residual", *order[1:3], *order[4:], "Lift", "PegInsert"]
    nothing = records(base=base, residual={}, planner=base, oracle=base)
    assert lines_of({"": nothing}) == ["paper's five tasks", *SHIPPED_TASKS]
    assert lines_of({"": alike(10, 90, 50, ("Lift",))}) == ["Lift"]
    assert lines_of({"": alike(10, 90, 50, ("Lift", "Stack"))}) == ["these 2 tasks", "Lift", "Stack"]


@pytest.mark.parametrize(
    "shown",
    [
        alike(0, 0, 0),
        alike(100, 100, 100),
        alike(50, 90, 50, ("Lift",)),
        records(
            base=dict.fromkeys(SHIPPED_TASKS, 50.0), residual={"Lift": 1.0}, planner=dict.fromkeys(SHIPPED_TASKS, 9.0)
        ),
        records(base=dict.fromkeys(PAPER_TASKS, 50.0), residual={}, planner=dict.fromkeys(PAPER_TASKS, 9.0)),
        alike(50, 90, 50, tuple(f"Task{number}" for number in range(20))),
    ],
    ids=["none", "all", "one", "missing", "untrained", "many"],
)
def test_the_picture_grows_with_the_tasks_and_takes_what_is_missing(shown: list[Record], tmp_path: Path) -> None:
    sides = {side: label for side, label in LABELS.items() if side in shown[0]}
    plot_dumbbells(tmp_path / "a.png", {"in the training world": shown, "in the shifted world": shown}, sides)
    plot_dumbbells(tmp_path / "b.png", {"": alike(50, 60, 70, ("Lift", "Stack"))}, LABELS)
    with Image.open(tmp_path / "a.png") as picture, Image.open(tmp_path / "b.png") as other:
        assert picture.width > other.width
        assert (picture.height > other.height) == (len(lines_of({"": shown})) > 3)
