"""What a task is: a scene, a reset, a success rule, a progress measure and a scripted expert, over N worlds at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.geometry import matrix_from_quat
from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks.objects import ObjectSpec

STILL_SPEED = 0.05
"""An object slower than this is still, m/s (the paper's threshold for PickPlace, used for every task)."""
STILL_TURN = 0.5
"""And turns slower than this, rad/s."""
SUCCESS_STEPS = 10
"""Control steps, 0.5 s, that a task's success condition must hold without a break."""
REACHED = 0.8
"""Value from which a milestone counts as reached, for the naming of failures only."""
TABLE_TOP_SIZE = (1.1, 0.9)
"""Metres along x and y, centred at x = 0.3 (the paper's table)."""


@dataclass(frozen=True)
class ObservedObject:
    """An object whose pose the policy sees."""

    name: str
    symmetry: str = "none"
    """"none", "axis_z" (any turn about its own z axis), "yaw_90" or "yaw_180" (multiples of that turn)."""


@dataclass(frozen=True)
class InitialState:
    """Where one episode starts."""

    poses: Mapping[str, Array]
    """Object name to pose (7,): metres, quaternion xyzw, for a table top at z = 0."""
    slides: Mapping[str, float] = field(default_factory=dict)
    """Drawer name to its opening in metres; others are closed."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Whatever the task wants to remember of the episode."""
    gripper_closed: bool = False


@dataclass(frozen=True)
class Waypoint:
    """One leg of a scripted expert: move the TCP in a straight line to a pose, then wait with the gripper as told."""

    pose: Array
    """(7,) position in metres and quaternion xyzw of the TCP in the base frame."""
    closed: bool
    """Gripper command during the leg."""
    wait: int = 0
    """Control steps to stay at the pose before the next leg."""
    speed: float = 0.007
    """Metres a control step; turning takes 0.025 rad a step at most."""


@dataclass(frozen=True)
class Snapshot:
    """True state of one world, as its scripted expert sees it."""

    poses: Mapping[str, Array]
    velocities: Mapping[str, Array]
    contacts: Mapping[str, bool]
    slides: Mapping[str, Array]
    parameters: Mapping[str, float]
    table_height: float
    tcp_pose: Array
    gripper_width: float
    gripper_closed: bool
    """State of the gripper latch."""
    target: Array
    """(8,) last executed target."""


@dataclass(frozen=True)
class Grasped:
    """The object that the hand takes, and what logs and the scripted operator need to know of it."""

    name: str
    spread: tuple[float, float, float]
    """Metres, standard deviations along the object's axes between the grasps of one person and the next."""
    lies_under_hand: bool = True
    """Does its start pose follow from where the hand closes on it? A log without poses of objects needs that."""
    half_size: tuple[float, float, float] | None = None
    """Metres along its axes, which a log of another scene needs to be brought into this one; ``None`` keeps such logs
    out."""


@dataclass(frozen=True)
class Goal:
    """What the grasped object is brought to."""

    name: str
    top: float
    """Height of its upper side in metres."""
    distance: float
    """Metres from the grasped object at the start, below which the two would touch."""


class Task(ABC):
    """A task's specification. Subclasses define the data below, then the methods in the order given here.

    From ``grasped`` on, the data have defaults: a task without them runs, and other modules do less with it.
    """

    name: str
    instruction: str
    success_rule: str
    """One sentence for people."""
    max_episode_steps: int
    specs: tuple[ObjectSpec, ...]
    """Objects in the scene."""
    objects: tuple[ObservedObject, ...]
    """Objects in the observation, named after bodies or as :meth:`object_poses` has them."""
    contacts: Mapping[str, tuple[str, str | None]]
    """Name to the pair of bodies whose contact is reported. Besides object and drawer names: "table", "hand" (with the
    fingers), "left_finger", "right_finger"; ``None`` as the second one means anything at all."""
    weights: Mapping[str, float]
    """Names of the milestones of :meth:`progress` in order, and their shares of the dense reward; below 1 in sum. The
    first one that never came to ``REACHED`` names the failure of an episode that ran out of time."""
    grasped: Grasped | None = None
    """What the hand takes. ``None``: nothing, so that a log of the task need not close the gripper."""
    goal: Goal | None = None
    """Where that is brought, if anywhere."""
    robosuite: str | None = None
    """The environments of robosuite whose logs show something like this task, as a pattern of their names ("Pick*")."""
    picture_step: int = 100
    """Control step of the scripted expert that the picture of the task shows: the moment that tells what it is about.
    """

    @abstractmethod
    def reset(self, rng: np.random.Generator) -> InitialState:
        """Draw the start of one episode."""

    @abstractmethod
    def start_at(self, poses: Mapping[str, Array]) -> InitialState:
        """The start with the observed objects at ``poses`` (7,) each, resting as :meth:`reset` leaves them.

        Heights, and tilts that are not the task's, are not taken over. Raises ``KeyError`` where one is missing.
        """

    @abstractmethod
    def success(self, state: TrueState) -> BoolArray:
        """(N,): is the task done at this moment? An episode succeeds once this held for ``SUCCESS_STEPS``."""

    @abstractmethod
    def progress(self, state: TrueState) -> dict[str, Array]:
        """(N,) in [0, 1] for each of ``weights``: how far that milestone is reached; none falls towards success."""

    @abstractmethod
    def expert(self, state: Snapshot) -> list[Waypoint]:
        """Legs from here to the end of the task, for a scripted expert that reads true state and keeps no memory."""

    def object_poses(self, state: TrueState) -> list[Array]:
        """(N, 7) for each of ``objects``, in order."""
        return [state.poses[o.name] for o in self.objects]


def pose(x: float, y: float, z: float, yaw: float = 0.0) -> Array:
    """Pose (7,) of something upright on the table, turned by ``yaw`` radians."""
    return np.array([x, y, z, 0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])


def heading(quat: Array) -> float:
    """Yaw, in radians, of a body's own x axis, or of its y axis where that lies more level."""
    x_axis, y_axis = matrix_from_quat(quat)[:, :2].T
    axis = x_axis if abs(x_axis[2]) <= abs(y_axis[2]) + 0.5 else y_axis
    return float(np.arctan2(axis[1], axis[0]))


def axis_z(quat: Array) -> Array:
    """(..., 3) the object's own z axis in the base frame."""
    return matrix_from_quat(quat)[..., 2]


# What tasks measure at every control step is compiled, with loops over the worlds: for one world, calls of NumPy would
# cost many times their arithmetic. The next four functions are for one world, inside such a loop.


@njit()
def axis_z_one(quat: Array) -> Array:
    """(3,) the object's own z axis in the base frame, for one orientation (4,)."""
    x, y, z, w = quat
    return np.array([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])


@njit()
def distance(a: Array, b: Array) -> float:
    """Metres between two points, (2,) or (3,)."""
    total = 0.0
    for i in range(len(a)):
        total += (a[i] - b[i]) * (a[i] - b[i])
    return math.sqrt(total)


@njit()
def fraction(value: float) -> float:
    """``value``, cut off at 0 and 1."""
    return min(max(value, 0.0), 1.0)


@njit()
def closeness(value: float, scale: float = 0.1) -> float:
    """1 where ``value``, such as a distance in metres, is 0, falling to 0 over some ``scale``."""
    return 1.0 - math.tanh(value / scale)


@njit("boolean[:](float64[:,:])")
def is_still(velocity: Array) -> BoolArray:
    """(N,): linear speed below ``STILL_SPEED``, and turning slower than ``STILL_TURN``, for velocities (N, 6)."""
    result = np.empty(len(velocity), np.bool_)
    for n in range(len(velocity)):
        x, y, z, a, b, c = velocity[n]
        result[n] = x * x + y * y + z * z < STILL_SPEED**2 and a * a + b * b + c * c < STILL_TURN**2
    return result
