"""The robot's network interface: franka-sim's server with an optional link delay and a collision reflex.

Its clock waits for the client, because the machine may be busy; it does not wait out a deliberate delay
(:class:`LateSocket`).
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from typing import Any

import numpy as np
from franka_sim import FrankaSimServer
from franka_sim.franka_protocol import SetCollisionBehaviorCommand

from .hand import Hand, HandServer
from .physics import SceneSim

JOINT_REFLEX, CARTESIAN_REFLEX = 6, 7
"""Indices of libfranka's errors (research_interface/robot/error.h)."""
PATIENCE = 1.0
"""Seconds that the clock waits for a command of a client that a busy machine keeps waiting; after that, cycles are lost
as on the robot."""
OPENING_PATIENCE, OPENING_STATES = 0.03, range(2, 5)
"""Seconds to wait for a motion's first command, and after which of its states: libfranka reads a motion's first state,
and answers the next one that it reads."""


class LateSocket(socket.socket):
    """A UDP socket at ``host`` that can delay what it sends."""

    delay = 0.0

    def __init__(self, plain: socket.socket, host: str) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_DGRAM, fileno=plain.detach())
        self.bind((host, 0))
        self._waiting: deque[tuple[float, bytes, Any]] = deque()
        threading.Thread(target=self._send_late, daemon=True).start()

    def sendto(self, data: bytes, address: Any) -> int:  # type: ignore[override]
        if LateSocket.delay <= 0.0 and not self._waiting:
            return super().sendto(data, address)
        self._waiting.append((time.monotonic() + LateSocket.delay, data, address))
        return len(data)

    def _send_late(self) -> None:
        while not self._closed:  # type: ignore[attr-defined]
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                _, data, address = self._waiting[0]
                try:
                    super().sendto(data, address)
                except OSError:
                    return
                self._waiting.popleft()
            time.sleep(0.0005 if self._waiting else 0.02)


class Server(FrankaSimServer):
    """franka-sim's server with delayable sockets, our hand, and a collision reflex."""

    _DRAIN_GATE_TIMEOUT = PATIENCE

    def __init__(self, settings: dict[str, Any]) -> None:
        sim = SceneSim(settings)
        self.hand = Hand(sim, settings["object_width"])
        super().__init__(
            host=settings["host"],
            physics_sim=sim,
            enable_gripper=False,
            enforce_comm_constraints=settings["comm_constraints"],
            enforce_motion_limits=settings["motion_limits"],
        )
        self.gripper_server = HandServer(host=settings["host"], backend=self.hand)
        self._thresholds: tuple[np.ndarray, np.ndarray] | None = None
        self._motion, self._states_of_motion = 0, 0  # motion of the last sent state, and number of its states so far
        self._answered = True  # whether an answer came during the last wait
        # Answers during motions, those that a real robot would not have waited for, and the worst delay.
        self.link = {"answers": 0, "late": 0, "latest_ms": 0.0}

    def _drain_gate(self, answer_deadline: float = 0.0) -> float:
        """As in franka-sim, but the next state and physics step also wait for the answer to the last state."""
        began = time.perf_counter()
        with self.physics_sim.clock:
            waited: float = super()._drain_gate(answer_deadline)
            late = self.comm.awaiting_answer
            while self._waits_on(time.perf_counter() - began):
                time.sleep(self._DRAIN_GATE_YIELD)
                waited = time.perf_counter() - began
            waited += super()._drain_gate()  # apply what has arrived
        self._answered = not self.comm.awaiting_answer
        if self.comm.active:
            self.link["answers"] += 1
            self.link["late"] += late
        if late:
            self.link["latest_ms"] = max(self.link["latest_ms"], 1e3 * (time.perf_counter() - answer_deadline))
        return waited

    def _waits_on(self, seconds: float) -> bool:
        """Whether to keep waiting for a command after ``seconds`` without one."""
        if LateSocket.delay > 0.0 or not self.connection_running:
            return False
        if self.comm.awaiting_answer:
            return self._answered and seconds < PATIENCE
        opens = self._motion != 0 and self._motion == self.comm.motion_id and not self.comm.active
        return opens and self._states_of_motion in OPENING_STATES and seconds < OPENING_PATIENCE

    def _account_for_communication_cycle(self) -> None:
        super()._account_for_communication_cycle()
        self._states_of_motion = self._states_of_motion + 1 if self._motion == self.comm.motion_id else 1
        self._motion = self.comm.motion_id

    def handle_set_collision_behavior_command(self, client_socket: Any, header: Any, payload: bytes) -> None:
        command = SetCollisionBehaviorCommand.from_bytes(payload)
        torques, forces = command.upper_torque_thresholds_nominal, command.upper_force_thresholds_nominal
        self._thresholds = np.array(torques), np.array(forces)
        super().handle_set_collision_behavior_command(client_socket, header, payload)

    def _run_self_collision_check(self, sim_state: dict[str, Any]) -> None:
        super()._run_self_collision_check(sim_state)
        motion = self.motion_limits.motion_id
        if not motion or self._thresholds is None or not self.enforce_motion_limits:
            return
        readings = sim_state["tau_ext_hat_filtered"], sim_state["O_F_ext_hat_K"]
        for reading, threshold, error in zip(readings, self._thresholds, (JOINT_REFLEX, CARTESIAN_REFLEX), strict=True):
            if (abs(reading) > threshold).any():
                self._abort_with_error(error, f"{np.round(reading, 1)} exceeds {threshold}", motion)
                return

    @property
    def udp_socket(self) -> socket.socket | None:
        return self.__dict__.get("_late_socket")

    @udp_socket.setter
    def udp_socket(self, plain: socket.socket | None) -> None:
        self.__dict__["_late_socket"] = None if plain is None else LateSocket(plain, self.host)
