"""Base policies on openpi and GR00T servers: real processes that speak these protocols over loopback."""

from __future__ import annotations

import dataclasses
import pickle
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import oc_residual_gym  # noqa: F401
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import BasePolicyError
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.server import COLUMNS, parse_address, state_columns, targets_from_actions
from oc_residual_gym.tasks import TASKS

image_tools = pytest.importorskip("openpi_client.image_tools", reason="needs the extra [openpi], which wants numpy < 2")
pytest.importorskip("websockets", reason="needs the extra [servers]")
pytest.importorskip("zmq", reason="needs the extra [servers]")

PROTOCOLS = ("openpi", "gr00t", "gr00t-n1.5")


class Server:
    """A server in a process of its own."""

    def __init__(self, protocol: str, answers: str, port: int = 0, record: Path | None = None):
        program = str(Path(__file__).with_name("vla_servers.py"))
        command = [sys.executable, program, protocol, str(port), answers, *([str(record)] if record else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        words = self.process.stdout.readline().split()
        assert words[:1] == ["ready"], "the server did not start"
        self.port = int(words[1])
        self.address = f"{protocol.split('-')[0]}://127.0.0.1:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def serve():
    """Start servers that end with the test."""
    servers = []

    def start(*args, **options):
        servers.append(Server(*args, **options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.kill()


def worlds_with(address, number=1):
    core = ResidualWorlds("Lift", number, base_policy=address)
    core.reset(np.arange(number), list(range(number)))
    return core


def run_to_failure(core, most=40):
    """Steps until the first world is truncated."""
    for step in range(1, most + 1):
        core.step(np.zeros((core.num_worlds, 7)))
        if core.truncated[0]:
            return step
    raise AssertionError("no failure")


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [
        *(("openpi", answer) for answer in ("good", "rows", "all")),
        *((protocol, answer) for protocol in PROTOCOLS[1:] for answer in ("good", "rows", "quaternion")),
    ],
)
def test_an_episode_executes_the_targets_that_the_server_returns(serve, protocol, answer):
    env = gym.make("OCResidual-Lift-v0", base_policy=serve(protocol, answer).address)
    robot = env.unwrapped.core.world.robot
    env.reset(seed=0)
    for _ in range(3):
        start = robot.tcp_pose[0].copy()
        for step in range(1, 17):
            _, _, terminated, truncated, info = env.step(np.zeros(7))
            expected = [*start[:2], start[2] + 0.001 * step]
            np.testing.assert_allclose(info["executed_target"][:3], expected, atol=1e-6)
            assert abs(info["executed_target"][3:7] @ start[3:]) == pytest.approx(1.0, abs=1e-6)
            assert info["executed_target"][7] == 1.0
            assert not terminated and not truncated
    env.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_each_of_many_worlds_gets_its_own_targets(serve, protocol):
    core = worlds_with(serve(protocol, "good").address, number=3)
    sideways = np.zeros((3, 7))
    sideways[:, 1] = [-0.5, 0.0, 0.5]
    for _ in range(16):
        core.step(sideways)
    start = core.world.robot.tcp_pose.copy()
    assert (np.diff(start[:, 1]) > 0.005).all()
    np.testing.assert_allclose(core.base_target[:, :3], start[:, :3] + [0, 0, 0.001], atol=1e-6)


def test_openpi_server_is_sent_what_its_own_client_library_would_send(serve, tmp_path):
    from openpi_client import msgpack_numpy

    core = worlds_with(serve("openpi", "good", record=tmp_path / "request").address)
    sent = msgpack_numpy.unpackb((tmp_path / "request").read_bytes())
    assert set(sent) == {"observation/image", "observation/wrist_image", "observation/state", "prompt"}
    for key, camera in {"observation/image": "shoulder", "observation/wrist_image": "wrist"}.items():
        image = core.simulation.render(0, camera, (128, 128))
        assert image.any()
        np.testing.assert_array_equal(sent[key], image_tools.resize_with_pad(image, 224, 224))
    check_state(core, sent["observation/state"])
    assert sent["prompt"] == core.task.instruction


def test_gr00t_server_is_sent_what_its_modality_configuration_asks_for(serve, tmp_path):
    from vla_servers import STATE, unpack

    core = worlds_with(serve("gr00t", "good", record=tmp_path / "request").address)
    request = unpack((tmp_path / "request").read_bytes())
    assert request["endpoint"] == "get_action" and request["data"]["options"] is None
    sent = request["data"]["observation"]
    for camera in ("shoulder", "wrist"):
        np.testing.assert_array_equal(sent["video"][camera][0, 0], core.simulation.render(0, camera, (128, 128)))
    check_state(core, np.concatenate([sent["state"][key][0, 0] for key in STATE]))
    assert sent["language"] == {"annotation.human.task_description": [[core.task.instruction]]}


def check_state(core, state):
    robot = core.world.robot
    matrix = Rotation.from_quat(robot.tcp_pose[0, 3:]).as_matrix()
    pose, quaternion = robot.tcp_pose[0], robot.tcp_pose[0, 3:] * np.sign(robot.tcp_pose[0, 3])
    columns = [pose[:3], matrix[0], matrix[1], quaternion, robot.joint_positions[0], robot.gripper_width / 0.08]
    assert state.dtype == np.float32
    np.testing.assert_allclose(state, np.concatenate(columns), atol=1e-6)


def test_tilted_tools_survive_the_way_into_columns_and_back_in_every_width():
    core = ResidualWorlds("Lift", 5)
    core.reset(np.arange(5), list(range(5)))
    rotation = Rotation.random(5, random_state=0)
    pose = np.concatenate([core.world.robot.tcp_pose[:, :3], rotation.as_quat()], axis=1)
    state = state_columns(dataclasses.replace(core.view(np.arange(5), frozenset()), tcp_pose=pose))
    np.testing.assert_allclose(state[:, 3:9], rotation.as_matrix()[:, :2].reshape(5, 6), atol=1e-6)
    assert (state[:, 9] >= 0).all()
    rows = state[:, None].astype(np.float64)
    rows[..., 3:9] *= 1.2  # predictions are not exactly of unit length
    for columns in ([*range(3), *range(9, 13), 20], [*range(9), 20], [*range(21)]):
        targets = targets_from_actions(rows[..., columns])
        np.testing.assert_allclose(targets[:, 0, :3], pose[:, :3], atol=1e-6)
        assert Rotation.from_quat(targets[:, 0, 3:7]).approx_equal(rotation, atol=1e-6).all()
        np.testing.assert_allclose(targets[:, 0, 7], state[:, 20], atol=1e-6)
    rows[1, 0, 6:9] = rows[1, 0, 3:6]  # two equal rows are no rotation
    rows[2, 0, 4] = np.nan
    broken = np.isnan(targets_from_actions(rows)).any(axis=(1, 2))
    assert broken.tolist() == [False, True, True, False, False]


def test_columns_are_those_of_the_exported_datasets():
    from demos_replay.writers.lerobot import SLICES

    assert {name: slice(*ends) for name, ends in SLICES.items()} == COLUMNS


def test_horizon_is_that_of_the_servers_chunks_unless_the_address_asks_for_less(serve):
    address = serve("openpi", "good").address
    assert ResidualWorlds("Lift", 1, base_policy=address).base_policy.horizon == 16
    core = worlds_with(f"{address}?horizon=5")
    start = core.world.robot.tcp_pose[0, 2]
    for _ in range(4):
        core.step(np.zeros((1, 7)))
    assert core.base_target[0, 2] == pytest.approx(start + 0.005, abs=1e-6)
    core.step(np.zeros((1, 7)))
    assert core.base_target[0, 2] == pytest.approx(core.world.robot.tcp_pose[0, 2] + 0.001, abs=1e-6)
    with pytest.raises(ValueError, match="chunks of 16 targets"):
        ResidualWorlds("Lift", 1, base_policy=f"{address}?horizon=17")


BAD_ANSWERS = {
    "error": "the server reports: RuntimeError: out of GPU memory",
    "garbage": "cannot be read",
    "objects": "cannot be read",  # arrays of Python objects, which would have to be unpickled
    "hang": "no answer in 2 s",
    "nan": "not finite",
    "narrow": "; expected",
    "velocities": "far from unit length",
    "short": "4 targets where 16 are executed",
    "millimetres": "millimetres? Divide positions by 1000",
    "signed": "Give (1 + x) / 2 if 1 opens it",
    "loud": "the server reports: ",
}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
@pytest.mark.parametrize("protocol", ["openpi", "gr00t"])
def test_bad_answer_truncates_the_episode_and_says_why_and_the_next_one_works(serve, protocol, answer):
    # Answers: for making the environment, for the first chunk, and for the second one.
    server = serve(protocol, f"good,good,{answer},good")
    core = worlds_with(f"{server.address}?timeout={2 if answer == 'hang' else 30}")
    assert run_to_failure(core) == 16
    assert core.failure[0] == "base_policy_failed"
    (problem,) = core.base_policy_problem
    assert BAD_ANSWERS[answer] in problem and server.address in problem
    assert problem.isprintable() and len(problem) < 700
    if answer == "hang":  # this server does one thing at a time
        server.kill()
        serve(protocol, "good", port=server.port)
    core.reset(np.array([0]), [1])
    assert not core.base_policy_failed[0]
    for _ in range(20):
        core.step(np.zeros((1, 7)))
    assert not core.truncated[0]


@pytest.mark.parametrize(
    ("protocol", "answer", "cause"),
    [
        ("openpi", "wxyz", "wxyz? Reorder to xyzw"),
        ("openpi", "joints", "the arm's joint positions in radians"),
        ("gr00t", "signed", "a gripper from -1 to 1?"),
    ],
)
def test_server_with_other_conventions_never_moves_the_arm(serve, protocol, answer, cause):
    core = ResidualWorlds("Lift", 1, base_policy=serve(protocol, f"good,{answer}").address)
    core.reset(np.array([0]), [0])
    before = core.executed_target.copy()
    core.step(np.zeros((1, 7)))
    assert core.failure[0] == "base_policy_failed" and cause in core.base_policy_problem[0]
    np.testing.assert_allclose(core.executed_target, before, atol=1e-9)


@pytest.mark.parametrize(
    ("answer", "cause"), [("inverted", "give 1 - opening"), ("width", r"widths in metres, divide by 0\.08")]
)
def test_server_with_suspicious_gripper_is_warned_of_once(serve, answer, cause):
    core = ResidualWorlds("Lift", 1, base_policy=serve("openpi", f"good,{answer}").address)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        core.reset(np.array([0]), [0])
        core.reset(np.array([0]), [1])
    (warning,) = [w for w in warned if "base policy" in str(w.message)]
    assert re.search(cause, str(warning.message)) and not core.base_policy_failed[0]


@pytest.mark.parametrize("protocol", ["openpi", "gr00t"])
def test_lost_server_truncates_the_episode_and_a_restarted_one_works_again(serve, protocol):
    server = serve(protocol, "good")
    env = gym.make("OCResidual-Lift-v0", base_policy=f"{server.address}?timeout=2")
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros(7))
    server.kill()
    truncated = False
    while not truncated:
        *_, truncated, info = env.step(np.zeros(7))
    assert info["failure"] == "base_policy_failed"
    with pytest.raises(BasePolicyError, match=f"127.0.0.1:{server.port}"):
        env.reset(seed=1)
    serve(protocol, "good", port=server.port)
    env.reset(seed=1)
    assert not env.step(np.zeros(7))[3]
    env.close()


@pytest.mark.parametrize("protocol", ["openpi", "gr00t"])
def test_server_that_stops_reading_does_not_stop_the_environment(serve, protocol, monkeypatch):
    server = serve(protocol, "good")
    core = worlds_with(f"{server.address}?timeout=0.3")
    server.process.send_signal(signal.SIGSTOP)
    # More than the network's buffers hold.
    monkeypatch.setattr("oc_residual_gym.policies.openpi.IMAGE_SIZE", (2000, 2000))
    assert run_to_failure(core) == 16
    assert core.failure[0] == "base_policy_failed"


@pytest.mark.parametrize("scheme", ["openpi", "gr00t"])
def test_unreachable_server_is_an_error_when_the_environment_is_made(scheme):
    with pytest.raises(ValueError, match=r"answers at 127.0.0.1:9\b.*start it"):
        gym.make("OCResidual-Lift-v0", base_policy=f"{scheme}://127.0.0.1:9?timeout=0.5")


@pytest.mark.parametrize(
    ("protocol", "answer", "message"),
    [
        ("openpi", "hang", "no answer in 1.2 s"),
        ("openpi", "wide", r"32 columns \(shape \(16, 32\)\)"),
        ("openpi", "velocities", "far from unit length"),
        ("openpi", "nan", "not finite"),
        ("openpi", "signed", r"Give \(1 \+ x\) / 2"),
        ("openpi", "long", r"chunks of 300 targets: add \?horizon=N.*256 at most"),
        ("gr00t", "claims", "cannot be read"),
        ("gr00t", "hang", "no answer in 1.2 s"),
        ("gr00t", "wide", r"eef_9d of shape \(1, 16, 21\)"),
        ("gr00t-n1.5", "error", "out of GPU memory"),
        ("gr00t", "stranger", "wants the video ego_view; there are shoulder, wrist"),
        ("gr00t-n1.5", "stranger", "wants the video ego_view"),
        ("gr00t", "history", "wants 2 steps of video"),
    ],
)
def test_unusable_server_is_an_error_when_the_environment_is_made(serve, protocol, answer, message):
    address = f"{serve(protocol, answer).address}?timeout={0.2 if answer == 'hang' else 30}"
    with pytest.raises(ValueError, match=message):
        ResidualWorlds("Lift", 1, base_policy=address)


def test_server_of_the_other_protocol_is_an_error(serve):
    for ours, theirs in (("openpi", "gr00t"), ("gr00t", "openpi")):
        server = serve(theirs, "good")
        with pytest.raises(ValueError, match="cannot be used"):
            ResidualWorlds("Lift", 1, base_policy=f"{ours}://127.0.0.1:{server.port}?timeout=0.3")


def test_gr00t_token_comes_from_the_environment(serve, monkeypatch):
    address = serve("gr00t", "token").address
    with pytest.raises(ValueError, match="Unauthorized"):
        ResidualWorlds("Lift", 1, base_policy=address)
    monkeypatch.setenv("GR00T_API_TOKEN", "secret")
    assert worlds_with(address).base_policy_problem == [""]


@pytest.mark.parametrize("protocol", ["openpi", "gr00t"])
def test_policy_is_made_without_a_server_and_survives_pickling(serve, protocol):
    assert load_base_policy(f"{protocol}://localhost:9", TASKS["Lift"]).hash is None
    core = worlds_with(serve(protocol, "good").address)
    again = pickle.loads(pickle.dumps(core.base_policy))
    view = core.view(np.array([0]), again.needs)
    np.testing.assert_array_equal(again.predict(view), core.base_policy.predict(view))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("openpi://", "write openpi://HOST:PORT"),
        ("openpi://host:80000", "malformed"),
        ("gr00t://host:abc", "malformed"),
        ("gr00t://host:5555/path", "write gr00t://HOST:PORT"),
        ("gr00t://user@host:5555", "malformed"),
        ("openpi://host?horizen=8", "unknown option 'horizen'; there are: horizon"),
        ("openpi://host?horizon=0", "whole number"),
        ("openpi://host?horizon=1.5", "whole number"),
        ("openpi://host?horizon=257", "from 1 to 256"),
        (f"openpi://host?horizon={'9' * 5000}", "from 1 to 256"),
        ("openpi://host?timeout=nan", "seconds, from 0.01"),
        ("openpi://host?timeout=-1", "seconds, from 0.01"),
        ("http://host:8000", "unknown base policy"),
    ],
)
def test_malformed_address_is_refused(address, message):
    with pytest.raises(ValueError, match=message):
        load_base_policy(address, TASKS["Lift"])


def test_address_has_defaults():
    address = parse_address("openpi://[::1]", 8000)
    assert (address.place, address.horizon, address.timeout) == ("[::1]:8000", None, 10.0)


@pytest.mark.parametrize(("scheme", "package"), [("openpi", "websockets.sync.client"), ("gr00t", "zmq")])
def test_missing_package_names_the_extra(monkeypatch, scheme, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"servers"):
        load_base_policy(f"{scheme}://localhost:8000", TASKS["Lift"])
