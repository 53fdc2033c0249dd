"""Poses of a real cell: messages, calibration, and what is believed of a tracker."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.cli import _parser
from oc_residual_gym.errors import MessageError, RobotStopped, SettingsError, StopReason
from oc_residual_gym.perception.calibration import Calibration, load_calibration
from oc_residual_gym.perception.messages import TrackedPose, read_message
from oc_residual_gym.perception.ros2_source import read_pose_stamped
from oc_residual_gym.perception.sources import ZmqPoseSource, open_source
from oc_residual_gym.real.cell import Poses, load_cell
from oc_residual_gym.real.tracking import TrackedObjects
from oc_residual_gym.tasks.base import ObservedObject

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
HOME = np.array([[0.42, 0.0, 0.28, 1.0, 0.0, 0.0, 0.0]])
PLACE = np.array([0.5, 0.1, 0.02, 0.0, 0.0, 0.0, 1.0])
MESSAGE = {
    "schema": "oc-residual-poses",
    "version": 1,
    "frame": "base",
    "calibration": "shoulder-1",
    "objects": {
        "block": {"position": [0.5, 0.1, 0.02], "quaternion": [0, 0, 0, 1], "status": "tracking", "age": 0.05},
        "plate": {"status": "lost", "age": 0.05},
    },
}


class FakeSource:
    """A tracker that says what a test wants, and a clock that stands still in between."""

    def __init__(self):
        self.now, self.frame, self.calibration, self.age = 100.0, "base", "", 0.03
        self.tracked: dict[str, TrackedPose] = {}
        self.scripts, self.status, self.count = {}, "tracking", 0

    def latest(self):
        return dict(self.tracked)

    def problem(self):
        return ""

    def close(self):
        pass

    def clock(self):
        return self.now

    def advance(self, seconds):
        """Time passes; every object for which there is a script is seen again."""
        self.now += seconds
        self.count += 1
        for name, script in self.scripts.items():
            if (pose := script(self.count)) is not None:
                status = pose if isinstance(pose, str) else self.status
                pose = np.full(7, np.nan) if isinstance(pose, str) else np.asarray(pose)
                self.tracked[name] = TrackedPose(pose, self.now - self.age, status)


def shifted(axis, distance):
    return PLACE + distance * np.eye(7)[axis]


def noisy(place=PLACE, seed=0):
    generator = np.random.default_rng(seed)
    return lambda count: np.r_[place[:3] + generator.normal(0, 0.001, 3), place[3:]]


def tracked(scripts, symmetries=None, calibration=None, **settings):
    source = FakeSource()
    source.scripts = scripts
    objects = [ObservedObject(name, (symmetries or {}).get(name, "none")) for name in scripts]
    poses = replace(Poses("tcp://nobody:1"), **settings)
    return TrackedObjects(objects, source, poses, calibration, source.clock, source.advance), source


def start(tracker):
    tracker.reset(np.array([0]), [])


def run(tracker, source, steps, tcp=HOME):
    """Observe for so many control steps; return which were seen, and the first fault with the seconds to it."""
    seen, began = [], source.now
    for _ in range(steps):
        source.advance(0.05)
        seen.append(tracker.observe(tcp)[1][0])
        if fault := tracker.fault():
            return np.array(seen), fault, source.now - began
    return np.array(seen), None, source.now - began


# ---------------------------------------------------------------- what is believed


def test_a_tracked_object_is_seen_where_it_is():
    tracker, source = tracked({"block": noisy()})
    start(tracker)
    source.advance(0.05)
    poses, valid = tracker.observe(HOME)
    assert poses.shape == (1, 1, 7) and valid.tolist() == [[True]]
    np.testing.assert_allclose(poses[0, 0], PLACE, atol=0.01)
    assert tracker.readings.states == ("used",)
    assert tracker.readings.ages[0] == pytest.approx(0.03)
    assert tracker.newest_stamp == pytest.approx(source.now - 0.03)
    assert not tracker.wrench_noise().any()


def test_an_old_pose_is_not_used():
    tracker, source = tracked({"block": noisy()})
    start(tracker)
    source.age = 0.25
    seen, fault, _ = run(tracker, source, 2)
    assert not seen.any() and fault is None
    assert tracker.readings.states == ("old",)
    assert np.isfinite(tracker.readings.poses).all()  # the trial's file keeps what was not believed


def test_a_pose_between_two_images_is_used_until_it_is_old():
    tracker, source = tracked({"block": noisy()}, max_age=0.2)
    start(tracker)
    source.scripts = {"block": lambda count: None}
    seen, _, _ = run(tracker, source, 6)
    assert seen[:, 0].tolist() == [True, True, True, False, False, False]


def test_a_jump_that_stays_is_never_believed():
    tracker, source = tracked({"block": noisy()}, reacquire=5)
    start(tracker)
    source.scripts["block"] = noisy(shifted(0, 0.2))
    seen, fault, seconds = run(tracker, source, 20)
    assert not seen.any() and fault is not None and fault[0] is StopReason.POSES_JUMPED
    assert re.search(r"'block' is 20 cm and 0 degrees from where it was", fault[1]) and seconds < 0.3
    start(tracker)  # the operator has looked after it: wherever it is now, it may be
    assert tracker.observe(HOME)[0][0, 0, 0] == pytest.approx(0.7, abs=0.01)


def test_a_single_wrong_reading_is_left_out():
    tracker, source = tracked({"block": noisy()})
    start(tracker)
    source.scripts["block"] = lambda count: shifted(0, 1e-5 * count + (0.3 if count % 4 == 0 else 0.0))
    seen, fault, _ = run(tracker, source, 40)
    assert fault is None and 28 <= seen.sum() <= 32


def test_an_object_may_move_with_the_tool():
    tracker, source = tracked({"block": noisy()})
    start(tracker)
    run(tracker, source, 3)
    # Hidden while the tool carries it 15 cm; then it is where the tool has brought it.
    hidden = {"block": lambda count: "lost"}
    source.scripts, tcp = hidden, HOME.copy()
    tcp[0, :3] = PLACE[:3]
    for _ in range(15):
        tcp[0, 1] += 0.01
        run(tracker, source, 1, tcp)
    source.scripts = {"block": noisy(shifted(1, 0.15))}
    seen, _, _ = run(tracker, source, 1, tcp)
    assert seen.all()


@pytest.mark.parametrize(("symmetry", "axis", "degrees", "expected"), [
    ("yaw_180", "z", 180, True), ("yaw_180", "z", 90, False), ("yaw_90", "z", 90, True), ("axis_z", "z", 77, True),
    ("none", "z", 180, False), ("axis_z", "x", 180, False), ("cylinder", "x", 180, True), ("bar", "x", 90, True),
    ("bar", "z", 180, True), ("bar", "z", 90, False), ("cube", "y", 90, True), ("cube", "y", 45, False),
])  # fmt: skip
def test_looking_the_same_is_no_jump(symmetry, axis, degrees, expected):
    tracker, source = tracked({"block": noisy()}, {"block": symmetry})
    start(tracker)
    turned = np.r_[PLACE[:3], Rotation.from_euler(axis, degrees, degrees=True).as_quat()]
    source.scripts["block"] = noisy(turned)
    seen, _, _ = run(tracker, source, 1)
    assert bool(seen.all()) is expected


# ---------------------------------------------------------------- faults


def test_silence_stops_the_arm():
    tracker, source = tracked({"block": noisy(), "plate": noisy(PLACE * 0.9)}, silence_limit=1.0)
    start(tracker)
    source.scripts.pop("plate")
    _, fault, seconds = run(tracker, source, 60)
    assert fault is not None and fault[0] is StopReason.POSES_SILENT and "'plate'" in fault[1]
    assert 0.9 < seconds <= 1.05


def test_jumping_about_stops_the_arm():
    tracker, source = tracked({"block": noisy()}, silence_limit=1.0)
    start(tracker)
    source.scripts["block"] = lambda count: shifted(0, 0.15 * (1 + count % 3))
    _, fault, seconds = run(tracker, source, 60)
    assert fault is not None and fault[0] is StopReason.POSES_JUMPED
    assert seconds <= 1.2


def test_the_same_numbers_again_and_again_stop_the_arm():
    tracker, source = tracked({"block": noisy()})
    start(tracker)
    source.scripts["block"] = lambda count: PLACE
    _, fault, seconds = run(tracker, source, 60)
    assert fault is not None and fault[0] is StopReason.POSES_FROZEN
    assert seconds <= 0.7
    with pytest.raises(RobotStopped, match="very same numbers") as stopped:
        start(tracker)
    assert stopped.value.reason is StopReason.POSES_FROZEN
    source.scripts["block"] = noisy()
    start(tracker)
    assert tracker.fault() is None


def test_one_image_sent_twice_is_no_frozen_tracker():
    tracker, source = tracked({"block": noisy()})
    start(tracker)
    for count in range(30):  # an image every 0.1 s, its pose sent at 20 Hz with its true age
        source.now += 0.05
        pose = shifted(0, 1e-4 * (count // 2))
        source.tracked["block"] = TrackedPose(pose, source.now - 0.03 - 0.05 * (count % 2) + 1e-4 * count, "tracking")
        tracker.observe(HOME)
        assert tracker.fault() is None


def test_an_object_that_was_measured_once_does_not_count_as_frozen():
    tracker, source = tracked({"hole": lambda count: PLACE})
    source.status = "fixed"
    start(tracker)
    seen, fault, _ = run(tracker, source, 40)
    assert seen.all() and fault is None


def test_an_occluded_object_is_a_dropout_first_and_a_fault_later():
    tracker, source = tracked({"block": noisy()}, lost_limit=3.0)
    start(tracker)
    source.scripts["block"] = lambda count: "lost"
    seen, fault, seconds = run(tracker, source, 100)
    assert not seen.any()
    assert fault is not None and fault[0] is StopReason.POSES_SILENT and "lost" in fault[1]
    assert 2.9 < seconds < 3.2


def test_a_pause_of_the_program_is_no_fault_of_the_poses():
    tracker, source = tracked({"block": noisy()})
    start(tracker)
    source.now += 30.0  # the base policy loads its model; the tracker goes on
    source.advance(0.05)
    assert tracker.fault() is None
    seen, fault, _ = run(tracker, source, 2)
    assert seen.all() and fault is None


def test_an_episode_does_not_start_without_every_object():
    tracker, source = tracked({"block": noisy(), "plate": lambda count: "lost"})
    with pytest.raises(RobotStopped, match=r"'plate': lost") as stopped:
        start(tracker)
    assert stopped.value.reason is StopReason.POSES_SILENT and source.now < 106


def test_the_first_pose_is_not_believed_alone():
    good = noisy()
    tracker, source = tracked({"block": lambda count: shifted(0, 0.4) if count == 1 else good(count)})
    start(tracker)
    source.advance(0.05)
    assert tracker.observe(HOME)[0][0, 0, 0] == pytest.approx(0.5, abs=0.01)


# ---------------------------------------------------------------- calibration


CAMERA = np.r_[0.05, -0.65, 0.75, Rotation.from_euler("xyz", [-2.3, 0.1, -0.4]).as_quat()]


def camera(name="shoulder-1"):
    return Calibration(name, "2030-01-31", "chessboard in the hand", CAMERA, 1.2)


def test_poses_in_the_camera_frame_are_brought_into_the_base_frame():
    turn = Rotation.from_quat(CAMERA[3:])
    in_camera = np.r_[turn.inv().apply(PLACE[:3] - CAMERA[:3]), (turn.inv() * Rotation.from_quat(PLACE[3:])).as_quat()]
    tracker, source = tracked({"block": noisy(in_camera)}, calibration=camera())
    source.frame = "camera"
    start(tracker)
    source.advance(0.05)
    np.testing.assert_allclose(tracker.observe(HOME)[0][0, 0, :3], PLACE[:3], atol=0.01)
    assert tracker.calibration_label.startswith("shoulder-1 (")
    moved = replace(camera(), base_from_camera=CAMERA + 1e-3)
    assert moved.label != camera().label


def test_a_calibration_that_is_missing_or_another_one_is_refused():
    tracker, source = tracked({"block": noisy()})
    source.frame = "camera"
    with pytest.raises(SettingsError, match="name the calibration's file"):
        start(tracker)
    tracker, source = tracked({"block": noisy()}, calibration=camera())
    source.calibration = "shoulder-0"
    with pytest.raises(SettingsError, match=r"'shoulder-0'.*'shoulder-1'"):
        start(tracker)


GOOD_CALIBRATION = """
id: shoulder-1
created: 2030-01-31
method: chessboard in the hand, 24 poses, Tsai
base_from_camera:
  position: [0.05, -0.65, 0.75]
  quaternion: [-0.766, 0.0, 0.0, 0.643]
rms_error_mm: 1.4
"""


def test_a_calibration_file_is_read(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(GOOD_CALIBRATION)
    calibration = load_calibration(path)
    assert (calibration.id, calibration.created, calibration.rms_error_mm) == ("shoulder-1", "2030-01-31", 1.4)
    assert np.linalg.norm(calibration.base_from_camera[3:]) == pytest.approx(1.0)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("[-0.766, 0.0, 0.0, 0.643]", "[0.0, 0.0, 0.0, 0.0]", "unit quaternion"),
    ("[0.05, -0.65, 0.75]", "[50, -650, 750]", "give metres"),
    ("[0.05, -0.65, 0.75]", "[.nan, 0, 0]", "3 finite numbers"),
    ("[0.05, -0.65, 0.75]", "[0, 0]", "3 finite numbers"),
    ("id: shoulder-1", "id: 7", "id is 7"),
    ("id: shoulder-1", "", "lacks id"),
    ("rms_error_mm: 1.4", "rms_error_mm: good", "give millimetres"),
    ("rms_error_mm: 1.4", "rms_error_mm: 1.4\ncamera: left", "unknown entry 'camera'"),
    ("id: shoulder-1", "id: [", "not a YAML"),
])  # fmt: skip
def test_a_wrong_calibration_file_says_what_is_wrong(tmp_path, old, new, message):
    path = tmp_path / "camera.yaml"
    path.write_text(GOOD_CALIBRATION.replace(old, new))
    with pytest.raises(SettingsError, match=message):
        load_calibration(path)
    with pytest.raises(SettingsError, match="cannot read"):
        load_calibration(tmp_path / "none.yaml")


# ---------------------------------------------------------------- messages


def test_a_message_is_read():
    message = read_message(json.dumps(MESSAGE), received=10.0)
    assert message.frame == "base" and message.calibration == "shoulder-1"
    assert message.objects["block"].stamp == pytest.approx(9.95)
    np.testing.assert_array_equal(message.objects["block"].pose, [0.5, 0.1, 0.02, 0, 0, 0, 1])
    assert message.objects["plate"].status == "lost"


@pytest.mark.parametrize(("entry", "value", "message"), [
    ("position", [0.5, 0.1], "'block'.*3 numbers"),
    ("position", [0.5, 0.1, float("nan")], "not finite"),
    ("position", [500, 100, 20], "give metres"),
    ("position", [0.5, 0.1, True], "give numbers"),
    ("position", [0.5, 0.1, 10**400], "too large"),
    ("position", None, "3 numbers"),
    ("quaternion", [1, 1, 0, 0], "length 1.414"),
    ("quaternion", [0, 0, 0, 0], "unit quaternion"),
    ("status", "ok", "'tracking', 'fixed', 'lost'"),
    ("status", ["tracking"], "'tracking', 'fixed', 'lost'"),
    ("age", -0.1, "seconds from the image"),
    ("age", 1.7e9, "seconds from the image"),
    ("age", "0.1", "give numbers"),
])  # fmt: skip
def test_a_wrong_entry_is_named(entry, value, message):
    wrong = json.loads(json.dumps(MESSAGE))
    wrong["objects"]["block"][entry] = value
    with pytest.raises(MessageError, match=message):
        read_message(json.dumps(wrong), 0.0)


@pytest.mark.parametrize(("text", "message"), [
    (b"\xff\x00", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "schema"), ("{}", "schema"),
    (json.dumps(MESSAGE | {"version": 2}), "reads 1"), (json.dumps(MESSAGE | {"frame": "world"}), "'base', 'camera'"),
    (json.dumps(MESSAGE | {"objects": []}), "objects"), (json.dumps(MESSAGE | {"calibration": 3}), "in quotes"),
])  # fmt: skip
def test_a_wrong_message_is_refused(text, message):
    with pytest.raises(MessageError, match=message):
        read_message(text, 0.0)


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


@pytest.fixture
def publisher():
    zmq = pytest.importorskip("zmq", reason='needs the extra "real" (pyzmq)')
    socket = zmq.Context().socket(zmq.PUB)
    socket.bind_to_random_port("tcp://127.0.0.1")
    yield socket
    socket.context.destroy(linger=0)


def address_of(publisher):
    return publisher.getsockopt_string(importlib.import_module("zmq").LAST_ENDPOINT)


def test_messages_come_by_zeromq(publisher):
    source = ZmqPoseSource(address_of(publisher), ["block"])
    assert "nothing has come from" in source.problem() and source.frame == ""

    def sent_and_received():
        publisher.send_string(json.dumps(MESSAGE))
        return "block" in source.latest()

    wait_for(sent_and_received)
    assert source.frame == "base" and source.calibration == "shoulder-1" and source.problem() == ""
    assert 0.05 <= time.monotonic() - source.latest()["block"].stamp < 2.0
    assert "plate" not in source.latest()
    publisher.send_string(json.dumps(MESSAGE | {"frame": "camera"}))
    publisher.send_string("{")
    wait_for(lambda: "2 of" in source.problem())
    assert "not JSON" in source.problem()
    source.close()


def test_names_that_do_not_fit_are_told(publisher):
    source = ZmqPoseSource(address_of(publisher), ["cube"])

    def told():
        publisher.send_string(json.dumps(MESSAGE))
        return "'block'" in source.problem()

    wait_for(told)
    assert "'cube'" in source.problem()
    source.close()


@pytest.mark.parametrize("address", ["localhost:5555", "udp://host:1", "tcp://", "ros2://", "tcp://host:port"])
def test_a_malformed_address_is_refused(address):
    with pytest.raises(SettingsError, match="pose source"):
        open_source(address, ["block"])


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(SettingsError, match=re.escape('pip install "oc-residual-gym[real]"')):
        open_source("tcp://127.0.0.1:5555", ["block"])
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(SettingsError, match=r"setup\.bash"):
        open_source("ros2://tracker", ["block"])


def stamped(frame="fr3_link0", sec=1000, nanosec=0):
    point, turn = SimpleNamespace(x=0.5, y=0.1, z=0.02), SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
    header = SimpleNamespace(frame_id=frame, stamp=SimpleNamespace(sec=sec, nanosec=nanosec))
    return SimpleNamespace(header=header, pose=SimpleNamespace(position=point, orientation=turn))


def test_a_ros_message_is_read():
    message = read_pose_stamped("block", stamped(), now=1000.1, received=7.0)
    assert message.frame == "base" and message.objects["block"].stamp == pytest.approx(6.9)
    np.testing.assert_array_equal(message.objects["block"].pose, PLACE)
    assert read_pose_stamped("block", stamped("camera_color_optical_frame"), 1000.1, 7.0).frame == "camera"


@pytest.mark.parametrize(("message", "now", "text"), [
    (stamped(sec=0), 1000.0, "not set"), (stamped(""), 1000.0, "not set"), (stamped(), 900.0, "synchronise"),
])  # fmt: skip
def test_a_wrong_ros_message_is_refused(message, now, text):
    with pytest.raises(MessageError, match=text):
        read_pose_stamped("block", message, now, 7.0)


# ---------------------------------------------------------------- documentation


def test_the_documented_messages_are_read():
    page = (ROOT / "docs" / "pose_messages.md").read_text(encoding="utf-8")
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, flags=re.S)]
    schema, examples = blocks[0], blocks[1:]
    assert schema["properties"]["schema"]["const"] == "oc-residual-poses"
    assert schema["required"] == ["schema", "version", "frame", "objects"]
    assert examples
    for example in examples:
        assert read_message(json.dumps(example), 0.0).objects
        assert set(example) <= set(schema["properties"])


def test_the_documented_calibration_and_cell_are_read(tmp_path):
    page = (ROOT / "docs" / "pose_messages.md").read_text(encoding="utf-8")
    (tmp_path / "camera.yaml").write_text(re.findall(r"```yaml\n(.*?)```", page, flags=re.S)[0])
    calibration = load_calibration(tmp_path / "camera.yaml")
    assert calibration.id == load_calibration(ROOT / "examples" / "shoulder-1.yaml").id
    cell = load_cell(ROOT / "examples" / "cell.yaml")
    assert cell.robot.realtime and cell.robot.speed_cap <= 0.1 and cell.poses.calibration.endswith("shoulder-1.yaml")
    assert cell.poses == Poses(cell.poses.source, cell.poses.calibration)  # the defaults are what the pages say


def test_every_stop_reason_is_documented():
    page = (ROOT / "docs" / "real_robot.md").read_text(encoding="utf-8")
    assert [reason for reason in StopReason if f"| `{reason}` |" not in page] == []


def test_the_example_publisher_is_understood(publisher):
    address = address_of(publisher)
    publisher.unbind(address)
    script = EXAMPLES / "publish_foundationpose.py"
    process = subprocess.Popen([sys.executable, str(script), "--demo", "--bind", address])
    source = ZmqPoseSource(address, ["block"])
    try:
        wait_for(lambda: "block" in source.latest())
        calibration = load_calibration(EXAMPLES / "shoulder-1.yaml")
        tracker = TrackedObjects([ObservedObject("block", "yaw_180")], source, Poses(""), calibration)
        start(tracker)
        assert tracker.observe(HOME)[1].all() and source.problem() == ""
    finally:
        process.terminate()
        process.wait()
        source.close()


def test_the_documented_commands_exist():
    page = (ROOT / "docs" / "real_robot.md").read_text(encoding="utf-8")
    commands = re.findall(r"^oc-residual (.*)$", page, flags=re.M)
    assert len(commands) >= 5
    for command in commands:
        _parser().parse_args(shlex.split(command))
