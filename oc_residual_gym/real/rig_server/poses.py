"""Publishes object poses with the errors of a tracker."""

from __future__ import annotations

import time
from typing import Any

import mujoco
import numpy as np

from .physics import WXYZ_FROM_XYZW, XYZW_FROM_WXYZ, SceneSim

POSES_RATE = 30.0
"""Messages per second, like a camera's."""
LEAST_JITTER = 1e-6
"""Minimum noise in metres and radians: no camera repeats exactly the same numbers, even for an object at rest."""
POSE_FAULTS = ("normal", "silent", "jump", "freeze", "stays", "swapped", "contradict", "sunk")
"""Faults of the publisher, described at ``Rig.poses``."""
JUMP = 0.3
"""Metres by which the fault "jump" moves every published pose, each time in a random direction."""
ASIDE, SUNK = (0.0, 0.2, 0.0), (0.0, 0.0, -0.1)
"""Metres by which "stays" and "contradict", and "sunk", move every published pose."""


class PosePublisher:
    """Creates pose messages in the schema "oc-residual-poses", version 1, with the errors of a tracker."""

    def __init__(self, sim: SceneSim) -> None:
        settings = sim.settings
        self.sim, self.errors = sim, settings["errors"]
        self.generator = np.random.default_rng(settings["seed"])
        self.fault, self._count = "normal", 0
        self._last: dict[str, dict[str, Any]] = {}
        self._steps = POSES_RATE / settings["control_frequency"]
        self.begin()

    def begin(self) -> None:
        """Draw the errors that stay the same for an episode."""
        names, errors = list(self.sim.settings["objects"]), self.errors
        scale = np.repeat(errors["bias"], 3)
        self._bias = {name: scale * self.generator.standard_normal(6) for name in names}
        low, high = errors["latency"]
        self._latency = self.generator.integers(low, high, endpoint=True) / self.sim.settings["control_frequency"]
        self._lost = dict.fromkeys(names, False)

    def message(self) -> dict[str, Any] | None:
        if self.fault == "silent" or not self.sim.arrivals:
            return None
        now = time.monotonic()
        if self.fault != "freeze" or not self._last:
            self._last = self._named(self._observe(now))
            self._count += 1
        return {
            "schema": "oc-residual-poses",
            "version": 1,
            "frame": "base",
            "calibration": "",
            "objects": self._last,
        }

    def _observe(self, now: float) -> dict[str, dict[str, Any]]:
        arrivals = list(self.sim.arrivals)
        stamp, poses = next((a for a in reversed(arrivals) if a[0] <= now - self._latency), arrivals[0])
        view, errors, objects = self.sim.view, self.errors, {}
        closed = self.sim.latest_finger_positions[0] < self.sim.max_finger_width / 4
        for name, entry in self.sim.settings["objects"].items():
            true = poses[entry["body"]]
            near = closed and np.linalg.norm(true[:3] - view["tcp"]) < self.sim.settings["near_fingers"]
            self._lost[name] = self._is_lost(self._lost[name], bool(near))
            if self._lost[name]:
                objects[name] = {"status": "lost", "age": now - stamp}
            else:
                error = LEAST_JITTER * self.generator.standard_normal(6)
                error += self._bias[name] + np.repeat(errors["jitter"], 3) * self.generator.standard_normal(6)
                half = self.generator.uniform(0.0, 1.0, 2) * errors["spread"]
                error += np.repeat(half, 3) * self.generator.uniform(-1.0, 1.0, 6)
                position, quat = true[:3] + error[:3], _turned(true[3:], error[3:])
                if self.fault == "jump":
                    direction = self.generator.standard_normal(3)
                    position = position + JUMP * direction / np.linalg.norm(direction)
                elif self.fault == "stays" or (self.fault == "contradict" and self._count % 2):
                    position = position + ASIDE
                elif self.fault == "sunk":
                    position = position + SUNK
                objects[name] = {
                    "status": "tracking",
                    "age": now - stamp,
                    "position": position.tolist(),
                    "quaternion": quat.tolist(),
                }
        return objects

    def _named(self, objects: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The objects under their names, or each one under the next one's."""
        names = list(objects)
        if self.fault == "swapped":
            names = names[1:] + names[:1]
        return dict(zip(names, objects.values(), strict=True))

    def _is_lost(self, lost: bool, near: bool) -> bool:
        """Draw whether an object is lost: the model's probabilities per control step, converted to this rate."""
        if lost:
            return self.generator.random() < self.errors["stay_lost"] ** (1.0 / self._steps)
        chance = self.errors["loss_near_fingers" if near else "loss"]
        return self.generator.random() < chance / self._steps


def _turned(quat: np.ndarray, rotvec: np.ndarray) -> np.ndarray:
    """Product of a quaternion xyzw and the rotation of a rotation vector in radians."""
    turn, wxyz, product = np.empty(4), quat[WXYZ_FROM_XYZW], np.empty(4)
    angle = float(np.linalg.norm(rotvec))
    mujoco.mju_axisAngle2Quat(turn, rotvec / angle if angle > 0.0 else np.array([1.0, 0.0, 0.0]), angle)
    mujoco.mju_mulQuat(product, wxyz, turn)
    return product[XYZW_FROM_WXYZ]
