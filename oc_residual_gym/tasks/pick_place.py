"""PickPlace: put a red block on a plate."""

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
    is_still,
    pose,
)
from oc_residual_gym.tasks.objects import RED, WHITE, Geom, ObjectSpec, solid_box
from oc_residual_gym.worlds.base import Array, BoolArray, TrueState

HALF_SIZE = (0.04, 0.02, 0.02)
"""Metres: 8 x 4 x 4 cm, as in the paper."""
MASS = 0.08
"""Kilograms: 128 cm^3 of wood."""
PLATE_RADIUS, PLATE_HEIGHT = 0.095, 0.01
"""Metres, as in the paper: a flat disc, fixed to the table."""
BLOCK_RANGE = ((0.33, 0.60), (-0.175, 0.275), (-0.98, 2.16))
"""x, y (metres) and yaw (radians) of the block: the span of the paper's start poses."""
PLATE_RANGE = ((0.30, 0.50), (-0.238, 0.257))
"""x, y of the plate: the span of the paper's start poses."""
MIN_DISTANCE = 0.15
"""Metres between the centres at the start: the block lies beside the plate whatever its yaw."""


class PickPlace(Task):
    name = "PickPlace"
    instruction = "pick up the red block and place it on the plate"
    success_rule = (
        "the block rests on the plate, its centre within the plate's radius, touched by nothing else, "
        "slower than 5 cm/s, for 0.5 s"
    )
    max_episode_steps = 500
    specs = (
        solid_box("block", HALF_SIZE, MASS, RED),
        ObjectSpec(
            "plate",
            (Geom("cylinder", (PLATE_RADIUS, PLATE_HEIGHT / 2), rgba=WHITE),),
            fixed=True,
        ),
    )
    objects = (ObservedObject("block", "yaw_180"), ObservedObject("plate", "axis_z"))
    contacts = {
        "left": ("block", "left_finger"),
        "right": ("block", "right_finger"),
        "hand": ("block", "hand"),
        "table": ("block", "table"),
        "plate": ("block", "plate"),
    }
    weights = {"reach": 0.2, "grasp": 0.15, "lift": 0.1, "transport": 0.25, "place": 0.1, "release": 0.1}

    def reset(self, rng: np.random.Generator) -> InitialState:
        while True:
            x, y, yaw = rng.uniform(*np.transpose(BLOCK_RANGE))
            plate_x, plate_y = rng.uniform(*np.transpose(PLATE_RANGE))
            if np.hypot(x - plate_x, y - plate_y) >= MIN_DISTANCE:
                break
        return InitialState(
            {"block": pose(x, y, HALF_SIZE[2], yaw), "plate": pose(plate_x, plate_y, PLATE_HEIGHT / 2)}
        )

    def success(self, state: TrueState) -> BoolArray:
        return self._placed(state) & ~state.contacts["hand"] & is_still(state.velocities["block"])

    def progress(self, state: TrueState) -> dict[str, Array]:
        placed = self._placed(state)
        held = self._grasped(state) | placed
        height = np.clip(self._lift(state) / 0.03, 0.0, 1.0)
        return {
            "reach": np.maximum(closeness(self._reach_distance(state)), held),
            "grasp": held,
            "lift": np.maximum(height * held, placed),
            "transport": closeness(np.maximum(self._plate_distance(state) - PLATE_RADIUS / 2, 0.0)) * held * np.maximum(height, placed),
            "place": placed,
            "release": (placed & ~state.contacts["hand"]),
        }

    def expert(self, state: Snapshot) -> list[Waypoint]:
        raise NotImplementedError

    def _reach_distance(self, state: TrueState) -> Array:
        return norm(state.tcp_pose[:, :3] - state.poses["block"][:, :3])

    def _plate_distance(self, state: TrueState) -> Array:
        return norm(state.poses["block"][:, :2] - state.poses["plate"][:, :2])

    def _lift(self, state: TrueState) -> Array:
        return state.poses["block"][:, 2] - state.table_height - HALF_SIZE[2]

    def _grasped(self, state: TrueState) -> BoolArray:
        return state.contacts["left"] & state.contacts["right"]

    def _placed(self, state: TrueState) -> BoolArray:
        within = self._plate_distance(state) <= PLATE_RADIUS
        return within & state.contacts["plate"] & ~state.contacts["table"]
