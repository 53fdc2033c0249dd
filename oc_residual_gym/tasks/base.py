"""The base class of tasks: a scene, resets, a success rule, milestones and a scripted expert, for N worlds at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import matrix_from_quat
from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks.objects import ObjectSpec
from oc_residual_gym.tasks.symmetry import Symmetry

STILL_SPEED = 0.05
"""Linear speed in m/s below which an object is still (the paper's threshold for PickPlace, used for every task)."""
STILL_TURN = 0.5
"""Angular speed in rad/s below which an object is still."""
LEVEL_TILT = math.radians(10.0)
"""Tilt in radians below which a box lies on one of its faces. On an edge, it may balance for a while."""
SUCCESS_STEPS = 10
"""Control steps (0.5 s) for which a task's success condition must hold without a break."""
REACHED = 0.8
"""Value at which a milestone counts as reached. Used only to name failures."""
TABLE_TOP_SIZE = (1.1, 0.9)
"""Metres along x and y, centred at (0.3, 0) in the base frame (the paper's table)."""


@dataclass(frozen=True)
class ObservedObject:
    """An object whose pose the policy sees."""

    name: str
    symmetry: str | Symmetry = "none"
    """Rotations after which it looks the same: a name in ``oc_residual_gym.tasks.symmetry.SYMMETRIES`` or a group of
    rotations. A pose tracker may report any of the poses that look alike."""


@dataclass(frozen=True)
class InitialState:
    """The start state of one episode."""

    poses: Mapping[str, Array]
    """Object name to pose (7,): metres and quaternion xyzw, base frame, with the table top at z = 0."""
    slides: Mapping[str, float] = field(default_factory=dict)
    """Drawer name to opening in metres; all other drawers are closed."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Values that the task stores for the episode; ``TrueState.parameters`` returns them."""
    gripper_closed: bool = False
    """Whether the gripper starts closed."""


@dataclass(frozen=True)
class Waypoint:
    """One leg of a scripted expert: move the TCP in a straight line to a pose, then wait there."""

    pose: Array
    """(7,) TCP pose: position in metres and quaternion xyzw, base frame."""
    closed: bool
    """Gripper command during the leg: closed or open."""
    wait: int = 0
    """Control steps to stay at the pose before the next leg."""
    speed: float = 0.007
    """Metres per control step; rotation is at most 0.025 rad per step."""


@dataclass(frozen=True)
class Snapshot:
    """True state of one world, as its scripted expert sees it."""

    poses: Mapping[str, Array]
    """Body name to pose (7,): metres and quaternion xyzw, base frame."""
    velocities: Mapping[str, Array]
    """Body name to linear and angular velocity (6,): m/s and rad/s, base frame."""
    contacts: Mapping[str, bool]
    """Name in ``Task.contacts`` to whether the two bodies touch."""
    slides: Mapping[str, Array]
    """Drawer name to opening and speed (2,): m and m/s."""
    parameters: Mapping[str, float]
    """Values of ``InitialState.parameters``."""
    table_height: float
    """Height of the table top in metres."""
    tcp_pose: Array
    """(7,) measured TCP pose."""
    gripper_width: float
    """Distance between the fingers in metres."""
    gripper_closed: bool
    """Whether the gripper latch is closed."""
    target: Array
    """(8,) last executed target: position, quaternion xyzw, gripper opening."""


@dataclass(frozen=True)
class Grasped:
    """The object that the hand grasps, with the facts that log replay and the scripted operator need."""

    name: str
    spread: tuple[float, float, float]
    """How much grasps vary between people: standard deviations along the object's axes, metres."""
    lies_under_hand: bool = True
    """Whether its start pose can be inferred from where the hand closes on it. Logs without object poses need this."""
    half_size: tuple[float, float, float] | None = None
    """Metres along its axes. Logs of another scene need it to be mapped to this one; ``None`` rejects such logs."""


@dataclass(frozen=True)
class Goal:
    """The object to which the grasped object is brought."""

    name: str
    top: float
    """Height of its top in metres."""
    distance: float
    """Smallest distance in metres between the two objects at the start; any closer, they would touch."""


class Task(ABC):
    """Base class of all tasks. Subclasses define the data below, then the methods, in the order given here.

    The data from ``failures`` on are optional. A task without them runs, but logs and pictures support it less.
    """

    name: str
    """Name in the Gymnasium id ``OCResidual-<name>-v0``."""
    instruction: str
    """Language instruction for the base policy."""
    success_rule: str
    """The success condition in one sentence."""
    max_episode_steps: int
    """Time limit in control steps."""
    specs: tuple[ObjectSpec, ...]
    """Objects in the scene."""
    objects: tuple[ObservedObject, ...]
    """Objects in the observation, in the order of :meth:`object_poses`. By default, their names are those of bodies."""
    contacts: Mapping[str, tuple[str, str | None]]
    """Contact name to the pair of bodies that it reports. A body is an object, a drawer, "table", "hand" (fingers
    included), "left_finger" or "right_finger". ``None`` as the second body means any body."""
    weights: Mapping[str, float]
    """Milestones of :meth:`progress`, in order, and their weights in the dense reward; the weights sum to less than 1.
    If an episode times out, the first milestone that never reached ``REACHED`` names its failure."""
    failures: Mapping[str, str] = MappingProxyType({})
    """Milestone to plain words for an episode that never reached it, such as "peg not inserted"."""
    grasped: Grasped | None = None
    """The object that the hand grasps. ``None``: none, so a log of the task need not close the gripper."""
    goal: Goal | None = None
    """The object to which the grasped object is brought, if any."""
    robosuite: str | None = None
    """Name pattern of the robosuite environments whose logs show a similar task, such as "Pick*"."""
    picture_step: int = 100
    """Control step of the scripted expert that the task's picture shows: the moment that explains the task best."""
    close_up: str | None = None
    """The observed object that films also show close up: where success is decided by millimetres."""

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> InitialState:
        """Draw the start state of one episode."""

    @abstractmethod
    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        """Return the start state with the observed objects at ``poses``, (7,) each, at rest as after :meth:`reset`.

        Heights are replaced by the task's own, and so are tilts. Raises ``KeyError`` if an object is missing.
        """

    @abstractmethod
    def success(self, state: TrueState) -> BoolArray:
        """(N,) whether the success condition holds now. An episode succeeds when it has held for ``SUCCESS_STEPS``."""

    @abstractmethod
    def progress(self, state: TrueState) -> dict[str, Array]:
        """Milestone name to its value (N,) in [0, 1], in the order of ``weights``.

        On the way to success no milestone falls.
        """

    @abstractmethod
    def expert(self, state: Snapshot) -> list[Waypoint]:
        """Plan the remaining legs of the task from the true state. The expert has no memory."""

    def plan(self, seen: Snapshot) -> list[Waypoint]:
        """Plan as the expert does, from what a policy can see. The residual policy "planner" follows it.

        A task overrides this where its expert needs to know more, and it can be told from ``seen``, or searched for.

        Args:
            seen: poses of the observed objects only, which may be off by some millimetres; in its contacts, "left",
                "right" and "hand" stand for the grasped object in the fingers, and all others are ``False``.
        """
        return self.expert(seen)

    def object_poses(self, state: TrueState) -> list[Array]:
        """True poses (N, 7) of each of ``objects``, in order."""
        return [state.poses[o.name] for o in self.objects]


def pose(x: float, y: float, z: float, yaw: float = 0.0) -> Array:
    """Pose (7,) of an upright object with position in metres and yaw in radians."""
    return np.array([x, y, z, 0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])


def heading(quat: Array) -> float:
    """Yaw in radians of a body's own x axis, or of its y axis if that is clearly more level."""
    x_axis, y_axis = matrix_from_quat(quat)[:, :2].T
    axis = x_axis if abs(x_axis[2]) <= abs(y_axis[2]) + 0.5 else y_axis
    return float(np.arctan2(axis[1], axis[0]))


def axis_z(quat: Array) -> Array:
    """The object's own z axis (..., 3), base frame, for orientations (..., 4)."""
    return matrix_from_quat(quat)[..., 2]


# The measurements of every control step are compiled loops over the worlds: for one world, NumPy calls would cost far
# more than their arithmetic. The next four functions handle one world inside such a loop.


@njit()
def axis_z_one(quat: Array) -> Array:
    """The object's own z axis (3,), base frame, for one orientation (4,)."""
    x, y, z, w = quat
    return np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])


@njit()
def distance(a: Array, b: Array) -> float:
    """Distance between two points, (2,) or (3,)."""
    total = 0.0
    for i in range(len(a)):
        total += (a[i] - b[i]) * (a[i] - b[i])
    return math.sqrt(total)


@njit()
def fraction(value: float) -> float:
    """Clip ``value`` to [0, 1]."""
    return min(max(value, 0.0), 1.0)


@njit()
def closeness(value: float, scale: float = 0.1) -> float:
    """1 - tanh(value / scale): 1 for a distance of 0, falling towards 0 over a few ``scale``."""
    return 1.0 - math.tanh(value / scale)


@njit("boolean[:](float64[:,:])")
def is_still(velocity: Array) -> BoolArray:
    """(N,) whether velocities (N, 6), in m/s and rad/s, are below ``STILL_SPEED`` and ``STILL_TURN``."""
    result = np.empty(len(velocity), np.bool_)
    for n in range(len(velocity)):
        x, y, z, a, b, c = velocity[n]
        result[n] = x * x + y * y + z * z < STILL_SPEED**2 and a * a + b * b + c * c < STILL_TURN**2
    return result


@njit("boolean[:](float64[:,:])")
def is_level(pose: Array) -> BoolArray:
    """(N,) whether boxes at ``pose`` (N, 7) lie on one of their faces, whichever, within ``LEVEL_TILT``."""
    result = np.empty(len(pose), np.bool_)
    for n in range(len(pose)):
        x, y, z, w = pose[n, 3:]
        # Vertical components of the box's axes.
        steepest = max(abs(2 * (x * z - w * y)), abs(2 * (y * z + w * x)), abs(1 - 2 * (x * x + y * y)))
        result[n] = steepest > math.cos(LEVEL_TILT)
    return result
