"""Stack: put the white cube on the green one."""

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
from oc_residual_gym.tasks.moves import (
    PRESS,
    heading,
    is_holding,
    nearest_yaw,
    pick,
    place,
    release,
    top_grasp,
)
from oc_residual_gym.tasks.objects import GREEN, WHITE, solid_box
from oc_residual_gym.worlds.base import Array, BoolArray, TrueState

HALF = 0.02
"""Metres: 4 cm cubes, as in the paper."""
WHITE_MASS, GREEN_MASS = 0.1, 0.2
"""Kilograms, as the paper's authors report."""
MAX_OFFSET, MAX_HEIGHT_ERROR = 0.02, 0.015
"""Metres between the centres in the plane, and from the stacked height, as the paper's authors report."""
WHITE_RANGE = ((0.394, 0.599), (-0.212, 0.224), (-0.64, 0.95))
GREEN_RANGE = ((0.379, 0.600), (-0.265, 0.308), (-0.79, 1.12))
"""x, y (metres) and yaw (radians): the span of the paper's start poses."""
STACKED = np.array([0.0, 0.0, 2 * HALF])
"""Metres from the green cube's centre to the white one's, stacked."""
LIFT_HEIGHT = 0.045
"""Metres above the table at which the white cube clears the green one."""
RETREAT_HEIGHT = 0.15
"""Metres above the table to which the expert takes the TCP in the end."""
MIN_DISTANCE = 0.11
"""Metres between the centres at the start: room for an opened finger between the cubes."""


class Stack(Task):
    name = "Stack"
    instruction = "stack the white cube on the green cube"
    success_rule = (
        "the white cube rests on the green cube alone, centres within 2 cm in the plane and 1.5 cm of the "
        "stacked height, fingers clear, both still, for 0.5 s"
    )
    max_episode_steps = 500
    specs = (
        solid_box("white", (HALF, HALF, HALF), WHITE_MASS, WHITE),
        solid_box("green", (HALF, HALF, HALF), GREEN_MASS, GREEN),
    )
    objects = (ObservedObject("white", "yaw_90"), ObservedObject("green", "yaw_90"))
    contacts = {
        "left": ("white", "left_finger"),
        "right": ("white", "right_finger"),
        "hand": ("white", "hand"),
        "table": ("white", "table"),
        "green": ("white", "green"),
        "green_hand": ("green", "hand"),
    }
    weights = {"reach": 0.2, "grasp": 0.15, "lift": 0.1, "transport": 0.25, "place": 0.1, "release": 0.1}

    def reset(self, rng: np.random.Generator) -> InitialState:
        while True:
            white_x, white_y, white_yaw = rng.uniform(*np.transpose(WHITE_RANGE))
            green_x, green_y, green_yaw = rng.uniform(*np.transpose(GREEN_RANGE))
            if np.hypot(white_x - green_x, white_y - green_y) >= MIN_DISTANCE:
                break
        return InitialState(
            {
                "white": pose(white_x, white_y, HALF, white_yaw),
                "green": pose(green_x, green_y, HALF, green_yaw),
            }
        )

    def success(self, state: TrueState) -> BoolArray:
        still = is_still(state.velocities["white"]) & is_still(state.velocities["green"])
        clear = ~state.contacts["hand"] & ~state.contacts["green_hand"]
        return self._stacked(state) & clear & still

    def progress(self, state: TrueState) -> dict[str, Array]:
        offset = self._offset(state)
        distance, height = norm(offset[:, :2]), offset[:, 2]
        over = distance <= MAX_OFFSET
        down = over & (np.abs(height) < 0.005) & ~state.contacts["table"]
        held = (state.contacts["left"] & state.contacts["right"]) | down
        lift = state.poses["white"][:, 2] - state.table_height - HALF
        # Over the green cube the white one may come down again.
        lifted = np.where(over, 1.0, fraction(lift / LIFT_HEIGHT)) * held
        return {
            "reach": np.maximum(closeness(norm(state.tcp_pose[:, :3] - state.poses["white"][:, :3])), held),
            "grasp": held,
            "lift": lifted,
            "transport": closeness(distance) * lifted,
            "place": closeness(np.abs(height), 0.05) * over * held,
            "release": down & ~state.contacts["hand"],
        }

    def expert(self, state: Snapshot) -> list[Waypoint]:
        white, green = state.poses["white"], state.poses["green"]
        offset = white[:3] - green[:3] - STACKED
        if state.contacts["green"] and np.linalg.norm(offset) < MAX_OFFSET / 2:
            return release(state, RETREAT_HEIGHT)
        if is_holding(state):
            turn = nearest_yaw(heading(green[3:]) - heading(white[3:]), 0.0, np.pi / 2)
            goal = green[:3] + STACKED - [0.0, 0.0, PRESS]
            return place(state, white[:3], goal, heading(state.tcp_pose[3:]) + turn)
        return pick(state, top_grasp(state, white, np.pi / 2), 2 * HALF)

    def _offset(self, state: TrueState) -> Array:
        """(N, 3) metres from the white cube's place on top of the green one to the white cube."""
        return state.poses["white"][:, :3] - state.poses["green"][:, :3] - STACKED

    def _stacked(self, state: TrueState) -> BoolArray:
        """(N,): is it in place and carried by the green cube and not the table, be it in the hand or not?"""
        offset = self._offset(state)
        in_place = (norm(offset[:, :2]) <= MAX_OFFSET) & (np.abs(offset[:, 2]) <= MAX_HEIGHT_ERROR)
        return in_place & state.contacts["green"] & ~state.contacts["table"]
