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
    is_still,
    pose,
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
MIN_DISTANCE = 0.11
"""Metres between the centres at the start: room for an opened finger between the cubes."""


class Stack(Task):
    name = "Stack"
    instruction = "stack the white cube on the green cube"
    success_rule = (
        "the white cube rests on the green cube alone, centres within 2 cm in the plane and 1.5 cm of the stacked "
        "height, fingers clear, both still, for 0.5 s"
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
            {"white": pose(white_x, white_y, HALF, white_yaw), "green": pose(green_x, green_y, HALF, green_yaw)}
        )

    def success(self, state: TrueState) -> BoolArray:
        still = is_still(state.velocities["white"]) & is_still(state.velocities["green"])
        clear = ~state.contacts["hand"] & ~state.contacts["green_hand"]
        return self._stacked(state) & clear & still

    def progress(self, state: TrueState) -> dict[str, Array]:
        stacked = self._stacked(state)
        held = self._grasped(state) | stacked
        return {
            "reach": np.maximum(closeness(self._reach_distance(state)), held),
            "grasp": held,
            "lift": np.clip(self._lift(state) / 0.03, 0.0, 1.0) * held,
            "transport": closeness(self._goal_distance(state)) * held,
            "place": stacked,
            "release": (stacked & ~state.contacts["hand"]),
        }

    def expert(self, state: Snapshot) -> list[Waypoint]:
        raise NotImplementedError

    def _reach_distance(self, state: TrueState) -> Array:
        return norm(state.tcp_pose[:, :3] - state.poses["white"][:, :3])

    def _goal_distance(self, state: TrueState) -> Array:
        """Metres from the white cube to its place on top of the green one."""
        return norm(state.poses["white"][:, :3] - state.poses["green"][:, :3] - np.array([0.0, 0.0, 2 * HALF]))

    def _lift(self, state: TrueState) -> Array:
        return state.poses["white"][:, 2] - state.table_height - HALF

    def _grasped(self, state: TrueState) -> BoolArray:
        return state.contacts["left"] & state.contacts["right"]

    def _stacked(self, state: TrueState) -> BoolArray:
        """In place and carried by the green cube and nothing else, a holding hand aside."""
        offset = state.poses["white"][:, :3] - state.poses["green"][:, :3]
        in_place = (norm(offset[:, :2]) <= MAX_OFFSET) & (np.abs(offset[:, 2] - 2 * HALF) <= MAX_HEIGHT_ERROR)
        return in_place & state.contacts["green"] & ~state.contacts["table"]
