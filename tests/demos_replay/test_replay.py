"""Replay under the environment's own limits and physics, judged by the task's own rule."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from logs import read_logs

from demos_replay import LOGS
from demos_replay.demo import Demo
from demos_replay.log import Log, LogError, LogObject
from demos_replay.path import make_path
from demos_replay.replay import Replayer
from demos_replay.states import show_states
from demos_replay.transfer import AREA, find_grasp, place
from oc_residual_gym.envs.actions import RATE_POSITION, RATE_ROTATION
from oc_residual_gym.geometry import norm, rotation_between
from oc_residual_gym.tasks import TASKS

PERSON = Path(__file__).parents[3] / "shared" / "data" / "robosuite" / "panda_lift.hdf5"
HOME = np.array([0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0])


def shipped(task: str, count: int) -> list[Log]:
    with_reasons = list(read_logs(LOGS / f"{task}.hdf5"))
    assert len(with_reasons) == 50
    return [log for log in with_reasons if isinstance(log, Log)][:count]


def replayed(task: str, logs: list[Log], worlds: int = 4) -> list[Demo | LogError]:
    """Replay ``logs``; return the results in their order."""
    replayer = Replayer(TASKS[task], worlds)
    results = dict(replayer.run((f"{i}/{log.name}", log) for i, log in enumerate(logs)))
    replayer.close()
    return [results[f"{i}/{log.name}"] for i, log in enumerate(logs)]


def test_synthetic_logs_say_that_they_are_and_replay_to_success(task):
    logs = shipped(task, 6)
    assert all(log.synthetic and log.task == task for log in logs)
    demos = replayed(task, logs)
    assert sum(not isinstance(demo, LogError) and demo.success for demo in demos) >= 3
    for demo in demos:
        moves = norm(np.diff(demo.target[:, :3], axis=0))
        turns = norm(rotation_between(demo.target[:-1, 3:7], demo.target[1:, 3:7]))
        assert moves.max() < RATE_POSITION + 1e-9 and turns.max() < RATE_ROTATION + 1e-9
        assert len(demo.tcp_pose) == len(demo.target) + 1 == len(demo.reward) + 1
        assert demo.report["tcp_drift_mm"]["mean"] < 20.0


@pytest.mark.skipif(not PERSON.is_file(), reason=f"the recorded log {PERSON} is not here")
def test_a_persons_log_of_another_simulator_succeeds():
    (log,) = read_logs(PERSON)
    assert not log.synthetic and log.table_height == pytest.approx(-0.113, abs=0.002)
    (demo,) = replayed("Lift", [log])
    assert demo.success
    assert demo.report["tcp_drift_mm"]["mean"] < 10.0
    assert demo.report["object_drift_mm"]["block"]["end"] < 30.0
    assert any("'cube' stands for our block" in text for text in demo.report["assumptions"])


def test_a_demonstration_does_not_depend_on_those_beside_it():
    logs = shipped("PickPlace", 3)
    for alone, together in zip(replayed("PickPlace", logs, 1), replayed("PickPlace", logs, 3), strict=True):
        np.testing.assert_array_equal(alone.qpos, together.qpos)


def test_an_object_that_is_elsewhere_is_not_lifted():
    log = shipped("Lift", 1)[0]
    block = log.objects["block"]
    aside = replace(block, poses=block.poses + 0.12 * np.eye(7)[1])
    (demo,) = replayed("Lift", [replace(log, objects={"block": aside})])
    assert not demo.success and demo.failure == "no_reach"


@pytest.mark.parametrize(("name", "there"), [("Stack", "Stack"), ("PickPlace", "PickPlaceCan")])
def test_logs_of_other_scenes_succeed(name, there, operator, tmp_path):
    """Recorded in robosuite's own task, with its objects, table and bins."""
    operator.record(tmp_path / "log.hdf5", there)
    (log,) = read_logs(tmp_path / "log.hdf5")
    assert isinstance(log, Log)
    (demo,) = replayed(name, [log])
    assert demo.success
    assert demo.report["tcp_drift_mm"]["mean"] < 10.0


def another_scene(**changes) -> Log:
    """A shipped Lift log, disguised as one of another simulator: its block is called "thing"."""
    log = shipped("Lift", 1)[0]
    return replace(log, objects={"thing": log.objects["block"]}, **changes)


def closings(log: Log) -> int:
    return int(np.flatnonzero(log.gripper_closed)[0])


def test_a_push_or_a_miss_is_not_a_grasp():
    log = another_scene()
    start = closings(log)
    early = log.gripper_closed.copy()
    early[5:15] = True
    thing = log.objects["thing"].poses.copy()
    thing[:10, 0] -= 0.02 * np.linspace(1, 0, 10)
    pushed = replace(log, gripper_closed=early, objects={"thing": LogObject(thing)})
    assert find_grasp(log).grasp == find_grasp(pushed).grasp == start
    width = log.gripper_width.copy()
    width[log.gripper_closed] = 0.0
    with pytest.raises(LogError, match="on nothing"):
        find_grasp(replace(log, gripper_width=width))


def test_a_second_grasp_counts_and_is_mentioned():
    log = another_scene()
    start, rows = closings(log), len(log.time)
    again = {
        name: np.concatenate([getattr(log, name), getattr(log, name)[start - 5 :]])
        for name in ("tcp_pose", "target", "gripper_closed", "gripper_width", "joint_positions")
    }
    poses = log.objects["thing"].poses
    things = {"thing": LogObject(np.concatenate([poses, poses[start - 5 :]]))}
    time = np.arange(len(again["tcp_pose"])) / 20
    found = find_grasp(replace(log, time=time, objects=things, **again))
    assert found.grasps == 2 and found.grasp == rows + 5
    assert "2 times" in found.notes[0]


def test_an_object_in_the_hand_from_the_start_is_a_reason():
    log = another_scene()
    rows = slice(closings(log) + 20, None)
    parts = {
        name: getattr(log, name)[rows]
        for name in ("tcp_pose", "target", "gripper_closed", "gripper_width", "joint_positions")
    }
    held = {"thing": LogObject(log.objects["thing"].poses[rows])}
    with pytest.raises(LogError, match="starts with the object in the hand"):
        place(replace(log, time=log.time[: len(parts["target"])], objects=held, **parts), TASKS["Lift"])


def test_a_scene_far_away_is_moved_into_the_workspace_and_says_so():
    log = another_scene()
    far = np.array([0.1, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    moved = replace(
        log,
        tcp_pose=log.tcp_pose + far,
        target=log.target + far,
        objects={"thing": LogObject(log.objects["thing"].poses + far)},
    )
    placed = place(moved, TASKS["Lift"])
    start = placed.start.poses["block"][:2]
    assert np.all(start >= AREA[0] - 1e-9) and np.all(start <= AREA[1] + 1e-9)
    assert any("The scene is moved by" in text for text in placed.assumptions)
    assert not any("The scene is moved by" in text for text in place(log, TASKS["Lift"]).assumptions)


def test_shifted_worlds_differ_from_log_to_log():
    logs = shipped("CloseDrawer", 2)
    replayer = Replayer(TASKS["CloseDrawer"], 2, domain="twin")
    seeds = {demo.report["seed"] for _, demo in replayer.run((log.name, log) for log in logs)}
    replayer.close()
    assert len(seeds) == 2


def test_a_log_that_is_too_fast_is_stretched():
    log = shipped("Lift", 1)[0]
    shift = np.zeros((len(log.time), 3))
    usual, fast = make_path(log, shift, HOME), make_path(replace(log, time=log.time / 3), shift, HOME)
    assert usual.stretched < 0.1 < fast.stretched
    assert norm(np.diff(fast.targets[:, :3], axis=0)).max() < 1.02 * RATE_POSITION
    np.testing.assert_allclose(fast.targets[-1], usual.targets[-1], atol=1e-9)
    assert np.all(np.diff(fast.rows) >= 0.0)


def test_fingers_get_the_time_they_need():
    log = shipped("Lift", 1)[0]
    rows = np.arange(40)
    pose = np.tile(HOME, (40, 1))
    pose[:, 2] += 0.005 * np.maximum(rows - 20, 0)
    hasty = replace(
        log, time=rows / 20, tcp_pose=pose, target=pose, gripper_closed=rows >= 20, objects={}, gripper_width=None
    )
    path = make_path(hasty, np.zeros((40, 3)), HOME)
    closed_and_low = (path.targets[:, 7] < 0.5) & (path.targets[:, 2] < HOME[2] + 0.006)
    assert closed_and_low.sum() >= 16


@pytest.mark.parametrize("name", ["Lift", "PickPlace", "Stack", "PegInsert"])
def test_places_are_inferred_from_the_hand_and_marked(name):
    log = shipped(name, 1)[0]
    known, inferred = place(log, TASKS[name]), place(replace(log, objects={}), TASKS[name])
    for body, pose in known.start.poses.items():
        assert np.linalg.norm(pose[:2] - inferred.start.poses[body][:2]) < (0.06 if name == "PickPlace" else 0.045)
        assert pose[2] == pytest.approx(inferred.start.poses[body][2])
    assert any("estimated" in text for text in inferred.assumptions)
    assert not any("estimated" in text for text in known.assumptions)


@pytest.mark.parametrize("name", ["CloseDrawer", "StandCup"])
def test_what_the_hand_does_not_tell_is_asked_for(name):
    log = replace(shipped(name, 1)[0], objects={})
    with pytest.raises(LogError, match="sidecar"):
        place(log, TASKS[name])


def test_a_gripper_that_never_closes_is_a_reason():
    log = shipped("Lift", 1)[0]
    with pytest.raises(LogError, match="never closes"):
        place(replace(log, gripper_closed=np.zeros(len(log.time), bool)), TASKS["Lift"])


def test_start_poses_from_a_sidecar_file():
    log = shipped("PickPlace", 1)[0]
    poses = {name: item.poses[0] for name, item in log.objects.items()}
    placed = place(replace(log, objects={}), TASKS["PickPlace"], poses)
    known = place(log, TASKS["PickPlace"])
    for name, pose in known.start.poses.items():
        np.testing.assert_allclose(placed.start.poses[name], pose)
    with pytest.raises(LogError, match="plate"):
        place(log, TASKS["PickPlace"], {"block": poses["block"]})
    with pytest.raises(LogError, match="not on our table"):
        place(log, TASKS["PickPlace"], {**poses, "block": poses["block"] + np.eye(7)[1]})


def test_states_are_shown_and_never_judged(tmp_path):
    log = shipped("Lift", 1)[0]
    short = replace(log, time=log.time[:10], tcp_pose=log.tcp_pose[:10])
    video = tmp_path / "states.mp4"
    assert show_states(short, TASKS["Lift"], video) == 9
    assert video.stat().st_size > 1000
    with pytest.raises(LogError, match="joint positions"):
        show_states(replace(log, joint_positions=None), TASKS["Lift"], video)


def test_logs_are_small_enough_to_ship():
    assert sum(file.stat().st_size for file in LOGS.glob("*.hdf5")) < 15e6


def test_an_arm_that_cannot_follow_fails_its_task_and_no_convention(caplog):
    """The log goes 0.5 m further than the workspace's limits let the arm follow, and turns away by a right angle."""
    (log,) = shipped("Lift", 1)
    replayer = Replayer(TASKS["Lift"], 1)
    path = make_path(log, place(log, TASKS["Lift"], None).shift, HOME)
    path.targets[:, 0] += 0.5
    path.targets[:, 3:7] = [np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)]
    replayer._policy.targets[0] = path.targets
    replayer._core.reset(np.array([0]), [0])
    for _ in range(40):
        replayer._core.step(np.zeros((1, 7)))
    assert not replayer._core.base_policy_failed[0] and not caplog.records
    replayer.close()


def test_a_log_that_slams_the_hand_ends_as_it_would_on_the_robot():
    (log,) = shipped("Lift", 1)
    target, begin = log.target.copy(), len(log.target) // 2
    target[begin:, 1] += 0.12  # beside the block
    target[begin:, 2] = np.maximum(target[begin, 2] + 0.1 - 0.01 * np.arange(len(target) - begin), -0.01)
    (demo,) = replayed("Lift", [replace(log, target=target)])
    assert isinstance(demo, Demo) and demo.failure == "robot_reflex" and not demo.success
