"""PegInsert: take a round peg from its holder and insert it into a hole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import (
    clip_norm,
    norm,
    pose_multiply,
    pose_relative,
    quat_from_rotvec,
    quat_multiply,
    rotation_between,
)
from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks.base import (
    Goal,
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
    pose,
)
from oc_residual_gym.tasks.moves import FAST, PRESS, SETTLE, SLOW, STEADY, above, is_holding, move, pick, tool_pose
from oc_residual_gym.tasks.objects import BLUE, RED, STEEL, Color, Geom, ObjectSpec, cylinder_inertia

PEG_RADIUS, PEG_LENGTH = 0.008, 0.080
"""Metres: a 16 mm peg with flat ends and sharp edges."""
PEG_MASS = 0.045
"""Kilograms: aluminium."""
HOLE_RADIUS, HOLE_DEPTH, CHAMFER = 0.0085, 0.030, 0.0015
"""Metres: a 17 mm hole, which leaves 0.5 mm of clearance on all sides, with a 45 degree chamfer."""
HOLE_SIDES, VISIBLE_SIDES = 12, 60
"""Collisions use 12 convex pieces whose flat insides touch the hole's circle: the round peg has 0.50 mm of clearance
towards a flat and 0.52 mm towards a corner. The visual mesh has 60 sides."""
BLOCK_HALF_WIDTH, BLOCK_FLOOR = 0.030, 0.010
"""Metres: half width of the square block, and thickness of its floor below the hole."""
HOLDER_HALF_WIDTH, HOLDER_WALL, HOLDER_DEPTH, HOLDER_FLOOR = 0.010, 0.006, 0.030, 0.005
"""Metres: a square pocket with 2 mm of clearance on all sides."""
INSERTED_DEPTH = 0.025
"""Depth in metres at which the peg counts as inserted."""
MAX_TILT = np.radians(5.0)
"""Largest tilt in radians of an inserted peg."""
FRICTION = 0.3
"""Sliding friction coefficient: aluminium on a polymer block."""
X_RANGE, Y_RANGE = (0.40, 0.56), (-0.20, 0.20)
"""Metres: start positions of the holder and of the block."""
MIN_DISTANCE = 0.14
"""Smallest start distance in metres between holder and block: the opened fingers fit beside the block."""

BLOCK_HEIGHT = BLOCK_FLOOR + HOLE_DEPTH
INSIDE = HOLE_RADIUS - PEG_RADIUS + 0.001
"""Largest distance in metres of an inserted peg's lower end from the hole's axis, with a margin of 1 mm."""
GUIDED = 0.001
"""Distance in metres from the hole's axis within which the chamfer guides the peg in."""

GRASP = np.array([0.0, 0.0, 0.015])
"""Metres from the peg's centre to the grasp, where the fingertips clear the holder and the palm clears the peg."""
CARRY_HEIGHT, NEAR_HEIGHT = 0.015, 0.004
"""Heights in metres above the hole's mouth at which the expert first carries and then aligns the peg's lower end."""
NEAR = 0.008
"""Distance in metres from the hole's axis within which the expert corrects in place instead of rising again."""
ALIGNED = 0.0012
"""Distance in metres from the hole's axis within which the expert lowers the peg."""
ENTRY_DEPTH, PUSH_DEPTH = 0.004, 0.027
"""Depths in metres: the expert pushes the peg slowly to the first, then on to the second, above the hole's floor."""
ENTRY_SPEED, PUSH_SPEED = 0.001, 0.002
"""Metres per control step."""
SLIDE_PUSH = 0.005
"""Metres from the TCP down to the target (4 N) while the expert slides a peg across the rim."""
SEARCH_RADIUS, SEARCH_HEIGHT = 0.010, 0.006
"""Metres from where the hole is seen, sideways and upwards, within which the planner searches for it."""
SURE_DEPTH = 0.006
"""Metres below the seen mouth at which the peg must be in the hole, whatever the error of a tracker."""
LANDED = 0.002
"""Metres above the seen mouth below which the peg may stand on the rim, or be in the hole."""
PRESSED = 0.002
"""Metres from the TCP down to the target (1.6 N) from which on the peg counts as pressing on something. In free space,
an arm with friction in its joints may lag as much; then a spiral in the air costs time and nothing else."""
LIGHT_PUSH = 0.003
"""Metres from the TCP down to the target (2.4 N) while the planner slides the peg."""
CAUGHT = 0.006
"""Metres sideways from the TCP to the target from which on more than friction holds the peg back: the chamfer does."""
SPIRAL_SPEED, SPIRAL_PITCH, SPIRAL_STEPS = 0.0005, 0.003, 16
"""Metres per control step, metres between turns (a peg within 1.5 mm of the hole drops), and steps in a plan."""
MAX_STANDING_ERROR = (0.008, 0.1)
"""Largest steady-state error, in metres and radians, for which the expert compensates: load, friction and contact."""

# A flat finger pad touches a cylinder at one point only. A capsule inside the cylinder touches it at two, like a line.
PEG_GRIP_BITS = {"contype": 0, "conaffinity": 1}
PEG_BODY_BITS = {"contype": 2, "conaffinity": 2}


def _peg() -> ObjectSpec:
    cylinder = Geom("cylinder", (PEG_RADIUS, PEG_LENGTH / 2), rgba=RED, bits=PEG_BODY_BITS)
    grip = Geom("capsule", (PEG_RADIUS, PEG_LENGTH / 2 - PEG_RADIUS), role="collision", bits=PEG_GRIP_BITS)
    inertia = cylinder_inertia(PEG_MASS, PEG_RADIUS, PEG_LENGTH)
    return ObjectSpec("peg", (cylinder, grip), PEG_MASS, inertia, friction=FRICTION)


def _holder() -> ObjectSpec:
    """Build the holder. Its frame has its origin on the table, with +z up."""
    inside, wall, half_height = HOLDER_HALF_WIDTH, HOLDER_WALL / 2, (HOLDER_FLOOR + HOLDER_DEPTH) / 2
    geoms = [Geom("box", (inside, inside, HOLDER_FLOOR / 2), (0.0, 0.0, HOLDER_FLOOR / 2), rgba=STEEL)]
    for side in (1, -1):
        centre = side * (inside + wall)
        geoms.append(Geom("box", (wall, inside + 2 * wall, half_height), (centre, 0.0, half_height), rgba=STEEL))
        geoms.append(Geom("box", (inside, wall, half_height), (0.0, centre, half_height), rgba=STEEL))
    return ObjectSpec("holder", tuple(geoms), friction=FRICTION, fixed=True)


def _hole() -> ObjectSpec:
    """Build the block with the hole. Its frame has its origin at the centre of the hole's mouth, with +z up."""
    inside = ((HOLE_RADIUS, -HOLE_DEPTH), (HOLE_RADIUS, -CHAMFER), (HOLE_RADIUS + CHAMFER, 0.0))
    loops = [_circle(HOLE_SIDES, *point) for point in inside]
    loops += [_square(HOLE_SIDES, z) for z in (0.0, -HOLE_DEPTH)]
    wedges = [_points([loop[j] for loop in loops for j in (i, i - 1)]) for i in range(HOLE_SIDES)]
    pieces = [Geom("mesh", role="collision", rgba=BLUE, vertices=wedge) for wedge in wedges]
    half_size = (BLOCK_HALF_WIDTH, BLOCK_HALF_WIDTH, BLOCK_FLOOR / 2)
    floor = Geom("box", half_size, (0.0, 0.0, -HOLE_DEPTH - BLOCK_FLOOR / 2), rgba=BLUE)
    bottom, rim, mouth = (_circle(VISIBLE_SIDES, *point) for point in inside)
    outside = [_square(VISIBLE_SIDES, z) for z in (0.0, -HOLE_DEPTH)]
    seen = (_surface([bottom, rim], BLUE), _surface([rim, mouth], STEEL), _surface([mouth, *outside], BLUE))
    return ObjectSpec("hole", (*pieces, floor, *seen), friction=FRICTION, fixed=True)


def _corners(sides: int) -> Array:
    """Corners (sides, 2) of the regular polygon around the unit circle whose first side faces +x.

    With 12 or 60 sides, four corners lie at 45 degrees, like those of a square.
    """
    angles = np.pi / sides * (2 * np.arange(sides) + 1)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.cos(np.pi / sides)


def _circle(sides: int, radius: float, z: float) -> Array:
    """Corners (sides, 3) of a polygon around a horizontal circle."""
    return np.column_stack([radius * _corners(sides), np.full(sides, z)])


def _square(sides: int, z: float) -> Array:
    """Points (sides, 3) in the same directions on the block's horizontal outline."""
    corners = _corners(sides)
    outline = BLOCK_HALF_WIDTH * corners / np.abs(corners).max(axis=1, keepdims=True)
    return np.column_stack([outline, np.full(sides, z)])


def _points(points: Sequence[Array]) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(x), float(y), float(z)) for x, y, z in points)


def _surface(loops: Sequence[Array], rgba: Color) -> Geom:
    """Visual mesh of the strips between consecutive loops (sides, 3) of points, with a sharp edge at each loop."""
    sides = len(loops[0])
    points: list[Array] = []
    faces: list[tuple[int, int, int]] = []
    for lower, upper in pairwise(loops):
        first = len(points)
        points += [*lower, *upper]
        for i in range(sides):
            a, b = first + i, first + (i + 1) % sides
            faces += [(a, a + sides, b), (b, a + sides, b + sides)]
    return Geom("mesh", rgba=rgba, role="visual", vertices=_points(points), faces=tuple(faces))


class PegInsert(Task):
    """PegInsert: take a round peg from its holder and insert it into a hole.

    ## Description
    Take a round peg from its holder and insert it into a hole. The peg is made of aluminium, 16 mm wide, 80 mm long and
    weighs 45 g; it has 2 mm of clearance in its holder. The hole, in a block of 6 x 6 x 4 cm, is 17 mm wide and 30 mm
    deep with a 1.5 mm chamfer, so the peg has 0.5 mm of clearance on all sides. Holder and block are fixed to the
    table. The observed objects are the peg and the hole (the centre of its mouth); both look the same after any turn
    about their axes, and the peg end over end.

    ## Starting State
    The gripper is open. The peg stands upright in the holder. Holder and block are at x = 0.40 to 0.56 m, y = -0.20 to
    0.20 m, at least 14 cm apart. Positions are uniform, in the base frame.

    ## Success
    The peg's lower end (either end will do) is at least 25 mm deep in the hole. The peg is tilted by less than 5
    degrees and slower than 5 cm/s and 0.5 rad/s. The hand may still hold it. This must hold for 0.5 s.

    ## Milestones
    | milestone | weight | value |
    |---|---|---|
    | reach | 0.15 | 1 - tanh(d / 0.1 m), d = distance from the TCP to 15 mm above the peg's centre; 1 while grasped |
    | grasp | 0.1 | 1 while both fingers touch the peg or it is more than half inserted |
    | raise | 0.1 | height of the lower end above the holder's floor, as a fraction of 30 mm; 1 in the hole |
    | align | 0.25 | (0.6 c(a, 10 cm) + 0.4 c(a, 1 cm)) * c(sine of the tilt, 0.3) |
    | lower | 0.1 | c(h, 5 cm) * c(a, 1 cm), h = height of the lower end above the hole's mouth |
    | insert | 0.25 | inserted fraction of the 25 mm |

    c(x, s) = 1 - tanh(x / s), and a is the distance of the peg's lower end from the hole's axis, less 1 mm. "raise",
    "align" and "lower" are multiplied by "grasp".

    ## Time Limit
    500 steps, 25 s.

    ## Version History
    v0: first version.
    """

    name = "PegInsert"
    instruction = "insert the peg into the hole"
    success_rule = "the peg is at least 25 mm deep in the hole, tilted by less than 5 degrees, still, for 0.5 s"
    max_episode_steps = 500
    specs = (_peg(), _hole(), _holder())
    objects = (ObservedObject("peg", "cylinder"), ObservedObject("hole", "axis_z"))
    contacts = {"left": ("peg", "left_finger"), "right": ("peg", "right_finger")}
    weights = {"reach": 0.15, "grasp": 0.1, "raise": 0.1, "align": 0.25, "lower": 0.1, "insert": 0.25}
    failures = {
        "reach": "peg not reached",
        "grasp": "peg not grasped",
        "raise": "peg not taken out of its holder",
        "align": "peg not brought over the hole",
        "lower": "peg not lowered to the hole",
        "insert": "peg not inserted",
    }
    grasped = Grasped("peg", spread=(0.0, 0.0, 0.003))
    goal = Goal("hole", top=BLOCK_HEIGHT, distance=0.08)
    picture_step = 118
    close_up = "hole"

    def reset(self, rng: np.random.Generator) -> InitialState:
        while True:
            x, y, hole_x, hole_y = rng.uniform(*np.transpose([X_RANGE, Y_RANGE, X_RANGE, Y_RANGE]))
            if np.hypot(x - hole_x, y - hole_y) >= MIN_DISTANCE:
                break
        return self.start_at({"peg": pose(x, y, 0.0), "hole": pose(hole_x, hole_y, 0.0)})

    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        peg, hole = poses["peg"], poses["hole"]
        return InitialState(
            {
                "peg": pose(peg[0], peg[1], HOLDER_FLOOR + PEG_LENGTH / 2),
                "holder": pose(peg[0], peg[1], 0.0),
                "hole": pose(hole[0], hole[1], BLOCK_HEIGHT),
            }
        )

    def success(self, state: TrueState) -> BoolArray:
        offset, depth, tilt = _insertion(state.poses["peg"], state.poses["hole"])
        deep = (offset < INSIDE) & (depth >= INSERTED_DEPTH)
        return deep & (tilt < np.sin(MAX_TILT)) & is_still(state.velocities["peg"])

    def progress(self, state: TrueState) -> dict[str, Array]:
        peg, hole = state.poses["peg"], state.poses["hole"]
        grasped = state.contacts["left"] & state.contacts["right"]
        values = _milestones(state.tcp_pose, peg, hole, state.table_height, grasped)
        return dict(zip(self.weights, values, strict=True))

    def expert(self, state: Snapshot) -> list[Waypoint]:
        peg, hole, target = state.poses["peg"], state.poses["hole"], state.target[:7]
        axis = _upward_axis(peg)
        if axis[2] < 0.7:  # This expert cannot pick up a fallen peg.
            return [Waypoint(target, False)]
        if not is_holding(state):
            return pick(state, tool_pose(peg[:3] + GRASP[2] * axis, 0.0), 2 * PEG_RADIUS)
        bottom = peg[:3] - PEG_LENGTH / 2 * axis
        offset, height = norm((bottom - hole[:3])[:2]), bottom[2] - hole[2]
        deep = Waypoint(_tool(state, above(hole, -PUSH_DEPTH)), True, wait=SETTLE, speed=PUSH_SPEED)
        if offset < GUIDED and height < -CHAMFER:
            return [deep]
        near = Waypoint(_tool(state, above(hole, NEAR_HEIGHT)), True, wait=SETTLE, speed=SLOW)
        if offset < NEAR and height > -CHAMFER:
            if not _is_settled(state) or height > 2 * NEAR_HEIGHT:
                return [near]
            if offset < ALIGNED:
                return [Waypoint(_tool(state, above(hole, -ENTRY_DEPTH)), True, speed=ENTRY_SPEED), deep]
            return [_slide(state, hole + 0.5 * (hole - [*bottom, *hole[3:]]))] if height < 0.001 else [near]
        over = _tool(state, above(hole, CARRY_HEIGHT))
        if height > 0.6 * CARRY_HEIGHT:
            return [*move(target, over, True, FAST), near]
        up = above(target, CARRY_HEIGHT - height)
        firm = Waypoint(target, True, wait=2 if _is_settled(state) else 0)
        return [firm, Waypoint(up, True, speed=STEADY), *move(up, over, True, FAST), near]

    def plan(self, seen: Snapshot) -> list[Waypoint]:
        """As the expert, until the peg is just above the hole. From there on, where the hole is seen to be is off by
        more than the chamfer forgives: lower the peg until it stands on something, and slide it along a spiral, lightly
        pressed down, until it drops.
        """
        peg, hole, target, tcp = seen.poses["peg"], seen.poses["hole"], seen.target, seen.tcp_pose
        axis = _upward_axis(peg)
        bottom = peg[:3] - PEG_LENGTH / 2 * axis
        away, height = (bottom - hole[:3])[:2], bottom[2] - hole[2]
        if axis[2] < 0.7 or not is_holding(seen) or norm(away) > SEARCH_RADIUS or height > SEARCH_HEIGHT:
            return self.expert(seen)
        is_pressed = tcp[2] - target[2] > PRESSED
        if not is_pressed and height > LANDED and norm(away) > ALIGNED:
            return self.expert(seen)
        upright = _tool(seen, above(hole, 0.0))[3:]

        def down(xy: Array, depth: float, speed: float = ENTRY_SPEED) -> Waypoint:
            return Waypoint(np.array([*xy, tcp[2] - depth, *upright]), True, speed=speed)

        if height < -SURE_DEPTH:
            return [down(tcp[:2], height + HOLE_DEPTH + PRESS, PUSH_SPEED)]
        if not is_pressed:
            return [down(target[:2], 2 * SLIDE_PUSH)]
        lead = target[:2] - tcp[:2]
        if norm(lead) > CAUGHT:
            return [down(tcp[:2], 2 * SLIDE_PUSH)]
        # The spiral is the target's: friction holds the peg back, and its lower end more than its centre.
        centre = (peg - hole)[:2] + lead
        return [down(target[:2] + point - centre, LIGHT_PUSH) for point in _spiral(centre, SPIRAL_STEPS)]


def _spiral(start: Array, steps: int) -> Array:
    """Points (steps, 2), ``SPIRAL_SPEED`` apart, that spiral outwards around the origin from ``start`` (2,)."""
    points = np.empty((steps, 2))
    radius, angle = max(float(norm(start)), SPIRAL_SPEED), float(np.arctan2(start[1], start[0]))
    for i in range(steps):
        turn = SPIRAL_SPEED / radius
        angle += turn
        radius += SPIRAL_PITCH * turn / (2 * np.pi)
        points[i] = radius * np.cos(angle), radius * np.sin(angle)
    return points


@njit("float64[:,:](float64[:,:],float64[:,:])")
def _insertion(peg: Array, hole: Array) -> Array:
    """(3, N): distance of the peg's lower end from the hole's axis and its depth below the mouth, both in metres, and
    the sine of the peg's tilt. Either end of the peg may be the lower one.
    """
    result = np.empty((3, len(peg)))
    for n in range(len(peg)):
        axis = axis_z_one(peg[n, 3:])
        x, y, z = hole[n, :3] - peg[n, :3] + math.copysign(PEG_LENGTH / 2, axis[2]) * axis
        result[0, n], result[1, n], result[2, n] = math.hypot(x, y), z, math.hypot(axis[0], axis[1])
    return result


@njit("float64[:,:](float64[:,:],float64[:,:],float64[:,:],float64[:],boolean[:])")
def _milestones(tcp: Array, peg: Array, hole: Array, table_height: Array, grasped: BoolArray) -> Array:
    """Milestone values (6, N), in the order of ``weights``."""
    values = np.empty((6, len(peg)))
    reach, grasp, rise, align, lower, insert = values
    offset, depth, tilt = _insertion(peg, hole)
    for n in range(len(peg)):
        inside = offset[n] < INSIDE
        insert[n] = fraction(depth[n] / INSERTED_DEPTH) if inside else 0.0
        grasp[n] = grasped[n] or insert[n] > 0.5
        reach[n] = max(closeness(distance(tcp[n, :3], peg[n, :3] + GRASP)), grasp[n])
        # Height above the holder's floor. In the hole, lowering the peg costs nothing.
        height = hole[n, 2] - depth[n] - table_height[n] - HOLDER_FLOOR
        rise[n] = grasp[n] if inside and depth[n] > 0.0 else fraction(height / HOLDER_DEPTH) * grasp[n]
        # Once the chamfer guides the peg, alignment is complete.
        aside = max(offset[n] - GUIDED, 0.0)
        close = closeness(aside, 0.01)
        align[n] = (0.6 * closeness(aside) + 0.4 * close) * closeness(tilt[n], 0.3) * grasp[n]
        lower[n] = closeness(max(-depth[n], 0.0), 0.05) * close * grasp[n]
    return values


def _upward_axis(peg: Array) -> Array:
    """Unit vector (3,) from the lower to the upper end of a peg at ``peg`` (7,)."""
    axis = axis_z(peg[3:])
    return axis * np.copysign(1.0, axis[2])


def _is_settled(state: Snapshot) -> bool:
    """Whether the held peg is at rest, so that the arm's distance from its target is a steady-state error."""
    return bool(norm(state.velocities["peg"][:3]) < 0.01)


def _tool(state: Snapshot, goal: Array) -> Array:
    """Target (7,) that brings the held peg upright, with its lower end at the position of ``goal`` (7,)."""
    peg, tcp, target = state.poses["peg"], state.tcp_pose, state.target
    axis = _upward_axis(peg)
    turn = quat_from_rotvec(np.cross(axis, [0.0, 0.0, 1.0]))
    upright = np.concatenate([above(goal, PEG_LENGTH / 2)[:3], quat_multiply(turn, peg[3:])])
    tool = pose_multiply(upright, pose_relative(peg, tcp))
    if _is_settled(state):
        tool[:3] += clip_norm(target[:3] - tcp[:3], MAX_STANDING_ERROR[0])
        error = clip_norm(rotation_between(tcp[3:], target[3:7]), MAX_STANDING_ERROR[1])
        tool[3:] = quat_multiply(tool[3:], quat_from_rotvec(error))
    return tool


def _slide(state: Snapshot, goal: Array) -> Waypoint:
    """Push the peg on the rim lightly down and towards ``goal``, where it drops into the hole."""
    tool = _tool(state, goal)
    tool[2] = state.tcp_pose[2] - SLIDE_PUSH
    return Waypoint(tool, True, wait=SETTLE, speed=ENTRY_SPEED)
