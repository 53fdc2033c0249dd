"""Lift: raise a wooden block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks.base import (
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
    pose,
)
from oc_residual_gym.tasks.moves import STEADY, is_holding, pick, top_grasp
from oc_residual_gym.tasks.objects import WOOD, solid_box

HALF_SIZE = (0.06, 0.02, 0.02)
"""Metres: 12 x 4 x 4 cm, as in the paper."""
MASS = 0.1
"""Kilograms: 192 cm^3 of softwood."""
LIFT_HEIGHT = 0.04
"""Height in metres of the block's lowest point above the table, as in the paper."""
CARRY_HEIGHT = 0.10
"""Height in metres above the table to which the expert lifts the TCP."""
X_RANGE, Y_RANGE, YAW_RANGE = (0.37, 0.58), (-0.27, 0.28), (-0.87, 0.80)
"""Metres and radians: the range of the paper's 66 start poses."""


class Lift(Task):
    """Lift: raise a wooden block.

    ## Description
    Lift a wooden block of 12 x 4 x 4 cm and 0.1 kg by 4 cm. The block looks the same on each of its four long sides
    and after half a turn.

    ## Starting State
    The gripper is open. The block lies flat on the table at x = 0.37 to 0.58 m, y = -0.27 to 0.28 m, with a yaw of -50
    to 46 degrees. Positions and yaws are uniform, in the base frame.

    ## Success
    The lowest point of the block is at least 4 cm above the table. This must hold for 0.5 s.

    ## Milestones
    | milestone | weight | value |
    |---|---|---|
    | reach | 0.3 | 1 - tanh(d / 0.1 m), d = distance from the TCP to the block's centre; 1 while grasped |
    | grasp | 0.2 | 1 while both fingers touch the block |
    | lift | 0.4 | fraction of the 4 cm reached, while grasped |

    ## Time Limit
    300 steps, 15 s.

    ## Version History
    v0: first version.
    """

    name = "Lift"
    instruction = "lift the wooden block"
    success_rule = "the lowest point of the block is at least 4 cm above the table for 0.5 s"
    max_episode_steps = 300
    specs = (solid_box("block", HALF_SIZE, MASS, WOOD),)
    objects = (ObservedObject("block", "bar"),)
    contacts = {"left": ("block", "left_finger"), "right": ("block", "right_finger")}
    weights = {"reach": 0.3, "grasp": 0.2, "lift": 0.4}
    failures = {"reach": "block not reached", "grasp": "block not grasped", "lift": "block not lifted"}
    grasped = Grasped("block", spread=(0.012, 0.0, 0.003), half_size=HALF_SIZE)
    robosuite = "Lift"
    picture_step = 92

    def reset(self, rng: np.random.Generator) -> InitialState:
        x, y, yaw = rng.uniform(*np.transpose([X_RANGE, Y_RANGE, YAW_RANGE]))
        return self.start_at({"block": pose(x, y, 0.0, yaw)})

    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        x, y, *_ = block = poses["block"]
        return InitialState({"block": pose(x, y, HALF_SIZE[2], heading(block[3:]))})

    def success(self, state: TrueState) -> BoolArray:
        return _clearance(state.poses["block"], state.table_height) >= LIFT_HEIGHT

    def progress(self, state: TrueState) -> dict[str, Array]:
        left, right = state.contacts["left"], state.contacts["right"]
        values = _milestones(state.tcp_pose, state.poses["block"], state.table_height, left & right)
        return dict(zip(self.weights, values, strict=True))

    def expert(self, state: Snapshot) -> list[Waypoint]:
        if is_holding(state):
            here = state.target[:7]
            up = np.array([*here[:2], state.table_height + CARRY_HEIGHT, *here[3:]])
            return [Waypoint(up, True, speed=STEADY)]
        return pick(state, top_grasp(state, state.poses["block"], np.pi), 2 * HALF_SIZE[1])


@njit("float64[:](float64[:,:],float64[:])")
def _clearance(block: Array, table_height: Array) -> Array:
    """(N,) height in metres of the lowest point of blocks at ``block`` (N, 7) above the table."""
    result = np.empty(len(block))
    for n in range(len(block)):
        x, y, z, w = block[n, 3:]
        # How far each half axis of the block extends vertically.
        along, across = abs(2 * (x * z - w * y)) * HALF_SIZE[0], abs(2 * (y * z + w * x)) * HALF_SIZE[1]
        upwards = abs(1 - 2 * (x * x + y * y)) * HALF_SIZE[2]
        result[n] = block[n, 2] - (along + across + upwards) - table_height[n]
    return result


@njit("float64[:,:](float64[:,:],float64[:,:],float64[:],boolean[:])")
def _milestones(tcp: Array, block: Array, table_height: Array, grasped: BoolArray) -> Array:
    """Milestone values (3, N), in the order of ``weights``."""
    values = np.empty((3, len(block)))
    reach, grasp, lift = values
    clearance = _clearance(block, table_height)
    for n in range(len(block)):
        grasp[n] = grasped[n]
        reach[n] = max(closeness(distance(tcp[n, :3], block[n, :3])), grasp[n])
        lift[n] = fraction(clearance[n] / LIFT_HEIGHT) * grasp[n]
    return values
