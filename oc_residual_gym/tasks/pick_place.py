"""PickPlace: put a red block on a plate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import norm
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
from oc_residual_gym.tasks.moves import PRESS, SEEN_CONTACT, is_holding, pick, place, release, top_grasp
from oc_residual_gym.tasks.objects import RED, WHITE, Geom, ObjectSpec, solid_box

HALF_SIZE = (0.04, 0.02, 0.02)
"""Metres: 8 x 4 x 4 cm, as in the paper."""
MASS = 0.08
"""Kilograms: 128 cm^3 of softwood."""
PLATE_RADIUS, PLATE_HEIGHT = 0.095, 0.01
"""Metres, as in the paper: a flat disc, fixed to the table."""
BLOCK_RANGE = ((0.33, 0.60), (-0.175, 0.275), (-0.98, 2.16))
"""x, y (metres) and yaw (radians) of the block: the range of the paper's start poses."""
PLATE_RANGE = ((0.33, 0.50), (-0.238, 0.257))
"""x, y (metres) of the plate: the range of the paper's start poses, but with x from 0.33 instead of 0.30. Any nearer to
the base, joint 4 of the FR3 reaches its limit."""
LIFT_HEIGHT = 0.03
"""Height in metres above the table at which the block counts as lifted on its way to the plate."""
RETREAT_HEIGHT = 0.12
"""Height in metres above the table to which the expert finally retreats with the TCP."""
MIN_DISTANCE = 0.15
"""Smallest start distance in metres between the centres: the block lies beside the plate at any yaw."""


class PickPlace(Task):
    """PickPlace: put a red block on a plate.

    ## Description
    Pick up a red block of 8 x 4 x 4 cm and 0.08 kg and place it on a plate: a flat disc, 19 cm wide and 1 cm high, that
    is fixed to the table. The block looks the same on each of its four long sides and after half a turn, and the plate
    after any turn and upside down.

    ## Starting State
    The gripper is open. The block lies flat on the table at x = 0.33 to 0.60 m, y = -0.175 to 0.275 m, with a yaw of
    -56 to 124 degrees. The plate is at x = 0.33 to 0.50 m, y = -0.238 to 0.257 m, at least 15 cm from the block.
    Positions and yaws are uniform, in the base frame.

    ## Success
    In the horizontal plane, the block's centre is within the plate's radius. The block lies on any of its faces, within
    10 degrees. It touches the plate, but not the table or the hand, and is slower than 5 cm/s and 0.5 rad/s. This must
    hold for 0.5 s.

    ## Milestones
    The block is "down" when it is over the plate, less than 5 mm above its resting height, and not touching the table.

    | milestone | weight | value |
    |---|---|---|
    | reach | 0.2 | 1 - tanh(d / 0.1 m), d = distance from the TCP to the block's centre; 1 while grasped or down |
    | grasp | 0.15 | 1 while both fingers touch the block or it is down |
    | lift | 0.1 | height above the table, as a fraction of 3 cm, while grasped; 1 over the plate |
    | transport | 0.25 | lift * (1 - tanh(d / 0.1 m)), d = horizontal distance beyond half the plate's radius |
    | place | 0.1 | 1 - tanh(h / 0.05 m), h = height above the plate, while grasped and over the plate |
    | release | 0.1 | 1 while the block is down and the hand does not touch it |

    ## Time Limit
    500 steps, 25 s.

    ## Version History
    v0: first version.
    """

    name = "PickPlace"
    instruction = "pick up the red block and place it on the plate"
    success_rule = (
        "the block rests on the plate, its centre within the plate's radius, level within 10 degrees, touched by "
        "nothing else, slower than 5 cm/s, for 0.5 s"
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
    objects = (ObservedObject("block", "bar"), ObservedObject("plate", "cylinder"))
    contacts = {
        "left": ("block", "left_finger"),
        "right": ("block", "right_finger"),
        "hand": ("block", "hand"),
        "table": ("block", "table"),
        "plate": ("block", "plate"),
    }
    weights = {"reach": 0.2, "grasp": 0.15, "lift": 0.1, "transport": 0.25, "place": 0.1, "release": 0.1}
    failures = {
        "reach": "block not reached",
        "grasp": "block not grasped",
        "lift": "block not lifted",
        "transport": "block not brought over the plate",
        "place": "block not placed on the plate",
        "release": "block not released",
    }
    grasped = Grasped("block", spread=(0.008, 0.0, 0.003), half_size=HALF_SIZE)
    goal = Goal("plate", top=PLATE_HEIGHT, distance=0.12)
    robosuite = "PickPlace*"
    picture_step = 112

    def reset(self, rng: np.random.Generator) -> InitialState:
        while True:
            x, y, yaw = rng.uniform(*np.transpose(BLOCK_RANGE))
            plate_x, plate_y = rng.uniform(*np.transpose(PLATE_RANGE))
            if np.hypot(x - plate_x, y - plate_y) >= MIN_DISTANCE:
                break
        return self.start_at({"block": pose(x, y, 0.0, yaw), "plate": pose(plate_x, plate_y, 0.0)})

    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        block, plate = poses["block"], poses["plate"]
        return InitialState(
            {
                "block": pose(block[0], block[1], HALF_SIZE[2], heading(block[3:])),
                "plate": pose(plate[0], plate[1], PLATE_HEIGHT / 2),
            }
        )

    def success(self, state: TrueState) -> BoolArray:
        block, plate, contacts = state.poses["block"], state.poses["plate"], state.contacts
        within = norm(block[:, :2] - plate[:, :2]) <= PLATE_RADIUS
        alone = contacts["plate"] & ~(contacts["table"] | contacts["hand"])
        return within & is_level(block) & alone & is_still(state.velocities["block"])

    def progress(self, state: TrueState) -> dict[str, Array]:
        poses, contacts = state.poses, state.contacts
        values = _milestones(
            state.tcp_pose,
            poses["block"],
            poses["plate"],
            state.table_height,
            contacts["left"] & contacts["right"],
            contacts["hand"],
            contacts["table"],
        )
        return dict(zip(self.weights, values, strict=True))

    def expert(self, state: Snapshot) -> list[Waypoint]:
        block, plate = state.poses["block"], state.poses["plate"]
        if state.contacts["plate"] and np.hypot(*(block[:2] - plate[:2])) < PLATE_RADIUS / 2:
            return release(state, RETREAT_HEIGHT)
        if is_holding(state):
            goal = np.array([*plate[:2], state.table_height + PLATE_HEIGHT + HALF_SIZE[2] - PRESS])
            return place(state, block[:3], goal, heading(state.target[3:7]))
        return pick(state, top_grasp(state, block, np.pi), 2 * HALF_SIZE[1])

    def plan(self, seen: Snapshot) -> list[Waypoint]:
        block, plate = seen.poses["block"], seen.poses["plate"]
        height = block[2] - plate[2] - PLATE_HEIGHT / 2 - HALF_SIZE[2]
        return self.expert(replace(seen, contacts={**seen.contacts, "plate": bool(height < SEEN_CONTACT)}))


@njit("float64[:,:](float64[:,:],float64[:,:],float64[:,:],float64[:],boolean[:],boolean[:],boolean[:])")
def _milestones(
    tcp: Array, block: Array, plate: Array, table_height: Array, grasped: BoolArray, hand: BoolArray, table: BoolArray
) -> Array:
    """Milestone values (6, N), in the order of ``weights``; the flags say whether the block is grasped or touches."""
    values = np.empty((6, len(block)))
    reach, grasp, lift, transport, place, release = values
    for n in range(len(block)):
        aside = distance(block[n, :2], plate[n, :2])
        # Height above its resting height on the plate.
        height = block[n, 2] - table_height[n] - PLATE_HEIGHT - HALF_SIZE[2]
        over = aside <= PLATE_RADIUS
        down = over and height < 0.005 and not table[n]
        grasp[n] = grasped[n] or down
        reach[n] = max(closeness(distance(tcp[n, :3], block[n, :3])), grasp[n])
        # Over the plate, lowering the block costs nothing.
        lift[n] = grasp[n] if over else fraction((height + PLATE_HEIGHT) / LIFT_HEIGHT) * grasp[n]
        transport[n] = closeness(max(aside - PLATE_RADIUS / 2, 0.0)) * lift[n]
        place[n] = closeness(max(height, 0.0), 0.05) * grasp[n] if over else 0.0
        release[n] = down and not hand[n]
    return values
