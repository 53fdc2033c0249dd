"""The Franka Hand of franka-sim, extended by commanded speed and force, a stop command, and faults."""

from __future__ import annotations

import dataclasses
import math
import socket
import threading
import time
from typing import Any

import franka_sim.gripper.physics
from franka_sim.gripper.physics import FrankaHandPhysics
from franka_sim.gripper.protocol import GripperCommand
from franka_sim.gripper.server import FrankaGripperServer

from .physics import SceneSim


class RigClock:
    """The module ``time`` in the rig's own time: fingers that wait for a busy machine have not arrived."""

    def __init__(self, sim: SceneSim) -> None:
        self._sim = sim

    def monotonic(self) -> float:
        return float(self._sim.data.time)

    def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while self.monotonic() < until:
            time.sleep(0.002)


class Hand(FrankaHandPhysics):
    """A hand that keeps its grip when stopped.

    Attributes:
        fault: "" for none; "block": it neither moves nor answers; "idle": it says "done" and does not move; "nan": it
            reports no number as its width.
    """

    def __init__(self, sim: SceneSim, object_width: float | None) -> None:
        super().__init__(sim, object_width=object_width)
        franka_sim.gripper.physics.time = RigClock(sim)
        self.fault = ""
        self.interrupted = threading.Event()

    def move(self, width: float, speed: float) -> bool:
        self.sim.finger_speed = min(speed, self.sim.settings["hand"]["speed"])
        return super().move(width, speed)

    def grasp(self, width: float, epsilon_inner: float, epsilon_outer: float, speed: float, force: float) -> bool:
        self.sim.finger_speed = min(speed, self.sim.settings["hand"]["speed"])
        self.sim.finger_force = force
        return super().grasp(width, epsilon_inner, epsilon_outer, speed, force)

    def stop(self) -> bool:
        """Hold the fingers where they are; a grasped object stays grasped."""
        self.interrupted.set()
        if not self.is_grasped:
            self._command_width(self._current_width())
        return True

    def _drive_and_settle(self, width: float) -> tuple[float, bool]:
        self.interrupted.clear()
        if self.fault == "idle":
            return width, True
        while self.fault == "block":
            if self.interrupted.wait(0.01):
                raise RuntimeError("stopped before it was done")
        return super()._drive_and_settle(width)

    def get_state(self) -> Any:
        state = super().get_state()
        return dataclasses.replace(state, width=math.nan) if self.fault == "nan" else state


class HandServer(FrankaGripperServer):
    """A server that accepts a stop while another command runs, like the real hand."""

    def _dispatch_command(self, sock: socket.socket, header: Any, payload: bytes) -> None:
        if header.command == GripperCommand.kStop:
            super()._dispatch_command(sock, header, payload)
            return
        arguments = (sock, header, payload)
        threading.Thread(target=super()._dispatch_command, args=arguments, daemon=True).start()
