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
    fraction,
    is_still,
    pose,
)
from oc_residual_gym.tasks.moves import PRESS, heading, is_holding, pick, place, release, top_grasp
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
PLATE_RANGE = ((0.33, 0.50), (-0.238, 0.257))
"""x, y of the plate: the span of the paper's start poses, but x from 0.33, not 0.30: nearer to the base,
joint 4 of the FR3 comes to its limit."""
LIFT_HEIGHT = 0.03
"""Metres above the table at which the block, on its way to the plate, counts as lifted."""
RETREAT_HEIGHT = 0.12
"""Metres above the table to which the expert takes the TCP in the end."""
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
        return InitialState({"block": pose(x, y, HALF_SIZE[2], yaw), "plate": pose(plate_x, plate_y, PLATE_HEIGHT / 2)})

    def success(self, state: TrueState) -> BoolArray:
        return self._placed(state) & ~state.contacts["hand"] & is_still(state.velocities["block"])

    def progress(self, state: TrueState) -> dict[str, Array]:
        distance, height = self._plate_distance(state), self._height(state)
        over = distance <= PLATE_RADIUS
        down = over & (height < 0.005) & ~state.contacts["table"]
        held = (state.contacts["left"] & state.contacts["right"]) | down
        # Over the plate the block may come down again.
        lifted = np.where(over, 1.0, fraction((height + PLATE_HEIGHT) / LIFT_HEIGHT)) * held
        return {
            "reach": np.maximum(closeness(norm(state.tcp_pose[:, :3] - state.poses["block"][:, :3])), held),
            "grasp": held,
            "lift": lifted,
            "transport": closeness(np.maximum(distance - PLATE_RADIUS / 2, 0.0)) * lifted,
            "place": closeness(np.maximum(height, 0.0), 0.05) * over * held,
            "release": down & ~state.contacts["hand"],
        }

    def expert(self, state: Snapshot) -> list[Waypoint]:
        block, plate = state.poses["block"], state.poses["plate"]
        if state.contacts["plate"] and np.hypot(*(block[:2] - plate[:2])) < PLATE_RADIUS / 2:
            return release(state, RETREAT_HEIGHT)
        if is_holding(state):
            goal = np.array([*plate[:2], state.table_height + PLATE_HEIGHT + HALF_SIZE[2] - PRESS])
            return place(state, block[:3], goal, heading(state.target[3:7]))
        return pick(state, top_grasp(state, block, np.pi), 2 * HALF_SIZE[1])

    def _plate_distance(self, state: TrueState) -> Array:
        """(N,) metres between the centres in the plane."""
        return norm(state.poses["block"][:, :2] - state.poses["plate"][:, :2])

    def _height(self, state: TrueState) -> Array:
        """(N,) metres of the block above where it would lie flat on the plate."""
        return state.poses["block"][:, 2] - state.table_height - PLATE_HEIGHT - HALF_SIZE[2]

    def _placed(self, state: TrueState) -> BoolArray:
        """(N,): does the block lie on the plate and not on the table, be it in the hand or not?"""
        within = self._plate_distance(state) <= PLATE_RADIUS
        return within & state.contacts["plate"] & ~state.contacts["table"]
