"""Stack: put the white cube on the green one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks.base import (
    Goal,
    Grasped,
    InitialState,
    ObservedObject,
    Snapshot,
    Task,
    Waypoint,
    closeness,
    distance,
    fraction,
    heading,
    is_level,
    is_still,
    pose,
)
from oc_residual_gym.tasks.moves import (
    PRESS,
    SEEN_CONTACT,
    is_holding,
    nearest_yaw,
    pick,
    place,
    release,
    top_grasp,
)
from oc_residual_gym.tasks.objects import GREEN, WHITE, solid_box

HALF = 0.02
"""Metres: 4 cm cubes, as in the paper."""
WHITE_MASS, GREEN_MASS = 0.1, 0.2
"""Kilograms, from the paper's authors."""
MAX_OFFSET, MAX_HEIGHT_ERROR = 0.02, 0.015
"""Metres: largest horizontal offset of the centres and largest error in height, from the paper's authors."""
ON_TABLE = 0.005
"""Metres: largest error in height of a green cube on the table; a tilt of 10 degrees lifts its centre by 3.2 mm."""
WHITE_RANGE = ((0.394, 0.599), (-0.212, 0.224), (-0.64, 0.95))
GREEN_RANGE = ((0.379, 0.600), (-0.265, 0.308), (-0.79, 1.12))
"""x, y (metres) and yaw (radians): the range of the paper's start poses."""
STACKED = np.array([0.0, 0.0, 2 * HALF])
"""Metres from the green cube's centre to the white cube's, when stacked."""
LIFT_HEIGHT = 0.045
"""Height in metres above the table at which the white cube clears the green one."""
RETREAT_HEIGHT = 0.15
"""Height in metres above the table to which the expert finally retreats with the TCP."""
MIN_DISTANCE = 0.11
"""Smallest start distance in metres between the centres: an opened finger fits between the cubes."""


class Stack(Task):
    """Stack: put the white cube on the green one.

    ## Description
    Stack a white cube (0.1 kg) on a green cube (0.2 kg). Both are 4 cm wide and look the same on
    each of their faces and after a quarter turn.

    ## Starting State
    The gripper is open, and both cubes lie flat on the table. The white cube is at x = 0.394 to 0.599 m, y = -0.212 to
    0.224 m, with a yaw of -37 to 54 degrees. The green cube is at x = 0.379 to 0.600 m, y = -0.265 to 0.308 m, with a
    yaw of -45 to 64 degrees, at least 11 cm from the white cube. Positions and yaws are uniform, in the base frame.

    ## Success
    The cubes' centres are within 2 cm of each other in the horizontal plane, and the white cube is within 1.5 cm of its
    stacked height. Both cubes lie on any of their faces, within 10 degrees. The green cube's centre is within 5 mm of
    its height on the table. The white cube touches the green cube but not the table, and the hand touches neither. Both
    cubes are slower than 5 cm/s and 0.5 rad/s. This must hold for 0.5 s.

    ## Milestones
    The white cube is "down" when it is within 2 cm (horizontally) and 5 mm (vertically) of its place on the green cube
    and not touching the table.

    | milestone | weight | value |
    |---|---|---|
    | reach | 0.2 | 1 - tanh(d / 0.1 m), d = distance from the TCP to the white cube; 1 while grasped or down |
    | grasp | 0.15 | 1 while both fingers touch the white cube or it is down |
    | lift | 0.1 | height above the table, as a fraction of 4.5 cm, while grasped; 1 over the green cube |
    | transport | 0.25 | lift * (1 - tanh(d / 0.1 m)), d = horizontal distance between the centres |
    | place | 0.1 | 1 - tanh(h / 0.05 m), h = error of the stacked height, while grasped and over the green cube |
    | release | 0.1 | 1 while the white cube is down and the hand does not touch it |

    ## Time Limit
    500 steps, 25 s.

    ## Version History
    v0: first version.
    """

    name = "Stack"
    instruction = "stack the white cube on the green cube"
    success_rule = (
        "the white cube rests on the green cube alone and that on the table alone, centres within 2 cm in the plane "
        "and 1.5 cm of the stacked height, both level within 10 degrees, fingers clear, both still, for 0.5 s"
    )
    max_episode_steps = 500
    specs = (
        solid_box("white", (HALF, HALF, HALF), WHITE_MASS, WHITE),
        solid_box("green", (HALF, HALF, HALF), GREEN_MASS, GREEN),
    )
    objects = (ObservedObject("white", "cube"), ObservedObject("green", "cube"))
    contacts = {
        "left": ("white", "left_finger"),
        "right": ("white", "right_finger"),
        "hand": ("white", "hand"),
        "table": ("white", "table"),
        "green": ("white", "green"),
        "green_hand": ("green", "hand"),
    }
    weights = {"reach": 0.2, "grasp": 0.15, "lift": 0.1, "transport": 0.25, "place": 0.1, "release": 0.1}
    failures = {
        "reach": "white cube not reached",
        "grasp": "white cube not grasped",
        "lift": "white cube not lifted",
        "transport": "white cube not brought over the green one",
        "place": "white cube not placed on the green one",
        "release": "white cube not released",
    }
    grasped = Grasped("white", spread=(0.002, 0.0, 0.002), half_size=(HALF, HALF, HALF))
    goal = Goal("green", top=2 * HALF, distance=0.05)
    robosuite = "Stack"
    picture_step = 128

    def reset(self, rng: np.random.Generator) -> InitialState:
        while True:
            white_x, white_y, white_yaw = rng.uniform(*np.transpose(WHITE_RANGE))
            green_x, green_y, green_yaw = rng.uniform(*np.transpose(GREEN_RANGE))
            if np.hypot(white_x - green_x, white_y - green_y) >= MIN_DISTANCE:
                break
        return self.start_at(
            {"white": pose(white_x, white_y, 0.0, white_yaw), "green": pose(green_x, green_y, 0.0, green_yaw)}
        )

    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        cubes = {name: poses[name] for name in ("white", "green")}
        return InitialState({name: pose(cube[0], cube[1], HALF, heading(cube[3:])) for name, cube in cubes.items()})

    def success(self, state: TrueState) -> BoolArray:
        white, green, contacts = state.poses["white"], state.poses["green"], state.contacts
        aside, height, base = _errors(white, green, state.table_height)
        in_place = (aside <= MAX_OFFSET) & (height <= MAX_HEIGHT_ERROR) & (base <= ON_TABLE)
        alone = contacts["green"] & ~(contacts["table"] | contacts["hand"] | contacts["green_hand"])
        still = is_still(state.velocities["white"]) & is_still(state.velocities["green"])
        return in_place & is_level(white) & is_level(green) & alone & still

    def progress(self, state: TrueState) -> dict[str, Array]:
        poses, contacts = state.poses, state.contacts
        values = _milestones(
            state.tcp_pose,
            poses["white"],
            poses["green"],
            state.table_height,
            contacts["left"] & contacts["right"],
            contacts["hand"],
            contacts["table"],
        )
        return dict(zip(self.weights, values, strict=True))

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

    def plan(self, seen: Snapshot) -> list[Waypoint]:
        height = (seen.poses["white"][:3] - seen.poses["green"][:3] - STACKED)[2]
        return self.expert(replace(seen, contacts={**seen.contacts, "green": bool(height < SEEN_CONTACT)}))


@njit("float64[:,:](float64[:,:],float64[:,:],float64[:])")
def _errors(white: Array, green: Array, table_height: Array) -> Array:
    """(3, N) horizontal and vertical distances, in metres, of the white cubes from their places on the green ones, and
    vertical distances of the green cubes from their place on the table.
    """
    result = np.empty((3, len(white)))
    for n in range(len(white)):
        result[0, n] = distance(white[n, :2], green[n, :2])
        result[1, n] = abs(white[n, 2] - green[n, 2] - 2 * HALF)
        result[2, n] = abs(green[n, 2] - table_height[n] - HALF)
    return result


@njit("float64[:,:](float64[:,:],float64[:,:],float64[:,:],float64[:],boolean[:],boolean[:],boolean[:])")
def _milestones(
    tcp: Array, white: Array, green: Array, table_height: Array, grasped: BoolArray, hand: BoolArray, table: BoolArray
) -> Array:
    """Milestone values (6, N), in the order of ``weights``; the flags say whether white is grasped or touches."""
    values = np.empty((6, len(white)))
    reach, grasp, lift, transport, place, release = values
    aside, height, _ = _errors(white, green, table_height)
    for n in range(len(white)):
        over = aside[n] <= MAX_OFFSET
        down = over and height[n] < 0.005 and not table[n]
        grasp[n] = grasped[n] or down
        reach[n] = max(closeness(distance(tcp[n, :3], white[n, :3])), grasp[n])
        # Over the green cube, lowering the white one costs nothing.
        lift[n] = grasp[n] if over else fraction((white[n, 2] - table_height[n] - HALF) / LIFT_HEIGHT) * grasp[n]
        transport[n] = closeness(aside[n]) * lift[n]
        place[n] = closeness(height[n], 0.05) * grasp[n] if over else 0.0
        release[n] = down and not hand[n]
    return values
