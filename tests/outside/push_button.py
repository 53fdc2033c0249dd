"""PushButton: an example task of another package, complete in this file."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks.base import (
    STILL_SPEED,
    InitialState,
    ObservedObject,
    Snapshot,
    Task,
    Waypoint,
    heading,
    pose,
)
from oc_residual_gym.tasks.moves import approach, tool_pose
from oc_residual_gym.tasks.objects import RED, STEEL, Drawer, Geom, ObjectSpec

HOUSING = (0.03, 0.03, 0.015)
"""Half sizes of the housing in metres."""
RADIUS, HALF_HEIGHT = 0.015, 0.008
"""Radius and half height of the cap in metres."""
TRAVEL, PRESSED_HEIGHT = 0.006, 0.034
"""Metres: travel from pressed to released, and height of the pressed cap's top above the table."""
STIFFNESS, SPRING_REST = 400.0, 0.011
"""N/m and metres: the spring pushes with 2 N when released and 4.4 N when pressed."""
PRESSED = 0.001
"""Opening in metres below which the button is pressed."""
X_RANGE, Y_RANGE, YAW_RANGE = (0.42, 0.58), (-0.20, 0.20), (-0.8, 0.8)
"""Pose of the button, in metres and radians."""
FINGERTIP = 0.009
"""Metres by which the fingertips extend below the TCP."""
PUSH = 0.015
"""Depth in metres below the pressed cap at which the expert aims: 12 N at the impedance's 800 N/m."""


class PushButton(Task):
    """PushButton: press a button and keep it pressed.

    ## Description
    Press a button of 3 cm in diameter and keep it pressed. Its housing is fixed to the table; a spring pushes it up.

    ## Starting State
    The gripper is closed. The button is released, at x = 0.42 to 0.58 m, y = -0.20 to 0.20 m, with a yaw of -46 to 46
    degrees. Positions and yaws are uniform, in the base frame.

    ## Success
    The button is within 1 mm of its lowest position and slower than 5 cm/s. This must hold for 0.5 s.

    ## Milestones
    | milestone | weight | value |
    |---|---|---|
    | reach | 0.3 | 1 - tanh(d / 0.1 m), d = distance from the fingertips to the cap's top |
    | press | 0.6 | pressed fraction of the travel |

    ## Time Limit
    200 steps, 10 s.

    ## Version History
    v0: first version.
    """

    name = "PushButton"
    instruction = "press the button"
    success_rule = "the button is within 1 mm of its lowest position and still, for 0.5 s"
    max_episode_steps = 200
    specs = (
        ObjectSpec(
            "housing",
            (Geom("box", HOUSING, (0.0, 0.0, HOUSING[2]), rgba=STEEL),),
            fixed=True,
            drawers=(
                Drawer(
                    "button",
                    (Geom("cylinder", (RADIUS, HALF_HEIGHT), (0.0, 0.0, -HALF_HEIGHT), rgba=RED),),
                    pos=(0.0, 0.0, PRESSED_HEIGHT),
                    travel=TRAVEL,
                    mass=0.05,
                    damping=3.0,
                    frictionloss=0.05,
                    axis=(0.0, 0.0, 1.0),
                    stiffness=STIFFNESS,
                    spring_rest=SPRING_REST,
                ),
            ),
        ),
    )
    objects = (ObservedObject("button", "axis_z"),)
    contacts = {"touch": ("button", "hand")}
    weights = {"reach": 0.3, "press": 0.6}
    picture_step = 45

    def reset(self, rng: np.random.Generator) -> InitialState:
        x, y, yaw = rng.uniform(*np.transpose([X_RANGE, Y_RANGE, YAW_RANGE]))
        return self.start_at({"button": pose(x, y, 0.0, yaw)})

    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        x, y, *_ = button = poses["button"]
        housing = pose(x, y, 0.0, heading(button[3:]))
        return InitialState({"housing": housing}, slides={"button": TRAVEL}, gripper_closed=True)

    def success(self, state: TrueState) -> BoolArray:
        opening, speed = state.slides["button"].T
        return (opening < PRESSED) & (np.abs(speed) < STILL_SPEED)

    def progress(self, state: TrueState) -> dict[str, Array]:
        tips = state.tcp_pose[:, :3] - [0.0, 0.0, FINGERTIP]
        distance = np.linalg.norm(tips - state.poses["button"][:, :3], axis=1)
        pressed = np.clip(1.0 - state.slides["button"][:, 0] / TRAVEL, 0.0, 1.0)
        return {"reach": 1.0 - np.tanh(distance / 0.1), "press": pressed}

    def expert(self, state: Snapshot) -> list[Waypoint]:
        x, y, top = state.poses["button"][:3]
        lowest = top - state.slides["button"][0] + FINGERTIP - PUSH
        goal = tool_pose([x, y, lowest], heading(state.target[3:7]))
        return approach(state, goal, closed=True)
