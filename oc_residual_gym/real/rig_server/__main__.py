"""Starts the rig's server, and answers its control socket."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from franka_sim.health_check import check_server

from .physics import SceneSim
from .poses import POSE_FAULTS, POSES_RATE, PosePublisher
from .robot import LateSocket, Server

THREAD_SWITCH = 0.0005
"""Python's thread switch interval in seconds; the default of 5 ms is five control cycles of the robot."""

MIN_SETTLING, AT_REST = 0.1, 0.005
"""Seconds of the rig's time before the arm can have come to rest, and rad/s below which it has."""


def publish(sim: SceneSim, poses: PosePublisher, poses_socket: zmq.Socket, truth_socket: zmq.Socket) -> None:
    """Send every new true state, and poses at their rate. Never returns."""
    sent, due = None, time.monotonic()
    while True:
        view = sim.view
        if view and view is not sent:
            sent = view
            truth_socket.send_json({k: v if k in ("stamp", "time", "slides") else _plain(v) for k, v in view.items()})
        if time.monotonic() >= due:
            due += 1.0 / POSES_RATE
            message = poses.message()
            if message is not None:
                poses_socket.send_json(message)
        time.sleep(0.002)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else {k: _plain(v) for k, v in value.items()}


def answer(server: Server, poses: PosePublisher, control: zmq.Socket) -> None:
    """Answer requests on the control socket: faults, placements and link statistics. Never returns."""
    while True:
        request: Any = control.recv_json()
        reply: dict[str, Any] = {"ok": True}
        try:
            for key, value in request.items():
                if key == "poses" and value in POSE_FAULTS:
                    poses.fault = value
                elif key == "delay_link":
                    LateSocket.delay = float(value)
                elif key == "hand" and value in ("", "block", "idle", "nan"):
                    server.hand.fault = value
                elif key == "link":
                    reply["link"] = server.link
                elif key == "place":
                    server.physics_sim.place(value)
                    poses.begin()
                else:
                    raise ValueError(f"unknown request {key!r}: {value!r}")
            control.send_json(reply)
        except Exception as error:
            control.send_json({"ok": False, "error": repr(error)})


def end_with_parent() -> None:
    """Exit when the parent closes our standard input, or dies."""
    os.read(0, 1)
    os._exit(0)


def announce(folder: Path, host: str, sim: SceneSim, addresses: dict[str, str]) -> None:
    """Write ``ready.json`` to ``folder`` once the arm is at rest and the robot's interface answers a client."""
    check_server(host, timeout=60.0)
    # The simulation begins in another posture, from which its servo pulls the arm at up to 6 rad/s.
    while not sim.view or sim.view["time"] < MIN_SETTLING or np.abs(sim.view["dq"]).max() > AT_REST:
        time.sleep(0.01)
    temporary = folder / "ready.json.tmp"
    temporary.write_text(json.dumps(addresses), encoding="utf-8")
    temporary.rename(folder / "ready.json")


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # High priority, as a robot's controller does not wait for other programs; only root may set it.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    sys.setswitchinterval(THREAD_SWITCH)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    context = zmq.Context()
    sockets, addresses = {}, {}
    for name, kind in (("poses", zmq.PUB), ("truth", zmq.PUB), ("control", zmq.REP)):
        sockets[name] = context.socket(kind)
        addresses[name] = f"tcp://127.0.0.1:{sockets[name].bind_to_random_port('tcp://127.0.0.1')}"
    server = Server(settings)
    poses = PosePublisher(server.physics_sim)
    for work, arguments in (
        (end_with_parent, ()),
        (publish, (server.physics_sim, poses, sockets["poses"], sockets["truth"])),
        (answer, (server, poses, sockets["control"])),
        (announce, (folder, settings["host"], server.physics_sim, addresses)),
    ):
        threading.Thread(target=work, args=arguments, daemon=True).start()
    server.start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
