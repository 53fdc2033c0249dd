"""Lift: raise a wooden block."""

from __future__ import annotations

import numpy as np

from oc_residual_gym.geometry import norm
from oc_residual_gym.tasks.base import (
    InitialState,
    ObservedObject,
    Snapshot,
    Task,
    Waypoint,
    closeness,
    fraction,
    pose,
    vertical_extent,
)
from oc_residual_gym.tasks.moves import STEADY, is_holding, pick, top_grasp
from oc_residual_gym.tasks.objects import WOOD, solid_box
from oc_residual_gym.worlds.base import Array, BoolArray, TrueState

HALF_SIZE = (0.06, 0.02, 0.02)
"""Metres: 12 x 4 x 4 cm, as in the paper."""
MASS = 0.1
"""Kilograms: 192 cm^3 of softwood."""
LIFT_HEIGHT = 0.04
"""Metres between the block's lowest point and the table, as in the paper."""
CARRY_HEIGHT = 0.10
"""Metres above the table to which the expert takes the TCP."""
X_RANGE, Y_RANGE, YAW_RANGE = (0.37, 0.58), (-0.27, 0.28), (-0.87, 0.80)
"""Metres and radians: the span of the paper's 66 start poses."""


class Lift(Task):
    name = "Lift"
    instruction = "lift the wooden block"
    success_rule = "the lowest point of the block is at least 4 cm above the table for 0.5 s"
    max_episode_steps = 300
    specs = (solid_box("block", HALF_SIZE, MASS, WOOD),)
    objects = (ObservedObject("block", "yaw_180"),)
    contacts = {"left": ("block", "left_finger"), "right": ("block", "right_finger")}
    weights = {"reach": 0.3, "grasp": 0.2, "lift": 0.4}

    def reset(self, rng: np.random.Generator) -> InitialState:
        x, y, yaw = rng.uniform(*np.transpose([X_RANGE, Y_RANGE, YAW_RANGE]))
        return InitialState({"block": pose(x, y, HALF_SIZE[2], yaw)})

    def success(self, state: TrueState) -> BoolArray:
        return self._clearance(state) >= LIFT_HEIGHT

    def progress(self, state: TrueState) -> dict[str, Array]:
        distance = norm(state.tcp_pose[:, :3] - state.poses["block"][:, :3])
        grasped = self._grasped(state)
        return {
            "reach": np.maximum(closeness(distance), grasped),
            "grasp": grasped,
            "lift": fraction(self._clearance(state) / LIFT_HEIGHT) * grasped,
        }

    def expert(self, state: Snapshot) -> list[Waypoint]:
        if is_holding(state):
            here = state.target[:7]
            up = np.array([*here[:2], state.table_height + CARRY_HEIGHT, *here[3:]])
            return [Waypoint(up, True, speed=STEADY)]
        return pick(state, top_grasp(state, state.poses["block"], np.pi), 2 * HALF_SIZE[1])

    def _clearance(self, state: TrueState) -> Array:
        block = state.poses["block"]
        return block[:, 2] - vertical_extent(block[:, 3:], np.array(HALF_SIZE)) - state.table_height

    def _grasped(self, state: TrueState) -> BoolArray:
        return state.contacts["left"] & state.contacts["right"]
