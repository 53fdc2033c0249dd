"""StandCup: stand a cup that lies on its side on its base."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.geometry import norm
from oc_residual_gym.tasks.base import (
    InitialState,
    ObservedObject,
    Snapshot,
    Task,
    Waypoint,
    axis_z,
    closeness,
    is_still,
)
from oc_residual_gym.tasks.objects import RED, Geom, ObjectSpec, ring_quat
from oc_residual_gym.worlds.base import Array, BoolArray, TrueState

HEIGHT, MOUTH_RADIUS, BASE_RADIUS = 0.10, 0.0375, 0.025
"""Metres, outside, as in the paper."""
MASS = 0.15
"""Kilograms, as in the paper."""
WALL = 0.003
"""Metres."""
STAVES = 16
HALF_ANGLE = np.arctan((MOUTH_RADIUS - BASE_RADIUS) / HEIGHT)
"""Radians between the wall and the axis, 7.1 degrees."""
X_RANGE, Y_RANGE, AZIMUTH_RANGE = (0.468, 0.602), (-0.154, 0.220), (1.484, 2.531)
"""Metres, and radians from +x to the mouth's direction: the span of the paper's 27 placements."""
MAX_TILT = np.radians(10.0)
BASE_CLEARANCE = 0.006
"""Metres that the centre of the base may be above the table: a 10 degree tilt lifts it by 4.3 mm."""


def _cup() -> ObjectSpec:
    """The cup's frame: origin half way up its axis, +z from the base to the mouth."""
    geoms = [Geom("cylinder", (BASE_RADIUS - WALL / 2, WALL / 2), (0, 0, -HEIGHT / 2 + WALL / 2), rgba=RED)]
    middle = (MOUTH_RADIUS + BASE_RADIUS) / 2
    slant = HEIGHT / np.cos(HALF_ANGLE) / 2
    # The flat outside of each stave touches the cone along its middle line.
    radius = middle - WALL / 2 * np.cos(HALF_ANGLE)
    half_width = MOUTH_RADIUS * np.tan(np.pi / STAVES)
    for i in range(STAVES):
        angle = 2 * np.pi * i / STAVES
        geoms.append(
            Geom(
                "box",
                (WALL / 2, half_width, slant - WALL / 4),
                (radius * np.cos(angle), radius * np.sin(angle), 0.0),
                ring_quat(angle, HALF_ANGLE),
                rgba=RED,
            )
        )
    # Thin-walled cone about its middle: wall as a hoop of the mean radius plus its length along the axis.
    across = MASS * (middle**2 / 2 + HEIGHT**2 / 12)
    return ObjectSpec("cup", tuple(geoms), MASS, (across, across, MASS * middle**2))


class StandCup(Task):
    name = "StandCup"
    instruction = "stand the cup upright"
    success_rule = "the cup stands on its base on the table, tilted by less than 10 degrees, fingers clear, still, for 0.5 s"
    max_episode_steps = 500
    specs = (_cup(),)
    objects = (ObservedObject("cup", "axis_z"),)
    contacts = {
        "left": ("cup", "left_finger"),
        "right": ("cup", "right_finger"),
        "hand": ("cup", "hand"),
        "table": ("cup", "table"),
    }
    weights = {"reach": 0.2, "grasp": 0.15, "turn": 0.3, "lower": 0.1, "place": 0.05, "release": 0.1}

    def reset(self, rng: np.random.Generator) -> InitialState:
        while True:
            x, y, azimuth = rng.uniform(*np.transpose([X_RANGE, Y_RANGE, AZIMUTH_RANGE]))
            # Beyond this the arm cannot tilt the hand far enough (measured with the scripted expert).
            if not (x > 0.57 and y < -0.05 and azimuth > np.radians(125)):
                break
        # Lying on its wall: the axis rises towards the mouth by the half angle.
        rotation = Rotation.from_euler("zy", [azimuth, np.pi / 2 - HALF_ANGLE])
        axis = rotation.apply([0, 0, 1])
        radius = (MOUTH_RADIUS + BASE_RADIUS) / 2
        # A stave's flat outside lies on the table when the turn about the axis puts its middle line lowest.
        height = radius * np.cos(HALF_ANGLE)
        return InitialState({"cup": np.concatenate([[x, y, height + 0 * axis[2]], rotation.as_quat()])})

    def success(self, state: TrueState) -> BoolArray:
        return self._standing(state) & ~state.contacts["hand"] & is_still(state.velocities["cup"])

    def progress(self, state: TrueState) -> dict[str, Array]:
        standing = self._standing(state)
        held = self._grasped(state) | standing
        upright = np.clip(axis_z(state.poses["cup"][:, 3:])[:, 2], 0.0, 1.0)
        low = closeness(np.maximum(self._base_height(state), 0.0), 0.05)
        return {
            "reach": np.maximum(closeness(self._reach_distance(state)), held),
            "grasp": held,
            "turn": upright * held,
            "lower": low * held * (upright > 0.7),
            "place": standing,
            "release": (standing & ~state.contacts["hand"]),
        }

    def expert(self, state: Snapshot) -> list[Waypoint]:
        raise NotImplementedError

    def _reach_distance(self, state: TrueState) -> Array:
        return norm(state.tcp_pose[:, :3] - state.poses["cup"][:, :3])

    def _base_height(self, state: TrueState) -> Array:
        """Metres from the table up to the centre of the cup's base."""
        cup = state.poses["cup"]
        return cup[:, 2] - HEIGHT / 2 * axis_z(cup[:, 3:])[:, 2] - state.table_height

    def _grasped(self, state: TrueState) -> BoolArray:
        return state.contacts["left"] & state.contacts["right"]

    def _standing(self, state: TrueState) -> BoolArray:
        upright = axis_z(state.poses["cup"][:, 3:])[:, 2] > np.cos(MAX_TILT)
        return upright & (self._base_height(state) < BASE_CLEARANCE) & state.contacts["table"]
