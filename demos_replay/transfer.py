"""Transfer of a log into the scene of a task: its start state, the shift of its targets, and all assumptions made.

A log of one of this package's scenes keeps its positions; only the table's height is subtracted. A log of another scene
is transferred relative to the objects: the task's object is placed where the hand grasps, its goal where the hand lets
go, and the hand's height is adapted to the sizes of the task's objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.log import Log, LogError, LogObject
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import Grasped, InitialState, Task, heading

AREA = np.array([[0.30, -0.40], [0.70, 0.40]])
"""Lower and upper corner (x, y) in metres of the area into which other scenes are moved, well inside the workspace."""
TABLE = np.array([[0.15, -0.45], [0.85, 0.45]])
"""Lower and upper corner (x, y) in metres of the table in front of the robot, where objects may start."""
FINGER_MARGIN = 0.012
"""Minimum metres from the TCP to the object's ends in a grasp: fingertips reach 9 mm below the TCP."""
HELD_WIDTH = 0.003
"""Minimum metres between closed fingers that hold something."""
HELD_DISTANCE = 0.10
"""Maximum metres from the TCP to the centre of a held object."""
RAISED = 0.01
"""Minimum metres that a held object rises; a pushed object stays down."""
GOAL_DISTANCE = 0.06
"""Maximum horizontal metres between the manipulated object and the one that it comes to rest on."""
MAX_DROP = 0.02
"""Maximum drop at release, in metres, that is carried over from the log."""


@dataclass(frozen=True)
class Placement:
    """A log placed in the scene of a task."""

    start: InitialState
    shift: Array
    """(T, 3) metres to add to the log's positions."""
    objects: Mapping[str, Array]
    """The task's object name to poses (T, 7) in the task's scene, for objects that the log tracks."""
    assumptions: tuple[str, ...]


def place(log: Log, task: Task, poses: Mapping[str, Array] | None = None) -> Placement:
    """Bring ``log`` into the scene of ``task``.

    Args:
        log: recorded demonstration.
        task: the task whose scene is used.
        poses: start poses (7,) of the task's observed objects from a sidecar file, base frame; they replace the log's.

    Raises:
        LogError: the poses of the task's objects are not given and cannot be inferred.
    """
    names = [item.name for item in task.objects]
    if task.grasped is not None and not log.gripper_closed.any():
        raise LogError("the gripper never closes, and the task is to grasp something")
    if poses is not None:
        missing = [name for name in names if name not in poses]
        if missing:
            raise LogError(f"the sidecar file has no pose of {', '.join(missing)}, which {task.name} needs")
        assumption = "Start poses of the objects come from the sidecar file."
        return _in_place(log, task, {name: poses[name] for name in names}, {}, (assumption,))
    if all(name in log.objects for name in names):
        starts = {name: log.objects[name].poses[0] for name in names}
        tracked = {name: log.objects[name].poses for name in names if log.objects[name].tracked}
        return _in_place(log, task, starts, tracked, ())
    grasped = task.grasped
    if grasped is None or not grasped.lies_under_hand or (log.objects and grasped.half_size is None):
        have = f"has only {', '.join(log.objects)}" if log.objects else "has none"
        raise LogError(
            f"{task.name} needs the poses of {', '.join(names)}, and the log {have}: "
            "they cannot be inferred from the hand's motion, give them in a sidecar file (--objects)"
        )
    return _relative_to_objects(log, task, grasped)


def _in_place(
    log: Log, task: Task, starts: Mapping[str, Array], tracked: Mapping[str, Array], assumptions: tuple[str, ...]
) -> Placement:
    for name, pose in starts.items():
        if not (np.all(pose[:2] >= TABLE[0]) and np.all(pose[:2] <= TABLE[1])):
            raise LogError(f"the {name} starts at x = {pose[0]:.3f}, y = {pose[1]:.3f} m, which is not on our table")
    shift = np.zeros((len(log.time), 3))
    shift[:, 2] = -log.table_height
    down = np.array([0.0, 0.0, log.table_height, 0.0, 0.0, 0.0, 0.0])
    if log.table_height:
        assumptions += ("Heights are taken from the table's top, which the log places.",)
    return Placement(task.start_at(starts), shift, {name: pose - down for name, pose in tracked.items()}, assumptions)


def _relative_to_objects(log: Log, task: Task, grasped: Grasped) -> Placement:
    """Place the task's object where the hand grasps, and its goal where the hand lets go."""
    found = find_grasp(log)
    grasp, release = found.grasp, found.release
    rows, tcp, ours, goal = len(log.time), log.tcp_pose, grasped.name, task.goal
    half = None if grasped.half_size is None else np.array(grasped.half_size)
    yaw = heading(tcp[grasp, 3:])
    if found.name is None:
        item = LogObject(np.tile([*tcp[grasp, :2], log.table_height, *tcp[grasp, 3:]], (rows, 1)), tracked=False)
        notes = [f"The {ours}'s start pose is estimated: under the hand where it closes, turned as the hand."]
    else:
        item = log.objects[found.name]
        notes = [f"The log's {found.name!r} stands for our {ours}, turned such that the fingers close across it."]
    notes += found.notes
    offset, height = _in_hand(item, tcp[grasp], grasp, yaw, half)
    center = tcp[grasp, :2] + offset
    # If the hand pushes the object before it grasps it, it does so in this scene too.
    begin = center if found.grasps > 1 else center + item.poses[0, :2] - item.poses[grasp, :2]
    starts = {ours: _standing(begin, yaw)}
    at_grasp = at_release = -log.table_height if half is None else half[2] + height - tcp[grasp, 2]
    if goal is not None:
        turn = Rotation.from_quat(tcp[release, 3:]) * Rotation.from_quat(tcp[grasp, 3:]).inv()
        end = tcp[release, :2] + turn.apply([*offset, 0.0])[:2]
        other = _resting_on(log, found.name)
        yaw = heading(tcp[release, 3:])
        if other is None:
            notes.append(f"The {goal.name}'s pose is estimated: where the hand lets go.")
        else:
            notes.append(f"The log's {other!r} stands for our {goal.name}.")
            # Keep the log's offset from the goal's centre.
            end += log.objects[other].poses[-1, :2] - item.poses[-1, :2]
            yaw = heading(log.objects[other].poses[-1, 3:])
        starts[goal.name] = _standing(end, yaw)
        gap = float(np.linalg.norm(end - begin))
        if gap < goal.distance:
            raise LogError(
                f"the hand lets go {1000 * gap:.0f} mm from where the object starts, where our {goal.name} would be in "
                f"its way: this is not a demonstration of {task.name}"
            )
        if half is not None:
            drop = np.clip(item.poses[release, 2] - item.poses[-1, 2], 0.0, MAX_DROP) if item.tracked else 0.0
            at_release = goal.top + half[2] + height + drop - tcp[release, 2]
    notes.append(
        f"Heights follow our objects' sizes: the hand's are changed by {1000 * at_grasp:.0f} mm up to the grasp"
        + (f", by {1000 * at_release:.0f} mm from the release on." if goal is not None else ".")
    )
    aside = _into_area(np.array([pose[:2] for pose in starts.values()]))
    if aside.any():
        notes.append(f"The scene is moved by {1000 * aside[0]:.0f} mm along x, {1000 * aside[1]:.0f} mm along y.")
    shift = np.empty((rows, 3))
    shift[:, :2] = aside
    shift[:, 2] = np.interp(np.arange(rows), [grasp, max(release, grasp + 1)], [at_grasp, at_release])
    for pose in starts.values():
        pose[:2] += aside
    objects = {}
    if item.tracked:
        turned = Rotation.from_quat(item.poses[:, 3:]) * Rotation.from_quat(item.poses[grasp, 3:]).inv()
        turned *= Rotation.from_quat(_standing(center, heading(tcp[grasp, 3:]))[3:])
        objects[ours] = np.concatenate([item.poses[:, :3] + shift, turned.as_quat()], axis=1)
        objects[ours][:, :2] += center - item.poses[grasp, :2]
    return Placement(task.start_at(starts), shift, objects, tuple(notes))


def _in_hand(item: LogObject, tcp: Array, grasp: int, yaw: float, half: Array | None) -> tuple[Array, float]:
    """Offset (2,) in x and y from the TCP to the object's centre, and the TCP's height above that centre, in metres.

    Along the object, the log's offset is kept as far as the object reaches; across it, the fingers centre the object.
    """
    offset = item.poses[grasp, :2] - tcp[:2]
    if half is None:
        return offset, 0.0
    along = np.array([np.cos(yaw), np.sin(yaw)])
    reach, room = half[0] - FINGER_MARGIN, half[2] - FINGER_MARGIN
    height = float(np.clip(tcp[2] - item.poses[grasp, 2], -room, room)) if item.tracked else 0.0
    return np.clip(offset @ along, -reach, reach) * along, height


def _standing(place: Array, yaw: float) -> Array:
    return np.array([*place, 0.0, 0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])


def _into_area(places: Array) -> Array:
    """Smallest shift (2,) in metres that brings ``places`` (n, 2) into ``AREA``.

    Raises:
        LogError: they are too far apart.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    if np.any(high - low > AREA[1] - AREA[0]):
        raise LogError(
            f"grasp and goal are {1000 * (high - low)[0]:.0f} mm apart along x and {1000 * (high - low)[1]:.0f} mm "
            "along y, more than our workspace holds"
        )
    return np.maximum(AREA[0] - low, 0.0) + np.minimum(AREA[1] - high, 0.0)


@dataclass(frozen=True)
class Grasp:
    """The object that the hand grasps, and when."""

    name: str | None
    """Name of the object; ``None`` if the log has no movable one."""
    grasp: int
    """Row at which the hand closes on it for the last time."""
    release: int
    """Row at which the hand lets go; the last row if it never does."""
    grasps: int
    """Number of times that the hand grasps it."""
    notes: tuple[str, ...] = ()
    """Assumptions made, one sentence each."""


def find_grasp(log: Log) -> Grasp:
    """Find the object that the hand grasps first, and its last grasp of that object.

    Raises:
        LogError: the hand never closes, closes on nothing, or holds the object from the start.
    """
    closed = log.gripper_closed.astype(int)
    starts = np.flatnonzero(np.diff(closed, prepend=0) == 1).tolist()
    ends = [
        start + int(np.argmin(closed[start:])) if (closed[start:] == 0).any() else len(closed) - 1 for start in starts
    ]
    periods = [(_held(log, start, end), start, end) for start, end in zip(starts, ends, strict=True)]
    taken = [period for period in periods if period[0] != ""]
    if not taken:
        raise LogError("the gripper closes on nothing: no object rises with it, or its fingers meet")
    name = taken[0][0]
    mine = [period for period in taken if period[0] == name]
    if mine[-1][1] == 0:
        raise LogError("it starts with the object in the hand: where that lay before is not known")
    notes = []
    if len(mine) > 1:
        notes.append(f"The hand takes the object {len(mine)} times; ours starts where it takes it last.")
    if len(mine) < len(taken):
        notes.append("Of several objects that the hand takes, only the first counts.")
    return Grasp(name, mine[-1][1], mine[-1][2], len(mine), tuple(notes))


def _held(log: Log, start: int, end: int) -> str | None:
    """Object that the closed hand holds from row ``start`` to ``end``: its name; "" for nothing; ``None`` for an object
    that the log does not name."""
    rows = slice(start, end + 1)
    if log.gripper_width is not None and log.gripper_width[rows].min() < HELD_WIDTH:
        return ""
    movable = {name: item.poses[rows, :3] for name, item in log.objects.items() if item.tracked}
    if not movable:
        return None
    rises = {}
    for name, places in movable.items():
        top = int(places[:, 2].argmax())
        near = np.linalg.norm(places[top] - log.tcp_pose[rows][top, :3]) < HELD_DISTANCE
        rises[name] = places[top, 2] - places[0, 2] if near else 0.0
    highest = max(rises, key=lambda name: rises[name])
    return highest if rises[highest] > RAISED else ""


def _resting_on(log: Log, moved: str | None) -> str | None:
    """Name of the object that the moved one ends on or in, according to the log."""
    if moved is None:
        return None
    end = log.objects[moved].poses[-1]
    distances = {
        name: float(np.linalg.norm(item.poses[-1, :2] - end[:2]))
        for name, item in log.objects.items()
        if name != moved and item.poses[-1, 2] < end[2]
    }
    nearest = min(distances, key=lambda name: distances[name], default=None)
    return nearest if nearest is not None and distances[nearest] < GOAL_DISTANCE else None
