"""The guard of a base policy's conventions: what it refuses, what it names as the cause, and what it lets pass."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import oc_residual_gym  # noqa: F401
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import BasePolicyError, SettingsError, outside_text
from oc_residual_gym.policies.conventions import MAX_ANGLE, problem_of, violates
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS

H = 16


def only(items: list):
    (item,) = items
    return item


def still(view) -> np.ndarray:
    return np.repeat(view.previous_target[:, None], H, axis=1)


def changed(change: Callable) -> Callable:
    """A base policy that repeats the last target, and means it in another convention."""

    def policy(view) -> np.ndarray:
        chunk = still(view)
        change(chunk, view)
        return chunk

    return policy


def wxyz(chunk, view):
    chunk[..., 3:7] = chunk[..., [6, 3, 4, 5]]


def millimetres(chunk, view):
    chunk[..., :3] *= 1000.0


def centimetres(chunk, view):
    chunk[..., :3] *= 100.0


def joints(chunk, view):
    chunk[..., :7] = view.joint_positions[:, None]


def joints_in_degrees(chunk, view):
    chunk[..., :7] = np.degrees(view.joint_positions[:, None])


def joint_velocities(chunk, view):
    chunk[..., :7] = [0.1, -0.2, 0.05, 0.3, 0.0, -0.1, 0.2]


def no_velocity(chunk, view):
    chunk[..., :7] = 0.0


def difference(chunk, view):
    chunk[..., :7] = [0.005, 0.0, -0.002, 0.0, 0.0, 0.0, 1.0]


def another_frame(chunk, view):
    chunk[..., 0] += 0.6


def another_tool(chunk, view):
    chunk[..., 3:7] = (Rotation.from_quat(chunk[0, 0, 3:7]) * Rotation.from_euler("z", 90, degrees=True)).as_quat()


def gripper_from_minus_one(chunk, view):
    chunk[..., 7] = 1.0 - 2.0 * chunk[..., 7]


def width_in_millimetres(chunk, view):
    chunk[..., 7] *= 80.0


def gripper_to_255(chunk, view):
    chunk[..., 7] *= 255.0


def gripper_differences(chunk, view):
    chunk[..., 7] = -5.0


def not_a_number(chunk, view):
    chunk[:, 9, 1] = np.nan


def infinite_later(chunk, view):
    chunk[:, -1, 0] = np.inf


def long_quaternion_later(chunk, view):
    chunk[:, -1, 3:7] *= 1.2


def wide_open_later(chunk, view):
    chunk[:, 7, 7] = 1.2


CAUSES = {
    wxyz: "wxyz? Reorder to xyzw: quaternion[..., [1, 2, 3, 0]]",
    millimetres: "millimetres? Divide positions by 1000",
    centimetres: "centimetres? Divide positions by 100",
    joints: "joint positions in radians, not a pose",
    joints_in_degrees: "joint positions in degrees, not a pose",
    joint_velocities: "velocities, differences or Euler angles?",
    no_velocity: "velocities, differences or Euler angles?",
    difference: "add a difference to the measured one",
    another_frame: "another base frame?",
    another_tool: "another tool frame?",
    gripper_from_minus_one: "(1 - x) / 2 if -1 opens it",
    width_in_millimetres: "Divide by 80",
    gripper_to_255: "Divide by 255",
    gripper_differences: "differences, or values that are still normalised?",
    not_a_number: "target 9 of its chunk has nan as y",
    infinite_later: "target 15 of its chunk has inf as x",
    long_quaternion_later: "target 15 of its chunk has the quaternion",
    wide_open_later: "range from 1 to 1.2",
}


@pytest.mark.parametrize("change", CAUSES, ids=lambda change: change.__name__)
def test_another_convention_fails_the_base_policy_names_the_cause_and_moves_nothing(change):
    core = ResidualWorlds("Lift", 1, base_policy=changed(change), domain="twin")
    core.reset(np.array([0]), [0])
    before = core.executed_target.copy()
    core.step(np.zeros((1, 7)))
    assert core.truncated[0] and core.failure[0] == "base_policy_failed"
    assert CAUSES[change] in core.base_policy_problem[0]
    np.testing.assert_allclose(core.executed_target, before, atol=1e-9)


def test_every_chunk_that_is_refused_has_a_reason():
    tool = np.array([0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0])
    for turned in MAX_ANGLE + np.arange(-50, 50) * 2e-16:
        chunk = np.append(tool, 1.0)[None]
        chunk[0, 3:7] = (Rotation.from_rotvec([0.0, 0.0, turned]) * Rotation.from_quat(tool[3:])).as_quat()
        for length in np.linspace(0.91, 1.09, 50):
            scaled = chunk.copy()
            scaled[0, 3:7] *= length
            bad = np.zeros(1, bool)
            violates(scaled[None], tool[None], bad)
            assert bad[0] <= bool(problem_of(scaled, tool, HOME_JOINT_POSITIONS))


def test_two_mistakes_at_once_are_both_named():
    def both(chunk, view):
        millimetres(chunk, view)
        wxyz(chunk, view)

    core = ResidualWorlds("Lift", 1, base_policy=changed(both))
    core.reset(np.array([0]), [0])
    assert CAUSES[wxyz] in core.base_policy_problem[0] and CAUSES[millimetres] in core.base_policy_problem[0]


def test_wxyz_is_named_for_any_tool_it_can_be_told_for():
    named = 0
    for quaternion in Rotation.random(200, random_state=0).as_quat():
        tool = np.concatenate([[0.42, 0.0, 0.28], quaternion])
        chunk = np.concatenate([tool, [1.0]])[None]
        assert problem_of(chunk, tool, HOME_JOINT_POSITIONS) == ""
        wxyz(chunk, None)
        turned = (Rotation.from_quat(chunk[0, 3:7]).inv() * Rotation.from_quat(quaternion)).magnitude()
        assert ("wxyz" in problem_of(chunk, tool, HOME_JOINT_POSITIONS)) == (turned > MAX_ANGLE)
        named += turned > MAX_ANGLE
    assert named > 150


def test_only_worlds_with_bad_chunks_fail():
    def one(chunk, view):
        chunk[view.worlds == 1, :, :3] *= 1000.0

    vector = gym.make_vec("OCResidual-Lift-v0", num_envs=3, base_policy=changed(one))
    at_reset = vector.reset(seed=0)[1]
    *_, truncated, at_step = vector.step(np.zeros((3, 7)))
    for infos in (at_reset, at_step):
        assert infos["_base_policy_problem"].tolist() == [False, True, False]
        assert infos["base_policy_problem"][0] is None and "millimetres" in infos["base_policy_problem"][1]
    assert truncated.tolist() == [False, True, False] and at_step["failure"][1] == "base_policy_failed"
    vector.close()


def test_inexact_predictions_pass_and_are_made_exact():
    def inexact(chunk, view):
        chunk[..., 3:7] *= -1.05
        chunk[..., 7] = 1.04
        chunk[:, 1:, 0] += 0.5  # `limit` keeps the arm from getting there at once

    core = ResidualWorlds("Lift", 1, base_policy=changed(inexact))
    core.reset(np.array([0]), [0])
    assert not core.base_policy_failed.any()
    assert np.linalg.norm(core.base_target[0, 3:7]) == pytest.approx(1.0)
    assert core.base_target[0, 7] == 1.0


class FailsLater:
    """Its second chunk fails in the given way."""

    name, hash, horizon, needs = "fails later", None, 4, frozenset()

    def __init__(self, fail: Callable):
        self._fail, self._chunks = fail, 0

    def reset(self, worlds, generators):
        self._chunks = 0

    def predict(self, view):
        self._chunks += 1
        chunk = still(view)[:, :4]
        if self._chunks > 1:
            self._fail(chunk, view)
        return chunk


def lost(chunk, view):
    raise OSError("\x1b[31mconnection\nlost")


def given_up(chunk, view):
    raise BasePolicyError("no plan")


@pytest.mark.parametrize(
    ("fail", "reason"), [(lost, "connection lost"), (given_up, "no plan"), (millimetres, "millimetres?")]
)
def test_the_reason_is_in_the_info_of_the_step_and_logged_once(fail, reason, caplog):
    env = gym.make("OCResidual-Lift-v0", base_policy=FailsLater(fail))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            env.reset(seed=0)
            for step in range(4):
                *_, truncated, info = env.step(np.zeros(7))
                assert truncated == (step == 3) == ("base_policy_problem" in info)
            assert info["failure"] == "base_policy_failed" and reason in info["base_policy_problem"]
    assert [record.getMessage() for record in caplog.records] == [info["base_policy_problem"]]


def test_a_programming_error_is_passed_on():
    env = gym.make("OCResidual-Lift-v0", base_policy=FailsLater(lambda chunk, view: chunk + "one"))
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros(7))
    with pytest.raises(TypeError):
        env.step(np.zeros(7))


@pytest.mark.parametrize("horizon", [0, 257, 10**12])
def test_horizons_are_capped(horizon):
    def policy(view):
        raise AssertionError("never asked")

    policy.horizon = horizon
    with pytest.raises(SettingsError, match="give 1 to 256"):
        ResidualWorlds("Lift", 1, base_policy=policy)


def inverted(chunk, view):
    chunk[..., 7] = 1.0 - chunk[..., 7]


def width_in_metres(chunk, view):
    chunk[..., 7] *= 0.08


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (inverted, "closes the gripper in its first chunk.*if 0 opens your gripper, give 1 - opening"),
        (width_in_metres, r"closes the gripper in its first chunk.*widths in metres, divide by 0\.08"),
        (lambda chunk, view: None, "has not moved the gripper in 160 control steps"),
    ],
)
def test_a_suspicious_gripper_is_warned_of_once(change, words):
    core = ResidualWorlds("Lift", 2, base_policy=changed(change))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(2):
            core.reset(np.arange(2), [0, 1])
            for _ in range(150):
                core.step(np.zeros((2, 7)))
    assert re.search(words, str(only(warned).message)) and not core.base_policy_failed.any()


@pytest.mark.parametrize(("name", "policy"), [("CloseDrawer", changed(inverted)), ("Lift", "hold")])
def test_no_warning_where_nothing_must_be_grasped_or_nothing_is_commanded(name, policy):
    core = ResidualWorlds(name, 1, base_policy=policy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        core.reset(np.array([0]), [0])
        for _ in range(170):
            core.step(np.zeros((1, 7)))


@pytest.mark.parametrize("base", ["bc", "expert", "hold"])
def test_shipped_policies_keep_the_conventions_wherever_the_residual_pushes_them(base, task):
    rng = np.random.default_rng(0)
    core = ResidualWorlds(task, 4, base_policy=base, domain="twin", errors="tracker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        core.reset(np.arange(4), list(range(4)))
        for step in range(80):
            if step % 20 == 0:
                actions = rng.choice([-1.0, 1.0], (4, 7))
            core.step(actions)
            assert not core.base_policy_failed.any(), core.base_policy_problem


def test_texts_from_outside_are_one_printable_line():
    assert outside_text("plain words") == "plain words"
    assert outside_text(" a\n\tb\r\x85c ") == "a  b  c"
    assert outside_text("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 \x9b1mC1 \u202edrow") == "red bell? ?1mC1 ?drow"
    assert outside_text("\ud800") == "?"
    long = outside_text("x" * 10_000)
    assert len(long) == 500 and long.endswith("xxx...")
    assert outside_text(ValueError("y" * 500)) == "y" * 500
