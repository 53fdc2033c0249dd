"""The rig: what franka-sim makes of our arm, hand and scenes, seen through the robot's own client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import zmq
from scipy.spatial.transform import Rotation

pytest.importorskip("franky", reason="a robot needs franky-control")

import franky
from cells import PATIENCE

from oc_residual_gym.real.homing import move_joints, robot_seconds
from oc_residual_gym.real.rig import Rig, RigError, ensure_rig, rig_available
from oc_residual_gym.real.rig_install import python_of
from oc_residual_gym.real.rig_models import WATCHED_APART, scene_data, write_models
from oc_residual_gym.robots.constants import (
    FINGER_SPEED,
    GRASP_FORCE,
    HOME_JOINT_POSITIONS,
    JOINT_LOWER,
    JOINT_UPPER,
    MAX_OPENING,
)
from oc_residual_gym.robots.kinematics import TCP_FROM_FLANGE, flange_pose, forward_kinematics
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.lift import LIFT_HEIGHT, MASS
from oc_residual_gym.worlds.impedance import ROTATIONAL_STIFFNESS, TRANSLATIONAL_STIFFNESS

GRAVITY = 9.81
LIFT = TASKS["Lift"]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """The arm alone, with a block that nothing can touch."""
    _need_rig()
    with Rig(LIFT, LIFT.reset(np.random.default_rng(0))) as opened:
        yield opened


def _need_rig() -> None:
    if reason := rig_available():
        pytest.skip(f"the rig cannot be installed here: {reason}")


class Client:
    """A robot's client as plain as can be, at home, and a listener to the rig."""

    def __init__(self, rig: Rig):
        self.robot = franky.Robot(rig.host, realtime_config=franky.RealtimeConfig.Ignore)
        tool = np.eye(4)
        tool[:3, :3], tool[:3, 3] = Rotation.from_quat(TCP_FROM_FLANGE[3:]).as_matrix(), TCP_FROM_FLANGE[:3]
        self.robot.set_ee(tool.T.ravel().tolist())
        # Compliant: a joint motion of franky's ends in a reflex where a busy machine delays single commands.
        move_joints(self.robot, HOME_JOINT_POSITIONS, speed_cap=0.2, pause=time.sleep)

    @property
    def pose(self) -> np.ndarray:
        pose = self.robot.state.O_T_EE
        return np.concatenate([np.ravel(pose.translation), np.ravel(pose.quaternion)])

    def tracker(self) -> Any:
        return franky.CartesianImpedanceTracker(
            self.robot,
            translational_stiffness=TRANSLATIONAL_STIFFNESS,
            rotational_stiffness=ROTATIONAL_STIFFNESS,
            translational_error_clip=[0.04] * 3,
            rotational_error_clip=[0.25] * 3,
            period=0.005,
        )

    def follow(self, tracker: Any, start: np.ndarray, end: np.ndarray, seconds: float, settle: float = 1.0) -> None:
        """In a straight line between two poses (7,), then wait there; in the robot's own time."""
        begun, first = robot_seconds(self.robot), Rotation.from_quat(start[3:])
        turn = (first.inv() * Rotation.from_quat(end[3:])).as_rotvec()
        while (passed := robot_seconds(self.robot) - begun) < seconds + settle:
            share = min(passed / seconds, 1.0)
            quat = (first * Rotation.from_rotvec(share * turn)).as_quat()
            tracker.set_target(franky.Affine(start[:3] + share * (end[:3] - start[:3]), quat))
            assert tracker.tick() is not None, f"the robot stopped: {self.robot.state.current_errors}"


@pytest.fixture(scope="module")
def client(rig: Rig) -> Client:
    return Client(rig)


def listen(address: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True, seconds: float = PATIENCE) -> Any:
    """The first new message that is ``wanted``; None if none came in time."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(address)
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if socket.poll(int(1000 * left)) and wanted(message := socket.recv_json()):
                return message
    return None


SELF_CONTACT = """
import json, re, sys
import mujoco, numpy as np
model = mujoco.MjModel.from_xml_path(sys.argv[1])
data, result = mujoco.MjData(model), []
links = [int(re.findall(r"link(\\d)", model.geom(g).name)[0]) for g in range(model.ngeom)]
for q in json.load(sys.stdin):
    data.qpos[:] = q
    mujoco.mj_forward(model, data)
    apart = [abs(links[c.geom1] - links[c.geom2]) for c in data.contact]
    result.append([data.nefc, data.ncon, min(apart, default=9)])
json.dump(result, sys.stdout)
"""


def test_the_arm_has_no_self_contact_but_links_that_come_near_are_reported(tmp_path: Path) -> None:
    _need_rig()
    models, generator = write_models(None, None, tmp_path), np.random.default_rng(0)
    anywhere = generator.uniform(JOINT_LOWER, JOINT_UPPER, (1000, 7))
    at_home = HOME_JOINT_POSITIONS + generator.uniform(-0.4, 0.4, (100, 7))
    # In the rig's MuJoCo: what margins and gaps mean has changed since.
    command = [str(python_of(ensure_rig())), "-c", SELF_CONTACT, models["FR3_MJCF"]]
    configurations = json.dumps([*anywhere.tolist(), *at_home.tolist()])
    answer = subprocess.run(command, input=configurations, capture_output=True, text=True, check=True)
    pushing, near, apart = np.transpose(json.loads(answer.stdout))
    assert not pushing.any()
    assert near[:1000].any() and not near[1000:].any()
    assert (apart >= WATCHED_APART).all()


def test_the_flange_is_where_the_joints_put_it(tmp_path: Path) -> None:
    write_models(None, None, tmp_path)
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "arm.xml"))
    data = mujoco.MjData(model)
    for q in np.random.default_rng(1).uniform(JOINT_LOWER, JOINT_UPPER, (20, 7)):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        flange, expected = data.body("fr3_link7"), flange_pose(q)
        np.testing.assert_allclose(flange.xpos, expected[:3], atol=1e-9)
        assert abs(flange.xquat[[1, 2, 3, 0]] @ expected[3:]) == pytest.approx(1.0, abs=1e-9)


def test_published_objects_are_those_of_the_task(task: str) -> None:
    specification = TASKS[task]
    start = specification.reset(np.random.default_rng(0))
    data = scene_data(specification, start, True, "tracker")
    assert list(data["objects"]) == [o.name for o in specification.objects]
    for name, entry in data["objects"].items():
        if name in start.poses:
            np.testing.assert_allclose(entry["pose"], start.poses[name])
    if task == "CloseDrawer":
        open_drawer = next(iter(start.slides))
        assert data["objects"]["drawer"]["body"] == open_drawer
        shift = np.subtract(data["objects"]["drawer"]["pose"][:2], start.poses["cabinet"][:2])
        assert np.linalg.norm(shift) == pytest.approx(start.slides[open_drawer])


def test_the_robot_reports_our_tcp(client: Client) -> None:
    expected = forward_kinematics(np.array(client.robot.state.q))
    np.testing.assert_allclose(client.pose[:3], expected[:3], atol=1e-4)
    assert abs(client.pose[3:] @ expected[3:]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("axis", range(3), ids="xyz")
def test_a_step_of_50_mm_moves_50_mm(client: Client, axis: int) -> None:
    start = client.pose
    end = start.copy()
    end[axis] += 0.05
    with client.tracker() as tracker:
        client.follow(tracker, start, end, seconds=0.4, settle=1.2)
        moved = client.pose
        client.follow(tracker, end, start, seconds=0.4, settle=0.6)
    np.testing.assert_allclose(moved[:3] - start[:3], end[:3] - start[:3], atol=0.003)


def test_the_hand_closes_and_opens_at_its_speed(rig: Rig, client: Client) -> None:
    hand, begun = franky.Gripper(rig.host), time.monotonic()
    assert hand.grasp(0.0, FINGER_SPEED, GRASP_FORCE, 0.0, MAX_OPENING)
    assert time.monotonic() - begun > 0.9 * MAX_OPENING / FINGER_SPEED
    assert hand.width < 0.001
    assert hand.move(MAX_OPENING, FINGER_SPEED)
    assert hand.width == pytest.approx(MAX_OPENING, abs=0.001)


def test_a_blocked_hand_can_be_stopped_and_works_again(rig: Rig, client: Client) -> None:
    hand = franky.Gripper(rig.host)
    rig.hand("block")
    closing = hand.grasp_async(0.0, FINGER_SPEED, GRASP_FORCE, 0.0, MAX_OPENING)
    assert not closing.wait(0.5)
    assert hand.width == pytest.approx(MAX_OPENING, abs=0.001)
    assert hand.stop()
    with pytest.raises(franky.CommandException):
        closing.get()
    rig.hand("")
    assert hand.grasp(0.0, FINGER_SPEED, GRASP_FORCE, 0.0, MAX_OPENING) and hand.move(MAX_OPENING, FINGER_SPEED)


def test_poses_come_with_a_trackers_errors(rig: Rig) -> None:
    def soon(message: dict[str, Any]) -> bool:
        block = message["objects"]["block"]
        return bool(block["status"] == "tracking" and block["age"] < 0.2)  # a busy machine delays single ones

    block = listen(rig.poses_address, soon)["objects"]["block"]
    true = listen(rig.truth_address)["qpos"]["block"]
    error = np.linalg.norm(np.subtract(block["position"], true[:3]))
    assert 0.0 < error < 0.015
    assert block["age"] >= 0.05


def test_pose_faults_are_seen(rig: Rig) -> None:
    def block() -> dict[str, Any]:
        return dict(
            listen(rig.poses_address, lambda m: m["objects"]["block"]["status"] == "tracking")["objects"]["block"]
        )

    true = np.array(listen(rig.truth_address)["qpos"]["block"][:3])
    rig.poses("jump")
    assert np.linalg.norm(block()["position"] - true) > 0.2
    rig.poses("freeze")
    assert block() == block()
    rig.poses("silent")
    time.sleep(0.1)
    assert listen(rig.poses_address, seconds=0.5) is None
    rig.poses("normal")
    assert np.linalg.norm(block()["position"] - true) < 0.015


def test_a_late_link_ends_the_motion(rig: Rig, client: Client) -> None:
    pose = client.pose

    def hold_until_stopped() -> None:
        with client.tracker() as tracker:
            client.follow(tracker, pose, pose, seconds=0.1, settle=0.2)
            rig.delay_link(0.1)
            while tracker.tick() is not None:
                pass

    with pytest.raises(franky.ControlException, match="communication_constraints_violation"):
        hold_until_stopped()
    rig.delay_link(0.0)
    time.sleep(0.3)
    client.robot.recover_from_errors()
    with client.tracker() as tracker:
        client.follow(tracker, client.pose, client.pose, seconds=0.1, settle=0.2)


MOVES = """
import sys
import franky
robot = franky.Robot(sys.argv[1], realtime_config=franky.RealtimeConfig.Ignore)
robot.relative_dynamics_factor = 0.4
for _ in range(2):
    for goal in (HOME, AWAY):
        robot.move(franky.JointMotion(goal))
        print(list(map(float, robot.state.q)))
"""
PAUSES = """
import os, random, signal, sys, time
generator = random.Random(0)
while True:
    time.sleep(generator.uniform(0.0, 0.1))
    pid = int(generator.choice(sys.argv[1:]))
    os.kill(pid, signal.SIGSTOP)
    time.sleep(generator.uniform(0.002, 0.02))
    os.kill(pid, signal.SIGCONT)
"""


@pytest.mark.rig
def test_a_busy_machine_does_not_stop_the_robot() -> None:
    """Neither the server's nor the client's standing still for up to 20 cycles is the link's fault."""
    _need_rig()
    home, away = HOME_JOINT_POSITIONS.tolist(), (HOME_JOINT_POSITIONS + 0.1).tolist()
    moves = MOVES.replace("HOME", repr(home)).replace("AWAY", repr(away))
    with Rig() as rig:
        command = [sys.executable, "-c", moves, rig.host]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            pauses = subprocess.Popen([sys.executable, "-c", PAUSES, str(rig._process.pid), str(client.pid)])
            try:
                reached, problem = client.communicate(timeout=PATIENCE)
            finally:
                pauses.kill()
                pauses.wait()
                os.kill(rig._process.pid, signal.SIGCONT)
                client.kill()
        assert client.returncode == 0, problem
        link = rig.link()
    np.testing.assert_allclose([json.loads(line) for line in reached.splitlines()], [home, away] * 2, atol=0.01)
    # A robot would not have waited.
    assert link["late"] > 0 and link["latest_ms"] > 5.0


def test_bad_requests_are_refused(rig: Rig) -> None:
    with pytest.raises(RigError, match="unknown request"):
        rig.poses("wild")  # type: ignore[arg-type]
    with (
        pytest.raises(ValueError, match="error model"),
        Rig(LIFT, LIFT.reset(np.random.default_rng(0)), pose_errors="x"),
    ):
        pass
    with pytest.raises(ValueError, match="full scene"):
        Rig(full_scene=True)


@pytest.mark.rig
def test_a_block_is_grasped_lifted_and_weighed_through_the_wire() -> None:
    _need_rig()
    start = LIFT.reset(np.random.default_rng(0))
    with Rig(LIFT, start, full_scene=True, pose_errors="clean") as rig:
        client, hand = Client(rig), franky.Gripper(rig.host)
        resting = np.array(listen(rig.truth_address)["qpos"]["block"])
        np.testing.assert_allclose(resting[:3], start.poses["block"][:3], atol=2e-4)
        home = client.pose
        # The fingers close along the block's short side.
        turn = Rotation.from_quat(resting[3:]) * Rotation.from_quat(home[3:])
        above, grasp = (np.concatenate([resting[:2], [z], turn.as_quat()]) for z in (0.12, 0.02))
        with client.tracker() as tracker:
            client.follow(tracker, home, above, seconds=1.5, settle=0.2)
            client.follow(tracker, above, grasp, seconds=0.8, settle=0.5)
            closing = hand.grasp_async(0.0, FINGER_SPEED, GRASP_FORCE, 0.0, MAX_OPENING)
            client.follow(tracker, grasp, grasp, seconds=0.8)
            assert closing.get() and hand.width == pytest.approx(0.04, abs=0.001)
            client.follow(tracker, grasp, above, seconds=1.0)
            lifted, reported = listen(rig.truth_address), np.array(client.robot.state.O_F_ext_hat_K)
            closing = hand.move_async(MAX_OPENING, FINGER_SPEED)
            client.follow(tracker, above, above, seconds=1.0)
            assert closing.get()
        dropped = listen(rig.truth_address)["qpos"]["block"]
    assert lifted["qpos"]["block"][2] - resting[2] > LIFT_HEIGHT
    assert lifted["wrench"][2] == pytest.approx(-MASS * GRAVITY, abs=0.2)
    assert reported[2] == pytest.approx(MASS * GRAVITY, abs=0.2)
    assert dropped[2] < 0.06


@pytest.mark.rig
def test_objects_can_be_put_elsewhere_and_a_killed_server_is_gone() -> None:
    _need_rig()
    task = TASKS["CloseDrawer"]
    first, second = (task.reset(np.random.default_rng(seed)) for seed in (0, 3))
    with Rig(task, first, full_scene=True) as rig:
        rig.place(second)
        truth = listen(
            rig.truth_address, lambda m: np.allclose(m["qpos"]["cabinet"][:2], second.poses["cabinet"][:2], atol=1e-3)
        )
        for drawer, opening in second.slides.items():
            assert truth["slides"][drawer][0] == pytest.approx(opening, abs=1e-3)
        rig.kill()
        assert listen(rig.truth_address, seconds=0.3) is None
        with pytest.raises(RigError, match="did not answer"):
            rig.poses("normal")
