"""The rig: a simulated FR3 cell on this machine that speaks the robot's own network protocol.

``franka-sim`` (Apache-2.0) serves our arm and hand to the same client that drives a real robot. It pins an older
MuJoCo, so it has its own Python environment, created on first use; that environment's Python runs ``rig_server``.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import zmq

from oc_residual_gym.errors import RigError
from oc_residual_gym.real.rig_install import ensure_rig, python_of, rig_available
from oc_residual_gym.tasks.base import InitialState, Task

__all__ = ["Rig", "RigError", "ensure_rig", "rig_available"]

COMMAND_PORT, GRIPPER_PORT = 1337, 1338
"""Ports fixed by the robot's protocol; rigs that run at the same time use different loopback addresses."""

_START_SECONDS = 60.0
_CONTROL_SECONDS = 5.0

PoseFault = Literal["normal", "silent", "jump", "freeze", "stays", "swapped", "contradict", "sunk"]
HandFault = Literal["", "block", "idle", "nan"]


class Rig:
    """A simulated FR3 cell, served on the loopback interface. Use it as a context manager.

    The arm starts near our home posture, not in it. Its flange frame is that of a real FR3: ``O_T_EE``
    is the flange until the client sets another end effector. ``O_F_ext_hat_K`` has a real robot's sign, the wrench that
    the robot exerts on its surroundings (libfranka issue 26); it is computed from the contacts of hand and fingers.

    Args:
        task: the task whose object poses are published.
        start: initial poses of the objects.
        full_scene: whether to simulate the objects; otherwise the arm is alone above an empty table, and the published
            poses stay at ``start``.
        object_width: for an arm alone, width in metres of a rigid object between the fingers.
        pose_errors: error model of the published poses, see :data:`oc_residual_gym.perception.errors.MODELS`.
        seed: seed of those errors.
        motion_limits: whether a command beyond the FR3's limits stops the motion, as on the robot.
        comm_constraints: whether 20 lost commands in a row stop the motion, as on the robot. The rig's clock waits up
            to 1 s for each answer, so that a busy machine does not look like a bad link; :meth:`link` counts this.

    Attributes:
        host: address that a :class:`~oc_residual_gym.real.cell.Robot` connects to.
        poses_address: ZeroMQ address of the published object poses, 30 Hz (``docs/pose_messages.md``).
        truth_address: ZeroMQ address of the true state, 200 Hz: ``stamp`` (``time.monotonic()``), ``time`` (the rig's
            own seconds: on a busy machine they pass more slowly), ``q``, ``dq``, ``fingers``, ``wrench`` (acting on the
            tool, about the TCP), ``qpos`` and ``qvel`` by body (position and quaternion xyzw; linear and angular
            velocity), and ``slides`` by drawer.
        log_path: the server's log.

    Raises:
        RigError: on entering, if it cannot be installed or does not start.
    """

    def __init__(
        self,
        task: Task | None = None,
        start: InitialState | None = None,
        full_scene: bool = False,
        object_width: float | None = None,
        pose_errors: str = "tracker",
        seed: int = 0,
        motion_limits: bool = True,
        comm_constraints: bool = True,
    ) -> None:
        if (task is None) != (start is None):
            raise ValueError("a rig takes both a task and its start, or neither")
        if full_scene and task is None:
            raise ValueError("a full scene needs a task and its start")
        self._task, self._start, self._full_scene = task, start, full_scene
        self._settings: dict[str, Any] = {
            "object_width": object_width,
            "seed": seed,
            "motion_limits": motion_limits,
            "comm_constraints": comm_constraints,
        }
        self._pose_errors = pose_errors
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._control_address = ""
        self.host = ""
        self.poses_address = self.truth_address = ""
        self.log_path = Path()

    def __enter__(self) -> Rig:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Start the server; return once it answers a client."""
        from oc_residual_gym.real.rig_models import scene_data, write_models

        python = python_of(ensure_rig())
        self._folder = Path(tempfile.mkdtemp(prefix="oc-residual-rig-"))
        self.host = _free_host()
        scene = self._task if self._full_scene else None
        models = write_models(scene, self._start if self._full_scene else None, self._folder)
        content = self._settings | scene_data(self._task, self._start, self._full_scene, self._pose_errors)
        content["host"] = self.host
        (self._folder / "settings.json").write_text(json.dumps(content), encoding="utf-8")
        self.log_path = self._folder / "server.log"
        with self.log_path.open("wb") as log:
            # The rig's environment cannot import this package: a link makes the server a package of its own.
            (self._folder / "rig_server").symlink_to(Path(__file__).with_name("rig_server"), target_is_directory=True)
            inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
            self._process = subprocess.Popen(
                [str(python), "-P", "-m", "rig_server", str(self._folder)],
                cwd=self._folder,  # MuJoCo writes its log to the working folder
                stdin=subprocess.PIPE,  # held open: the server ends when this process does
                stdout=log,
                stderr=log,
                env=inherited | models | {"PYTHONPATH": str(self._folder), "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,  # Ctrl+C must not reach the server
            )
        try:
            addresses = self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        self.poses_address, self.truth_address = addresses["poses"], addresses["truth"]
        self._control_address = addresses["control"]

    def _wait_until_ready(self) -> dict[str, str]:
        assert self._process is not None and self._folder is not None
        ready, deadline = self._folder / "ready.json", time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if ready.exists():
                return dict(json.loads(ready.read_text(encoding="utf-8")))
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        how = "ended" if self._process.poll() is not None else f"was not ready within {_START_SECONDS:.0f} s"
        said = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-8:])
        raise RigError(f"the rig's server {how}; its log {self.log_path} ends:\n{said}")

    def kill(self) -> None:
        """Kill the server, like a power cut; its log remains."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End the server and remove its files."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=5.0)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = None

    def poses(self, fault: PoseFault) -> None:
        """Set how object poses are published.

        Args:
            fault: "normal"; "silent": not at all; "jump": 30 cm off, each time in another direction; "stays": 20 cm to
                the side from now on; "swapped": under the next object's name; "contradict": alternately right and 20 cm
                to the side, like two publishers; "sunk": 10 cm lower; "freeze": always the same numbers.
        """
        self._ask({"poses": fault})

    def delay_link(self, seconds: float) -> None:
        """Delay every state of the arm by ``seconds``, and so the client's answer; 0 ends the delay."""
        self._ask({"delay_link": seconds})

    def hand(self, fault: HandFault) -> None:
        """Make the hand neither move nor answer ("block"), say "done" without moving ("idle"), or report no number as
        its width ("nan"); "" ends the fault."""
        self._ask({"hand": fault})

    def place(self, start: InitialState) -> None:
        """Move the objects to another start, as an operator does between two trials; the arm does not move."""
        from oc_residual_gym.real.rig_models import scene_data

        if self._task is None:
            raise RigError("a rig without a task has no objects")
        self._start = start
        data = scene_data(self._task, start, self._full_scene, self._pose_errors)
        self._ask({"place": {key: data[key] for key in ("objects", "bodies", "slides")}})

    def link(self) -> dict[str, Any]:
        """Link statistics so far: "answers" during motions, how many were "late", and the worst delay, "latest_ms".

        A real robot does not wait: it loses commands that arrive after more than 1 ms, and stops after 20 in a row.
        """
        return dict(self._ask({"link": None})["link"])

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            raise RigError("the rig is not open")
        with zmq.Context() as context, context.socket(zmq.REQ) as client:
            client.setsockopt(zmq.LINGER, 0)
            client.connect(self._control_address)
            client.send_json(request)
            if not client.poll(int(_CONTROL_SECONDS * 1000)):
                raise RigError(f"the rig's server did not answer {sorted(request)} within {_CONTROL_SECONDS:.0f} s")
            answer: Any = client.recv_json()
        if not answer["ok"]:
            raise RigError(f"the rig's server refused {request}: {answer}")
        return dict(answer)


def _free_host() -> str:
    """A loopback address whose two ports are free, so that several rigs can run at once."""
    for host in (*_own_hosts(), "127.0.0.1"):
        try:
            for port in (COMMAND_PORT, GRIPPER_PORT):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
                    trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    trial.bind((host, port))
        except OSError:
            continue
        return host
    raise RigError(f"ports {COMMAND_PORT} and {GRIPPER_PORT} are taken: is another rig, or a robot's server, running?")


def _own_hosts() -> Iterator[str]:
    """Random loopback addresses that other rigs hardly use; some systems only have 127.0.0.1."""
    for _ in range(8):
        a, b = secrets.token_bytes(2)
        yield f"127.77.{a}.{max(1, b % 255)}"
