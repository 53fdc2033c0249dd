"""StandCup: stand a cup upright that lies on its side."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import quat_from_rotvec, quat_multiply
from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks.base import (
    Grasped,
    InitialState,
    ObservedObject,
    Snapshot,
    Task,
    Waypoint,
    axis_z,
    axis_z_one,
    closeness,
    distance,
    fraction,
    is_still,
)
from oc_residual_gym.tasks.moves import (
    PRESS,
    RELEASE_WAIT,
    SETTLE,
    SLOW,
    STEADY,
    above,
    is_holding,
    pick,
    tool_down,
)
from oc_residual_gym.tasks.objects import RED, Geom, ObjectSpec, ring_quat

HEIGHT, MOUTH_RADIUS, BASE_RADIUS = 0.10, 0.0375, 0.025
"""Outer dimensions in metres, as in the paper."""
MASS = 0.15
"""Kilograms, as in the paper."""
WALL = 0.003
"""Wall thickness in metres."""
STAVES = 16
"""Number of boxes that form the wall."""
HALF_ANGLE = np.arctan((MOUTH_RADIUS - BASE_RADIUS) / HEIGHT)
"""Angle between the wall and the axis, in radians: 7.1 degrees."""
FOOT = 0.0005
"""Metres by which the base extends below the wall, so that the cup stands on its base."""
X_RANGE, Y_RANGE, AZIMUTH_RANGE = (0.468, 0.602), (-0.154, 0.220), (1.484, 2.531)
"""Metres, and radians from +x to the mouth's direction: the range of the paper's 27 placements."""
MAX_TILT = np.radians(10.0)
"""Largest tilt in radians of a standing cup."""
BASE_CLEARANCE = 0.006
"""Largest height in metres of the base's centre above the table: a tilt of 10 degrees lifts it by 4.1 mm."""
SAFE_TILT = np.radians(20.0)
"""Tilt in radians below which a cup released on the table rights itself: its centre of mass is above its base."""

PRE_TILT = np.radians(-10.0)
"""Tilt in radians of the expert's tool towards the base at the grasp. With more tilt, the palm hits the cup."""
GRASP_DISTANCE, GRASP_HEIGHT = 0.033, 0.006
"""Position of the expert's grasp in metres: from the base along the axis, and above the axis."""
GRASP_WIDTH = 2 * (BASE_RADIUS + GRASP_DISTANCE * (MOUTH_RADIUS - BASE_RADIUS) / HEIGHT)
"""Distance between the fingers at the grasp, in metres."""
CARRY_HEIGHT = 0.04
"""Height in metres above the table at which the expert turns the cup."""
STAND_X = 0.50
"""Largest x in metres at which the expert stands a cup. Farther away, the arm cannot turn the hand far enough."""
RETREAT = 0.10
"""Metres by which the expert draws the open hand back along the tool axis."""


def _cup() -> ObjectSpec:
    """Build the cup. Its frame has its origin halfway up the axis, with +z from the base to the mouth."""
    geoms = [Geom("cylinder", (BASE_RADIUS - WALL / 2, WALL / 2), (0, 0, -HEIGHT / 2 + WALL / 2), rgba=RED)]
    # Boxes that are wide enough for the mouth are too wide for the base: there, their edges would stick out between
    # their neighbours. So the boxes lie deeper at the base, and their edges touch the cone's planes along their length.
    step = 2 * np.pi / STAVES
    half_width = MOUTH_RADIUS * np.tan(step / 2)
    foot_radius = (BASE_RADIUS - half_width * np.sin(step)) / np.cos(step)
    tilt = np.arctan((MOUTH_RADIUS - foot_radius) / HEIGHT)
    radius = (MOUTH_RADIUS + foot_radius) / 2 - WALL / 2 * np.cos(tilt)
    half_length = (HEIGHT - FOOT - WALL * np.sin(tilt)) / np.cos(tilt) / 2
    size = (WALL / 2, half_width, half_length)
    for angle in step * np.arange(STAVES):
        position = (radius * np.cos(angle), radius * np.sin(angle), FOOT / 2)
        geoms.append(Geom("box", size, position, ring_quat(angle, tilt), rgba=RED))
    center, inertia = _mass_distribution()
    return ObjectSpec("cup", tuple(geoms), MASS, inertia, (0.0, 0.0, center))


def _mass_distribution() -> tuple[float, tuple[float, float, float]]:
    """Centre of mass along the axis (m) and principal moments of inertia about it (kg m^2), for a thin shell."""
    rise, total = MOUTH_RADIUS - BASE_RADIUS, MOUTH_RADIUS + BASE_RADIUS
    areas = np.array([total * np.hypot(HEIGHT, rise), BASE_RADIUS**2])
    wall, base = MASS * areas / areas.sum()
    squares = MOUTH_RADIUS**2 + BASE_RADIUS**2
    center = (wall * HEIGHT / 6 * rise / total - base * HEIGHT / 2) / MASS
    along = wall * squares / 2 + base * BASE_RADIUS**2 / 2
    across = along / 2 + wall * HEIGHT**2 / 12 + base * HEIGHT**2 / 4 - MASS * center**2
    return center, (across, across, along)


def _lying(azimuth: float) -> Array:
    """Orientation (4,) of a cup that lies on its wall with its mouth towards ``azimuth``."""
    return Rotation.from_euler("ZY", [azimuth, np.pi / 2 - HALF_ANGLE]).as_quat()


def _grasp(base: Array, axis: Array) -> Array:
    """Tool pose that grasps a lying cup across its body; ``base`` (3,) is its base, ``axis`` (3,) its axis."""
    yaw = np.arctan2(axis[1], axis[0])
    quat = quat_multiply(tool_down(yaw), quat_from_rotvec(np.array([0.0, PRE_TILT, 0.0])))
    return np.concatenate([base + GRASP_DISTANCE * axis + [0.0, 0.0, GRASP_HEIGHT], quat])


def _let_go(state: Snapshot) -> list[Waypoint]:
    """Open the hand and draw it back along the tool axis."""
    here = state.target[:7]
    wait = 0 if state.gripper_width > 0.07 else RELEASE_WAIT
    back = here.copy()
    back[:3] -= RETREAT * axis_z(here[3:])
    return [Waypoint(here, closed=False, wait=wait), Waypoint(back, closed=False, speed=STEADY)]


class StandCup(Task):
    """StandCup: stand a cup upright that lies on its side.

    ## Description
    Stand a cup upright that lies on its side. The cup weighs 0.15 kg; it is 10 cm high, 7.5 cm wide at the mouth and
    5 cm wide at the base. It looks the same after any turn about its axis.

    ## Starting State
    The gripper is open. The cup lies on its wall at x = 0.468 to 0.602 m, y = -0.154 to 0.220 m. Its mouth points 85 to
    145 degrees counterclockwise from +x, seen from above. Positions and angles are uniform, in the base frame.

    ## Success
    The cup is tilted by less than 10 degrees, and the centre of its base is less than 6 mm above the table. The cup
    touches the table but not the hand, and is slower than 5 cm/s and 0.5 rad/s. This must hold for 0.5 s.

    ## Milestones
    The cup is "settled" when it is tilted by less than 20 degrees and the centre of its base is less than 8.6 mm above
    the table. A cup released like this rights itself.

    | milestone | weight | value |
    |---|---|---|
    | reach | 0.2 | 1 - tanh(d / 0.1 m), d = distance from the TCP to the cup's centre; 1 while grasped or settled |
    | grasp | 0.15 | 1 while both fingers touch the cup or it is settled |
    | turn | 0.3 | cosine of the tilt, at least 0, while grasped or settled |
    | lower | 0.15 | (1 - tanh(h / 0.05 m)) * u while grasped or settled, h = height of the base above the table |
    | release | 0.1 | 1 while the cup is settled and the hand does not touch it |

    u rises from 0 at a tilt of 46 degrees to 1 at 26 degrees.

    ## Time Limit
    500 steps, 25 s.

    ## Version History
    v0: first version.
    """

    name = "StandCup"
    instruction = "stand the cup upright"
    success_rule = "the cup stands on the table, tilted by less than 10 degrees, fingers clear, still, for 0.5 s"
    max_episode_steps = 500
    specs = (_cup(),)
    objects = (ObservedObject("cup", "axis_z"),)
    contacts = {
        "left": ("cup", "left_finger"),
        "right": ("cup", "right_finger"),
        "hand": ("cup", "hand"),
        "table": ("cup", "table"),
    }
    weights = {"reach": 0.2, "grasp": 0.15, "turn": 0.3, "lower": 0.15, "release": 0.1}
    failures = {
        "reach": "cup not reached",
        "grasp": "cup not grasped",
        "turn": "cup not turned upright",
        "lower": "cup not set down",
        "release": "cup not released",
    }
    grasped = Grasped("cup", spread=(0.0, 0.0, 0.002), lies_under_hand=False)
    picture_step = 128

    def reset(self, rng: np.random.Generator) -> InitialState:
        x, y, azimuth = rng.uniform(*np.transpose([X_RANGE, Y_RANGE, AZIMUTH_RANGE]))
        return self.start_at({"cup": np.array([x, y, 0.0, *_lying(azimuth)])})

    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        x, y, *_ = cup = poses["cup"]
        axis = axis_z(cup[3:])
        height = (MOUTH_RADIUS + BASE_RADIUS) / 2 * np.cos(HALF_ANGLE)
        return InitialState({"cup": np.array([x, y, height, *_lying(np.arctan2(axis[1], axis[0]))])})

    def success(self, state: TrueState) -> BoolArray:
        upright, height = _stance(state.poses["cup"], state.table_height)
        standing = (upright > np.cos(MAX_TILT)) & (height < BASE_CLEARANCE) & state.contacts["table"]
        return standing & ~state.contacts["hand"] & is_still(state.velocities["cup"])

    def progress(self, state: TrueState) -> dict[str, Array]:
        contacts = state.contacts
        grasped = contacts["left"] & contacts["right"]
        values = _milestones(state.tcp_pose, state.poses["cup"], state.table_height, grasped, contacts["hand"])
        return dict(zip(self.weights, values, strict=True))

    def expert(self, state: Snapshot) -> list[Waypoint]:
        cup, tool = state.poses["cup"], state.tcp_pose
        axis = axis_z(cup[3:])
        base = cup[:3] - HEIGHT / 2 * axis
        upright = axis[2] > np.cos(MAX_TILT)
        if upright and base[2] - state.table_height < BASE_CLEARANCE:
            return _let_go(state)
        if not is_holding(state):
            return pick(state, _grasp(base, axis), GRASP_WIDTH)
        # The shortest rotation that brings the axis upright is about the line through the fingers.
        turn = Rotation.align_vectors([0.0, 0.0, 1.0], axis)[0]
        stand = np.array([min(base[0], STAND_X), base[1], state.table_height - PRESS])
        quat = (turn * Rotation.from_quat(tool[3:])).as_quat()
        goal = np.concatenate([stand + turn.apply(tool[:3] - base), quat])
        legs = [Waypoint(goal, True, wait=SETTLE, speed=SLOW), Waypoint(goal, False, wait=RELEASE_WAIT)]
        if not upright:
            over, here = above(goal, CARRY_HEIGHT), state.target[:7]
            lift = Waypoint(above(here, max(over[2] - here[2], 0.0)), True, speed=STEADY)
            legs = [lift, Waypoint(over, True, wait=SETTLE, speed=STEADY), *legs]
        return legs


@njit("float64[:,:](float64[:,:],float64[:])")
def _stance(cup: Array, table_height: Array) -> Array:
    """(2, N) cosines of the cups' tilts, and heights in metres of their bases' centres above the table."""
    result = np.empty((2, len(cup)))
    for n in range(len(cup)):
        upright = axis_z_one(cup[n, 3:])[2]
        result[0, n], result[1, n] = upright, cup[n, 2] - HEIGHT / 2 * upright - table_height[n]
    return result


@njit("float64[:,:](float64[:,:],float64[:,:],float64[:],boolean[:],boolean[:])")
def _milestones(tcp: Array, cup: Array, table_height: Array, grasped: BoolArray, hand: BoolArray) -> Array:
    """Milestone values (5, N), in the order of ``weights``; the flags say whether the cup is grasped or touched."""
    values = np.empty((5, len(cup)))
    reach, grasp, turn, lower, release = values
    upright, height = _stance(cup, table_height)
    for n in range(len(cup)):
        # A cup released like this rights itself.
        settled = upright[n] > math.cos(SAFE_TILT) and height[n] < BASE_RADIUS * math.sin(SAFE_TILT)
        grasp[n] = grasped[n] or settled
        reach[n] = max(closeness(distance(tcp[n, :3], cup[n, :3])), grasp[n])
        turn[n] = fraction(upright[n]) * grasp[n]
        lower[n] = closeness(max(height[n], 0.0), 0.05) * fraction((upright[n] - 0.7) / 0.2) * grasp[n]
        release[n] = settled and not hand[n]
    return values
