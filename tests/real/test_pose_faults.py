"""Poses that cannot be: out of place, jumped, exchanged, contradicted; and motions that look like it and are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_tracking import HOME, FakeSource, noisy, run, start

from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.errors import RobotStopped, StopReason
from oc_residual_gym.perception.listener import Listener
from oc_residual_gym.perception.messages import PoseMessage, TrackedPose
from oc_residual_gym.real.cell import Poses
from oc_residual_gym.real.places import impossible
from oc_residual_gym.real.tracking import TrackedObjects
from oc_residual_gym.tasks import TASKS

OFF = np.r_[0.0, 0.2, 0.0, np.zeros(4)]
"""20 cm to the side."""


class Scene:
    """The objects of a task where seed 0 has them, a tracker that sees them, and a clock that stands still."""

    def __init__(self, task: str, **settings: Any):
        self.task, self.source = TASKS[task], FakeSource()
        poses = start_of(self.task, "test", 0).poses
        self.poses = {o.name: poses[o.name] for o in self.task.objects}
        self.tcp = HOME.copy()
        for name, pose in self.poses.items():
            self.see(name, pose)
        limits = replace(Poses("tcp://nobody:1"), **settings)
        clock, sleep = self.source.clock, self.source.advance
        self.tracker = TrackedObjects(self.task.objects, self.source, limits, None, clock, sleep, self.task.specs)

    def see(self, name: str, pose: np.ndarray | str) -> None:
        self.source.scripts[name] = (lambda count: pose) if isinstance(pose, str) else noisy(pose, seed=len(name))

    def begin(self) -> Scene:
        start(self.tracker)
        self.run(3)
        return self

    def run(self, steps: int) -> tuple[np.ndarray, tuple[StopReason, str] | None, float]:
        return run(self.tracker, self.source, steps, self.tcp)

    def carry(self, name: str, path: Sequence[np.ndarray]) -> None:
        """Move the tool and the object in it along ``path``, one offset per control step; it must be believed."""
        for offset in path:
            self.tcp[0, :3] = self.poses[name][:3] + offset
            self.see(name, self.poses[name] + np.r_[offset, np.zeros(4)])
            seen, fault, _ = self.run(1)
            assert seen.all() and fault is None


def turned(pose: np.ndarray, axis: str, degrees: float) -> np.ndarray:
    turn = Rotation.from_quat(pose[3:]) * Rotation.from_euler(axis, degrees, degrees=True)
    return np.r_[pose[:3], turn.as_quat()]


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("name", ["white", "green"])
def test_a_jump_that_stays_stops_the_arm(name: str) -> None:
    scene = Scene("Stack").begin()
    scene.see(name, scene.poses[name] + OFF)
    _, fault, seconds = scene.run(40)
    assert fault is not None and fault[0] is StopReason.POSES_JUMPED
    assert f"{name!r} is 20 cm and 0 degrees" in fault[1] and seconds <= 0.3


def test_a_turn_that_stays_stops_the_arm_unless_it_looks_the_same() -> None:
    scene = Scene("PickPlace").begin()
    scene.see("block", turned(scene.poses["block"], "z", 180))
    assert scene.run(10)[1] is None
    scene.see("block", turned(scene.poses["block"], "z", 90))
    _, fault, _ = scene.run(10)
    assert fault is not None and fault[0] is StopReason.POSES_JUMPED and "90 degrees" in fault[1]


@pytest.mark.parametrize("stacked", [False, True])
def test_names_swapped_in_mid_trial_stop_the_arm(stacked: bool) -> None:
    """Also when one cube stands on the other: no pose then moves farther than a jump."""
    scene = Scene("Stack").begin()
    if stacked:  # the hand carries the white cube onto the green one
        way = np.array([0.0, 0.0, 0.04]) + scene.poses["green"][:3] - scene.poses["white"][:3]
        scene.carry("white", [way * share for share in np.linspace(0.0, 1.0, 30)])
        scene.poses["white"] = scene.poses["white"] + np.r_[way, np.zeros(4)]
    scene.see("white", scene.poses["green"])
    scene.see("green", scene.poses["white"])
    _, fault, seconds = scene.run(40)
    assert fault is not None and fault[0] is StopReason.POSES_JUMPED
    assert "has exchanged places with" in fault[1] and seconds <= 0.3


def test_names_swapped_in_a_single_image_are_left_out() -> None:
    scene = Scene("Stack").begin()
    for _ in range(5):
        scene.see("white", scene.poses["green"])
        scene.see("green", scene.poses["white"])
        seen, fault, _ = scene.run(1)
        assert not seen.any() and fault is None
        for name, pose in scene.poses.items():
            scene.see(name, pose)
        seen, fault, _ = scene.run(3)
        assert seen.all() and fault is None


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("peg", np.r_[0.0, 0.0, -0.06, np.zeros(4)], "cm under the table"),
        ("peg", np.r_[0.0, 0.8, 0.0, np.zeros(4)], "outside the workspace along y"),
        ("peg", np.r_[0.0, 0.0, 0.9, np.zeros(4)], "outside the workspace along z"),
        ("hole", np.r_[0.06, 0.0, 0.0, np.zeros(4)], "from its first place, although it is fixed"),
    ],
)
def test_where_an_object_cannot_be_it_is_not_seen(name: str, change: np.ndarray, words: str) -> None:
    scene = Scene("PegInsert").begin()
    if name == "peg":
        scene.carry("peg", [np.zeros(3)])  # even next to the hand
    scene.see(name, scene.poses[name] + change)
    seen, fault, seconds = scene.run(40)
    k = [o.name for o in scene.task.objects].index(name)
    assert not seen[:, k].any() and seen[:, 1 - k].all() and scene.tracker.readings.states[k] == "outside"
    assert fault is not None and fault[0] is StopReason.POSES_OUTSIDE
    assert name in fault[1] and words in fault[1] and seconds <= 0.3


def test_a_fixed_object_does_not_creep_away() -> None:
    scene = Scene("PegInsert").begin()
    for step in range(40):
        scene.see("hole", scene.poses["hole"] + np.r_[0.0, 0.003 * step, 0.0, np.zeros(4)])
        _, fault, _ = scene.run(1)
        if fault is not None:
            break
    assert fault is not None and fault[0] is StopReason.POSES_OUTSIDE and step < 25


@pytest.mark.parametrize(("height", "words"), [(0.1, "floats"), (-0.1, "under the table")])
def test_an_episode_does_not_start_with_an_object_in_the_air_or_under_the_table(height: float, words: str) -> None:
    scene = Scene("StandCup")
    scene.see("cup", scene.poses["cup"] + np.r_[0.0, 0.0, height, np.zeros(4)])
    with pytest.raises(RobotStopped, match=f"'cup': outside, it .*{words}") as stopped:
        start(scene.tracker)
    assert stopped.value.reason is StopReason.POSES_OUTSIDE


def test_every_start_of_every_task_is_possible(task: str) -> None:
    specs = {spec.name: spec for spec in TASKS[task].specs}
    for seed in range(20):
        for name, pose in start_of(TASKS[task], "test", seed).poses.items():
            assert impossible(pose, specs[name], starting=True) == ""
            assert impossible(pose + 0.04 * np.eye(7)[2], specs[name], starting=True) != ""


# ---------------------------------------------------------------- motions that are none of these


def test_an_object_dropped_from_the_hand_is_followed() -> None:
    scene = Scene("Lift").begin()
    up = [np.array([0.0, 0.0, 0.01 * step]) for step in range(31)]
    scene.carry("block", up)
    for seconds in np.arange(0.05, 0.25, 0.05):  # free fall from 30 cm, a reading every 50 ms
        scene.see("block", scene.poses["block"] + np.r_[0.0, 0.0, 0.3 - 4.905 * seconds**2, np.zeros(4)])
        seen, fault, _ = scene.run(1)
        assert seen.all() and fault is None
    scene.see("block", turned(scene.poses["block"], "z", 20) + np.r_[0.03, 0.02, np.zeros(5)])
    seen, fault, _ = scene.run(20)
    assert seen.all() and fault is None


def test_an_object_that_slides_while_the_hand_hides_it_is_found_again() -> None:
    scene = Scene("StandCup").begin()
    scene.carry("cup", [np.zeros(3)])
    scene.see("cup", "lost")
    scene.run(10)
    rolled = turned(scene.poses["cup"], "z", 70) + np.r_[0.1, 0.1, np.zeros(5)]
    scene.see("cup", rolled)
    seen, fault, _ = scene.run(10)
    assert seen.all() and fault is None


def test_an_object_far_from_the_hand_does_not_slide_while_it_is_hidden() -> None:
    scene = Scene("Stack").begin()
    scene.see("green", "lost")
    for _ in range(20):
        scene.tcp[0, 1] += 0.01 if scene.poses["green"][1] < 0 else -0.01
        scene.run(1)
    scene.see("green", scene.poses["green"] + 0.5 * OFF)
    _, fault, _ = scene.run(10)
    assert fault is not None and fault[0] is StopReason.POSES_JUMPED


def test_what_the_operator_puts_back_between_trials_is_no_jump() -> None:
    scene = Scene("Stack").begin()
    scene.see("white", scene.poses["white"] + OFF)
    assert scene.run(10)[1] is not None
    scene.begin()
    assert scene.run(10)[1] is None


def test_a_drawer_moves_with_the_hand_that_pushes_it() -> None:
    scene = Scene.__new__(Scene)
    scene.task, scene.source, scene.tcp = TASKS["CloseDrawer"], FakeSource(), HOME.copy()
    cabinet = start_of(scene.task, "test", 0).poses["cabinet"]
    scene.poses = {"cabinet": cabinet, "drawer": cabinet + np.r_[-0.1, 0.0, 0.15, np.zeros(4)]}
    for name, pose in scene.poses.items():
        scene.see(name, pose)
    clock, sleep = scene.source.clock, scene.source.advance
    limits = Poses("tcp://nobody:1")
    scene.tracker = TrackedObjects(scene.task.objects, scene.source, limits, None, clock, sleep, scene.task.specs)
    scene.begin()
    scene.carry("drawer", [np.array([0.01 * step, 0.0, 0.0]) for step in range(11)])


# ---------------------------------------------------------------- two publishers


class TwoPublishers(Listener):
    """A listener that gets one reading after the other of the block, at places given by number."""

    def __init__(self, move: Callable[[int], np.ndarray] = lambda count: np.zeros(3)):
        super().__init__("tcp://nobody:1", ["block"])
        self.now, self._move, self._rng = 100.0, move, np.random.default_rng(0)
        self.count = 0

    def hear(self, place: int, latency: float = 0.03) -> None:
        self.now += 1 / 60
        self.count += 1
        position = np.array([0.5, 0.2 * place, 0.02]) + self._move(self.count) + self._rng.normal(0.0, 0.002, 3)
        pose = np.r_[position, 0.0, 0.0, 0.0, 1.0]
        self.take(PoseMessage("base", "", {"block": TrackedPose(pose, self.now - latency, "tracking")}))

    def close(self) -> None:
        """Nothing to stop."""

    @property
    def status(self) -> str:
        return self.latest()["block"].status


@pytest.mark.parametrize("pattern", [[0, 1], [0, 1, 1, 0], [0, 0, 1]])
@pytest.mark.parametrize("latency", [0.03, 0.2])
def test_two_publishers_that_disagree_are_noticed(pattern: list[int], latency: float) -> None:
    """Also when the second one's images are always older, so that none of its readings would ever be used."""
    source = TwoPublishers()
    for count in range(30):
        place = pattern[count % len(pattern)]
        source.hear(place, latency if place else 0.03)
    assert source.status == "contradicted" and "20 cm apart: do two publishers send it?" in source.problem()
    for _ in range(30):
        source.hear(0)
    assert source.status == "tracking" and source.problem() == ""


@pytest.mark.parametrize(
    "places",
    [
        [0] * 40,
        [0] * 20 + [1] * 20,  # a jump that stays
        [0, 0, 0, 1] * 10,  # a tracker that is wrong now and then
        list(range(40)),  # one that jumps about
        [0] * 10 + [1] * 10 + [0] * 10 + [1] * 10,  # one that changes its mind
    ],
)
def test_other_troubles_are_not_taken_for_two_publishers(places: list[int]) -> None:
    source = TwoPublishers()
    for place in places:
        source.hear(place)
        assert source.status == "tracking"


def test_two_publishers_that_agree_are_one() -> None:
    source = TwoPublishers(lambda count: np.array([0.2 / 60 * count, 0.0, 0.0]))  # as fast as the hand
    for _ in range(60):
        source.hear(0)
        assert source.status == "tracking"


def test_two_publishers_stop_the_arm() -> None:
    source = TwoPublishers()

    def sleep(seconds: float) -> None:
        source.hear(0)

    poses = Poses("tcp://nobody:1")
    tracker = TrackedObjects(TASKS["Lift"].objects, source, poses, None, lambda: source.now, sleep, TASKS["Lift"].specs)
    start(tracker)
    for _ in range(20):
        for place in (0, 1, 0):
            source.hear(place)
        tracker.observe(HOME)
        if fault := tracker.fault():
            break
    assert fault is not None and fault[0] is StopReason.POSES_CONTRADICT
    assert "'block' comes from two sources that disagree" in fault[1] and "20 cm apart" in fault[1]
    assert tracker.readings.states == ("contradicted",)
