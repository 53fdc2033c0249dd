"""PegInsert: take a round peg from its holder and insert it into a hole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from oc_residual_gym.geometry import (
    clip_norm,
    norm,
    pose_multiply,
    pose_relative,
    quat_from_rotvec,
    quat_multiply,
    rotation_between,
)
from oc_residual_gym.tasks.base import (
    InitialState,
    ObservedObject,
    Snapshot,
    Task,
    Waypoint,
    axis_z,
    closeness,
    is_still,
    pose,
)
from oc_residual_gym.tasks.moves import SETTLE, SLOW, STEADY, above, is_holding, pick, tool_pose
from oc_residual_gym.tasks.objects import BLUE, RED, STEEL, Color, Geom, ObjectSpec, cylinder_inertia, ring_quat
from oc_residual_gym.worlds.base import Array, BoolArray, TrueState

PEG_RADIUS, PEG_LENGTH = 0.008, 0.080
"""Metres: a 16 mm peg."""
PEG_MASS = 0.045
"""Kilograms: aluminium."""
HOLE_RADIUS, HOLE_DEPTH, CHAMFER = 0.0085, 0.030, 0.0015
"""Metres: a 17 mm hole, that is 0.5 mm of clearance all round, with a 45 degree chamfer."""
HOLE_SIDES = 12
"""The round hole is made of this many convex pieces, their flat insides touching the circle."""
VISIBLE_SIDES = 60
BLOCK_HALF_WIDTH, BLOCK_FLOOR = 0.030, 0.010
"""Metres: a square block, and its material below the hole."""
HOLDER_RADIUS, HOLDER_DEPTH, HOLDER_FLOOR = 0.0100, 0.030, 0.005
"""Metres: a square pocket with 2 mm of play all round."""
INSERTED_DEPTH = 0.025
MAX_TILT = np.radians(5.0)
FRICTION = 0.3
"""Aluminium on a polymer block."""
X_RANGE, Y_RANGE = (0.40, 0.56), (-0.20, 0.20)
"""Metres, for the holder and for the block."""
MIN_DISTANCE = 0.14
"""Metres between holder and block: room for the hand's fingers."""

BLOCK_HEIGHT = BLOCK_FLOOR + HOLE_DEPTH

GRASP_HEIGHT = 0.015
"""Metres along the peg from its centre to where the expert grasps it: fingers clear of the holder, palm of the peg."""
HOVER_HEIGHT = 0.015
"""Metres above the hole's mouth at which the expert carries and aligns the peg's lower end."""
PUSH_DEPTH = 0.028
ALIGNED = 0.0012
"""Metres beside the hole's axis from which the chamfer guides the peg in."""
INSERT_SPEED = 0.0025
"""Metres a control step."""
MAX_BIAS = (0.008, 0.1)
"""Metres and radians of standing error (load, friction, contact) that the expert makes up for at most."""

# The fingers' flat pads would touch a cylinder in one point only, so that they grip a capsule inside it instead.
PEG_GRIP_BITS = {"contype": "0", "conaffinity": "1"}
PEG_BODY_BITS = {"contype": "2", "conaffinity": "2"}


def _peg() -> ObjectSpec:
    cylinder = Geom("cylinder", (PEG_RADIUS, PEG_LENGTH / 2), rgba=RED, bits=PEG_BODY_BITS)
    grip = Geom("capsule", (PEG_RADIUS, PEG_LENGTH / 2 - PEG_RADIUS), role="collision", bits=PEG_GRIP_BITS)
    return ObjectSpec("peg", (cylinder, grip), PEG_MASS, cylinder_inertia(PEG_MASS, PEG_RADIUS, PEG_LENGTH), friction=FRICTION)


def _ring(sides: int, inner: float, outer: float, bottom: float, top: float, rgba: tuple[float, float, float, float]) -> list[Geom]:
    """Boxes around a vertical hole, each in the half space outside one side of a regular polygon."""
    half_width = outer * np.tan(np.pi / sides)
    radius = (inner + outer) / 2
    return [
        Geom(
            "box",
            ((outer - inner) / 2, half_width, (top - bottom) / 2),
            (radius * np.cos(angle), radius * np.sin(angle), (top + bottom) / 2),
            ring_quat(angle),
            rgba=rgba,
        )
        for angle in 2 * np.pi * np.arange(sides) / sides
    ]


def _corners(sides: int) -> Array:
    """(sides, 2) directions of the corners of a regular polygon whose first side faces +x, scaled so that a radius
    times them is a polygon around the circle of that radius. With 12 or 60 sides, four of them are at 45 degrees.
    """
    angles = np.pi / sides * (2 * np.arange(sides) - 1)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) / np.cos(np.pi / sides)


def _loop(corners: Array, radius: float, z: float) -> Array:
    """(sides, 3) a polygon around a circle."""
    return np.column_stack([radius * corners, np.full(len(corners), z)])


def _square(corners: Array, z: float) -> Array:
    """(sides, 3) the same number of points on the outline of the block."""
    return _loop(BLOCK_HALF_WIDTH * corners / np.abs(corners).max(axis=1, keepdims=True), 1.0, z)


def _walls(loops: Sequence[Array], rgba: Color) -> Geom:
    """What is seen of the surfaces between loops of points, each to the next; sharp edges along the loops."""
    sides, vertices, faces = len(loops[0]), [], []
    for lower, upper in pairwise(loops):
        first = len(vertices)
        vertices += [*map(tuple, lower), *map(tuple, upper)]
        for i in range(sides):
            a, b = first + i, first + (i + 1) % sides
            faces += [(a, a + sides, b), (b, a + sides, b + sides)]
    return Geom("mesh", rgba=rgba, role="visual", vertices=tuple(vertices), faces=tuple(faces))


def _hole() -> ObjectSpec:
    """The block's frame: origin at the centre of the hole's mouth, +z up."""
    inside = ((HOLE_RADIUS, -HOLE_DEPTH), (HOLE_RADIUS, -CHAMFER), (HOLE_RADIUS + CHAMFER, 0.0))
    corners = _corners(HOLE_SIDES)
    loops = [_loop(corners, *point) for point in inside] + [_square(corners, z) for z in (0.0, -HOLE_DEPTH)]
    pieces = [
        Geom("mesh", role="collision", vertices=tuple(tuple(loop[j]) for loop in loops for j in (i, i - 1)))
        for i in range(HOLE_SIDES)
    ]
    half = (BLOCK_HALF_WIDTH, BLOCK_HALF_WIDTH, BLOCK_FLOOR / 2)
    floor = Geom("box", half, (0, 0, -HOLE_DEPTH - BLOCK_FLOOR / 2), rgba=BLUE)
    corners = _corners(VISIBLE_SIDES)
    bottom, rim, mouth = (_loop(corners, *point) for point in inside)
    outside = [_square(corners, z) for z in (0.0, -HOLE_DEPTH)]
    seen = (_walls([bottom, rim], BLUE), _walls([rim, mouth], STEEL), _walls([mouth, *outside], BLUE))
    return ObjectSpec("hole", (*pieces, floor, *seen), friction=FRICTION, fixed=True)


def _holder() -> ObjectSpec:
    """The holder's frame: origin on the table, +z up."""
    walls = _ring(4, HOLDER_RADIUS, HOLDER_RADIUS + 0.006, 0.0, HOLDER_FLOOR + HOLDER_DEPTH, STEEL)
    floor = Geom("box", (HOLDER_RADIUS, HOLDER_RADIUS, HOLDER_FLOOR / 2), (0, 0, HOLDER_FLOOR / 2), rgba=STEEL)
    return ObjectSpec("holder", (*walls, floor), friction=FRICTION, fixed=True)


class PegInsert(Task):
    name = "PegInsert"
    instruction = "insert the peg into the hole"
    success_rule = "the peg is at least 25 mm deep in the hole, tilted by less than 5 degrees, still, for 0.5 s"
    max_episode_steps = 500
    specs = (_peg(), _hole(), _holder())
    objects = (ObservedObject("peg", "axis_z"), ObservedObject("hole", "axis_z"))
    contacts = {"left": ("peg", "left_finger"), "right": ("peg", "right_finger")}
    weights = {"reach": 0.15, "grasp": 0.1, "raise": 0.1, "align": 0.25, "lower": 0.1, "insert": 0.25}

    def reset(self, rng: np.random.Generator) -> InitialState:
        while True:
            x, y, hole_x, hole_y = rng.uniform(*np.transpose([X_RANGE, Y_RANGE, X_RANGE, Y_RANGE]))
            if np.hypot(x - hole_x, y - hole_y) >= MIN_DISTANCE:
                break
        return InitialState(
            {
                "peg": pose(x, y, HOLDER_FLOOR + PEG_LENGTH / 2),
                "holder": pose(x, y, 0.0),
                "hole": pose(hole_x, hole_y, BLOCK_HEIGHT),
            }
        )

    def success(self, state: TrueState) -> BoolArray:
        return self._inserted(state) & is_still(state.velocities["peg"])

    def progress(self, state: TrueState) -> dict[str, Array]:
        depth, offset = self._depth(state), self._offset(state)
        inside = offset < HOLE_RADIUS - PEG_RADIUS + 0.001
        inserted = np.clip(depth / INSERTED_DEPTH, 0.0, 1.0) * inside
        held = self._grasped(state) | (inserted > 0.5)
        raised = np.clip((self._bottom(state)[:, 2] - state.table_height - HOLDER_FLOOR) / HOLDER_DEPTH, 0.0, 1.0)
        upright = closeness(self._tilt(state), 0.3)
        return {
            "reach": np.maximum(closeness(self._reach_distance(state)), held),
            "grasp": held,
            "raise": np.maximum(raised, inside & (depth > 0.0)) * held,
            "align": (0.6 * closeness(offset) + 0.4 * closeness(offset, 0.01)) * upright * held,
            "lower": closeness(np.abs(np.minimum(depth, 0.0)), 0.05) * closeness(offset, 0.02) * held,
            "insert": inserted,
        }

    def expert(self, state: Snapshot) -> list[Waypoint]:
        peg, hole = state.poses["peg"], state.poses["hole"]
        if not is_holding(state):
            grasp = tool_pose(peg[:3] + GRASP_HEIGHT * axis_z(peg[3:]), 0.0)
            return pick(state, grasp, 2 * PEG_RADIUS)
        bottom = peg[:3] - PEG_LENGTH / 2 * axis_z(peg[3:])
        height = bottom[2] - hole[2]
        over = Waypoint(_tool(state, above(hole, HOVER_HEIGHT)[:3]), True, wait=SETTLE, speed=STEADY)
        deep = Waypoint(_tool(state, above(hole, -PUSH_DEPTH)[:3]), True, wait=SETTLE, speed=INSERT_SPEED)
        if np.hypot(*(bottom - hole[:3])[:2]) < ALIGNED and (height < 0.0 or _is_slow(state)):
            aligned = _tool(state, np.array([*hole[:2], bottom[2]]))
            return [deep] if height < 0.0 else [Waypoint(aligned, True, wait=2, speed=SLOW), deep]
        if height > 0.5 * HOVER_HEIGHT:
            return [over]
        up = above(state.target[:7], HOVER_HEIGHT - height)
        return [Waypoint(state.target[:7], True, wait=2), Waypoint(up, True, speed=STEADY), over]

    def _bottom(self, state: TrueState) -> Array:
        """(N, 3) centre of the peg's lower end."""
        peg = state.poses["peg"]
        return peg[:, :3] - PEG_LENGTH / 2 * axis_z(peg[:, 3:])

    def _depth(self, state: TrueState) -> Array:
        """Metres from the hole's mouth down to the peg's lower end."""
        return state.poses["hole"][:, 2] - self._bottom(state)[:, 2]

    def _offset(self, state: TrueState) -> Array:
        """Metres between the peg's lower end and the hole's axis."""
        return norm(self._bottom(state)[:, :2] - state.poses["hole"][:, :2])

    def _tilt(self, state: TrueState) -> Array:
        return np.arccos(np.clip(np.abs(axis_z(state.poses["peg"][:, 3:])[:, 2]), 0.0, 1.0))

    def _reach_distance(self, state: TrueState) -> Array:
        """Metres from the TCP to the middle of the part of the peg that stands out of the holder."""
        peg = state.poses["peg"]
        return norm(state.tcp_pose[:, :3] - peg[:, :3] - 0.02 * axis_z(peg[:, 3:]))

    def _grasped(self, state: TrueState) -> BoolArray:
        return state.contacts["left"] & state.contacts["right"]

    def _inserted(self, state: TrueState) -> BoolArray:
        inside = self._offset(state) < HOLE_RADIUS - PEG_RADIUS + 0.001
        return inside & (self._depth(state) >= INSERTED_DEPTH) & (self._tilt(state) < MAX_TILT)


def _is_slow(state: Snapshot) -> bool:
    """Has the held peg come to rest, so that the arm's distance from its target is a standing error?"""
    return bool(norm(state.velocities["peg"][:3]) < 0.01)


def _tool(state: Snapshot, goal: Array) -> Array:
    """Target (7,) that brings the lower end of the held peg to ``goal`` (3,) and the peg upright."""
    peg, tcp, target = state.poses["peg"], state.tcp_pose, state.target
    axis = axis_z(peg[3:])
    up = quat_from_rotvec(np.cross(axis, [0.0, 0.0, 1.0]))
    upright = np.concatenate([goal + [0.0, 0.0, PEG_LENGTH / 2], quat_multiply(up, peg[3:])])
    tool = pose_multiply(upright, pose_relative(peg, tcp))
    if _is_slow(state):
        tool[:3] += clip_norm(target[:3] - tcp[:3], MAX_BIAS[0])
        turn = clip_norm(rotation_between(tcp[3:], target[3:7]), MAX_BIAS[1])
        tool[3:] = quat_multiply(tool[3:], quat_from_rotvec(turn))
    return tool
