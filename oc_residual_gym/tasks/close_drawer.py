"""CloseDrawer: push the open drawer of a desk cabinet shut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import (
    pose_multiply,
    pose_relative,
    quat_from_rotvec,
    quat_multiply,
    rotate_inverse_one,
    rotation_between,
)
from oc_residual_gym.states import Array, BoolArray, IntArray, TrueState
from oc_residual_gym.tasks.base import (
    STILL_SPEED,
    InitialState,
    ObservedObject,
    Snapshot,
    Task,
    Waypoint,
    closeness,
    fraction,
    heading,
    pose,
)
from oc_residual_gym.tasks.moves import FAST, PRESS, SETTLE, STEADY, above, tool_down
from oc_residual_gym.tasks.objects import DARK_WOOD, WOOD, Drawer, Geom, ObjectSpec

DEPTH, WIDTH, HEIGHT = 0.27, 0.35, 0.282
"""Metres: outer dimensions of the paper's five-drawer desk cabinet."""
WALL, GAP, SLOT, PITCH = 0.006, 0.001, 0.0492, 0.0552
"""Metres: wall thickness, gap around a drawer, height of a slot, and distance between slots (from the paper)."""
TRAVEL = 0.13
"""Metres from closed to fully open (from the paper)."""
DRAWER_MASS = 0.4
"""Kilograms: a 6 mm board box of this size."""
DAMPING, FRICTIONLOSS = 2.0, 0.5
"""Damping in N s/m and dry friction in N of a slide (from the paper)."""
DRAWERS = ("drawer0", "drawer1", "drawer2", "drawer3", "drawer4")
ACTIVE = (2, 3, 4)
"""Drawers that may be open, as in the paper; their face centres are 0.141, 0.196 and 0.251 m above the table."""
CLOSED_OPENING = 0.013
"""Opening in metres below which a drawer is closed: 10 % of the travel (from the paper)."""
FACE_X, FACE_Y, FACE_YAW = (0.62, 0.70), (-0.05, 0.05), (-0.1745, 0.1745)
"""Pose of the closed faces, in metres and radians. Any nearer, the open drawer would come too close to the hand."""
OPENING = (0.09, TRAVEL)
"""Range of the start opening in metres."""

FACE_THICKNESS = 0.006
"""Thickness of a drawer's face in metres."""

TILT = np.radians(30.0)
"""Tilt in radians of the expert's tool, so that the fingertips lead; untilted, the palm hits the faces above."""
LEAD = 0.012
"""Metres by which the closed fingers extend beyond the TCP at that tilt."""
TOOL_HEIGHT = 0.01
"""Height in metres of the expert's TCP above the centre of the face, so that the fingertips touch the centre."""
STANDOFF = 0.03
"""Distance in metres in front of the face at which the expert starts to push."""
EASE = 0.03
"""Distance in metres before the closed position at which the expert begins to push gently."""
GENTLE = 0.002
"""Metres per control step into contact and at the end: 0.04 m/s, at which a drawer counts as still."""
IN_LINE = 0.015
"""Largest distance in metres from the line of pushing at which the expert keeps pushing."""


def _cabinet() -> ObjectSpec:
    """Build the cabinet. Its frame: origin on the table, in the middle of the closed faces' plane; +x outwards."""
    x, y, z, half_wall = DEPTH / 2, WIDTH / 2, HEIGHT / 2, WALL / 2
    boards = [((half_wall, y, z), (half_wall - DEPTH, 0.0, z))]
    boards += [((x, half_wall, z), (-x, side * (y - half_wall), z)) for side in (-1, 1)]
    boards += [((x, y, half_wall), (-x, 0.0, half_wall + i * PITCH)) for i in range(len(DRAWERS) + 1)]
    walls = tuple(Geom("box", size, pos, rgba=DARK_WOOD) for size, pos in boards)
    drawers = tuple(
        Drawer(
            name,
            _drawer_geoms(),
            pos=(0.0, 0.0, WALL + i * PITCH + SLOT / 2),
            travel=TRAVEL,
            mass=DRAWER_MASS,
            damping=DAMPING,
            frictionloss=FRICTIONLOSS,
        )
        for i, name in enumerate(DRAWERS)
    )
    return ObjectSpec("cabinet", walls, fixed=True, drawers=drawers)


def _drawer_geoms() -> tuple[Geom, ...]:
    """Shapes of a drawer. Its frame: origin at the centre of the face's outer side; +x outwards."""
    height, width, length = SLOT / 2 - GAP, WIDTH / 2 - WALL - GAP, 0.11
    side_height = 0.7 * height
    return (
        Geom("box", (FACE_THICKNESS / 2, width, height), (-FACE_THICKNESS / 2, 0, 0), rgba=WOOD),
        Geom("box", (length, width, 0.002), (-length, 0, -height + 0.002), rgba=WOOD),
        Geom("box", (length, 0.002, side_height), (-length, width - 0.002, side_height - height), rgba=WOOD),
        Geom("box", (length, 0.002, side_height), (-length, 0.002 - width, side_height - height), rgba=WOOD),
        # A finger hole, because a knob would be in the way of the pushing fingers.
        Geom("cylinder", (0.012, 0.0005), quat=(0.5**0.5, 0, 0.5**0.5, 0), rgba=DARK_WOOD, role="visual"),
    )


def _tool_before(distance: float) -> Array:
    """Pose of the expert's tool in a face's frame, with the fingertips ``distance`` metres in front of the face."""
    quat = quat_multiply(tool_down(np.pi), quat_from_rotvec(np.array([0.0, TILT, 0.0])))
    return np.concatenate([[LEAD + distance, 0.0, TOOL_HEIGHT], quat])


class CloseDrawer(Task):
    """CloseDrawer: push the open drawer of a desk cabinet shut.

    ## Description
    Push the open drawer of a desk cabinet shut. The cabinet, 27 x 35 x 28.2 cm, is fixed to the table. Each of its five
    drawers weighs 0.4 kg and slides by 13 cm, with 0.5 N of friction and 2 N s/m of damping. The observed objects are
    the cabinet (the point on the table in the middle of the closed faces' plane) and the open drawer (the centre of its
    face).

    ## Starting State
    The gripper is closed. The middle of the cabinet's closed faces is at x = 0.62 to 0.70 m, y = -0.05 to 0.05 m. The
    faces point towards the robot, within 10 degrees. One of the three upper drawers is open by 9 to 13 cm. All values
    are uniform, in the base frame.

    ## Success
    The drawer is open by less than 13 mm and slower than 5 cm/s. This must hold for 0.5 s.

    ## Milestones
    | milestone | weight | value |
    |---|---|---|
    | reach | 0.3 | 1 - tanh(d / 0.1 m), d = distance from the TCP to a rectangle half as wide and high as the face |
    | close | 0.6 | closed fraction of the travel |

    ## Time Limit
    500 steps, 25 s.

    ## Version History
    v0: first version.
    """

    name = "CloseDrawer"
    instruction = "close the drawer"
    success_rule = "the drawer is open by less than 13 mm and still, for 0.5 s"
    max_episode_steps = 500
    specs = (_cabinet(),)
    objects = (ObservedObject("cabinet"), ObservedObject("drawer"))
    contacts = {f"touch{i}": (DRAWERS[i], "hand") for i in ACTIVE}
    weights = {"reach": 0.3, "close": 0.6}
    failures = {"reach": "drawer not reached", "close": "drawer not closed"}
    picture_step = 46

    def reset(self, rng: np.random.Generator) -> InitialState:
        x, y, yaw, opening = rng.uniform(*np.transpose([FACE_X, FACE_Y, FACE_YAW, OPENING]))
        active = int(rng.choice(ACTIVE))
        return self._start(pose(x, y, 0.0, np.pi + yaw), active, opening)

    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        cabinet = poses["cabinet"]
        active, opening = _drawer_at(cabinet, poses["drawer"])
        return self._start(pose(cabinet[0], cabinet[1], 0.0, heading(cabinet[3:])), active, opening)

    def _start(self, cabinet: Array, active: int, opening: float) -> InitialState:
        return InitialState(
            {"cabinet": cabinet},
            slides={DRAWERS[active]: opening},
            parameters={"active": active},
            gripper_closed=True,
        )

    def success(self, state: TrueState) -> BoolArray:
        slide = _of_active(state, state.slides)
        return (slide[:, 0] < CLOSED_OPENING) & (np.abs(slide[:, 1]) < STILL_SPEED)

    def progress(self, state: TrueState) -> dict[str, Array]:
        face, slide = _of_active(state, state.poses), _of_active(state, state.slides)
        return dict(zip(self.weights, _milestones(state.tcp_pose, face, slide), strict=True))

    def expert(self, state: Snapshot) -> list[Waypoint]:
        name = DRAWERS[int(state.parameters["active"])]
        face, opening, here = state.poses[name], float(state.slides[name][0]), state.target[:7]
        start = pose_multiply(face, _tool_before(STANDOFF))
        if pose_relative(face, state.tcp_pose)[0] < LEAD - IN_LINE:
            # The TCP is behind the open face, above the drawer: move up and out.
            return [Waypoint(above(here, 0.1), closed=True), Waypoint(above(start, 0.1), closed=True)]
        ahead, aside, up = pose_relative(face, here)[:3] - _tool_before(0.0)[:3]
        turn = np.linalg.norm(rotation_between(here[3:], start[3:]))
        legs = []
        if np.hypot(aside, up) > IN_LINE or turn > 0.1:
            legs, ahead = [Waypoint(start, closed=True, wait=SETTLE, speed=FAST)], STANDOFF
        # Push gently into contact, then steadily, then gently again at the end.
        for distance, speed in ((0.0, GENTLE), (min(EASE - opening, 0.0), STEADY)):
            if distance < ahead:
                legs.append(Waypoint(pose_multiply(face, _tool_before(distance)), closed=True, speed=speed))
        end = pose_multiply(face, _tool_before(-opening - PRESS))
        return [*legs, Waypoint(end, closed=True, speed=GENTLE)]

    def plan(self, seen: Snapshot) -> list[Waypoint]:
        drawer = seen.poses["drawer"]
        active, opening = _drawer_at(seen.poses["cabinet"], drawer)
        inferred = replace(
            seen,
            poses={**seen.poses, DRAWERS[active]: drawer},
            slides={DRAWERS[active]: np.array([opening, 0.0])},
            parameters={"active": active},
        )
        return self.expert(inferred)

    def object_poses(self, state: TrueState) -> list[Array]:
        """Poses (N, 7) of the cabinet, and of the face of the drawer that was open at the start."""
        return [state.poses["cabinet"], _of_active(state, state.poses)]


def _drawer_at(cabinet: Array, face: Array) -> tuple[int, float]:
    """Number and opening in metres of the drawer whose face is at ``face`` (7,), for a cabinet at ``cabinet`` (7,)."""
    x, _, z = pose_relative(cabinet, face)[:3]
    active = round(float(np.clip((z - WALL - SLOT / 2) / PITCH, ACTIVE[0], ACTIVE[-1])))
    return active, float(np.clip(x, 0.0, TRAVEL))


def _of_active(state: TrueState, values: Mapping[str, Array]) -> Array:
    """Select from ``values`` (by drawer) those of each world's drawer that was open at the start: (N, ...)."""
    choices = tuple([values[DRAWERS[i]] for i in ACTIVE])
    return _choose(state.parameters["active"].astype(np.int64) - ACTIVE[0], choices)


@njit(f"float64[:,:](int64[:],UniTuple(float64[:,:],{len(ACTIVE)}))")
def _choose(which: IntArray, choices: tuple[Array, ...]) -> Array:
    """(N, M) whose row n is row n of ``choices[which[n]]``."""
    result = np.empty(choices[0].shape)
    for n in range(len(which)):
        result[n] = choices[which[n]][n]
    return result


@njit("float64[:,:](float64[:,:],float64[:,:],float64[:,:])")
def _milestones(tcp: Array, face: Array, slide: Array) -> Array:
    """Milestone values (2, N), in the order of ``weights``."""
    values = np.empty((2, len(face)))
    reach, close = values
    for n in range(len(face)):
        x, y, z = tcp[n, :3] - face[n, :3]
        x, y, z = rotate_inverse_one(face[n, 3:], x, y, z)
        # Distance to a rectangle that is half as wide and high as the face.
        y, z = max(abs(y) - WIDTH / 4, 0.0), max(abs(z) - SLOT / 4, 0.0)
        reach[n] = closeness(math.sqrt(x * x + y * y + z * z))
        close[n] = fraction(1.0 - slide[n, 0] / TRAVEL)
    return values
