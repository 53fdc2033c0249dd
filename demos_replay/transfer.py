"""From a log to what the simulated cell is told: start state and targets, with every assumption on the way listed.

A log of one of our scenes keeps its places; only the table's height is taken out. A log of another scene is brought
into ours relative to the objects: our object stands where the hand grasps, our goal where it lets go, and the hand's
height follows our objects' sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.log import Log, LogError, LogObject
from oc_residual_gym.tasks.base import InitialState, Task, heading
from oc_residual_gym.worlds.base import Array

GRASPED: Mapping[str, str] = {"Lift": "block", "PickPlace": "block", "Stack": "white", "PegInsert": "peg"}
"""By task, the object whose place follows from where the hand closes. In the other tasks it does not."""
GOALS: Mapping[str, tuple[str, float]] = {
    "PickPlace": ("plate", 0.01),
    "Stack": ("green", 0.04),
    "PegInsert": ("hole", 0.04),
}
"""By task, the object that the grasped one is brought to, and the height of its top in metres."""
HALF_SIZES: Mapping[str, Array] = {
    "Lift": np.array([0.06, 0.02, 0.02]),
    "PickPlace": np.array([0.04, 0.02, 0.02]),
    "Stack": np.array([0.02, 0.02, 0.02]),
}
"""Metres, of the grasped object along its axes, for the tasks into which other scenes are brought."""
FINGER_MARGIN = 0.012
"""Metres from the TCP to the object's ends that a grasp keeps: fingertips reach 9 mm below the TCP."""
HELD_WIDTH = 0.003
"""Metres between closed fingers from which there is something between them."""
MOVED = 0.015
"""Metres by which an object moves at least when it was manipulated."""
GOAL_DISTANCE = 0.06
"""Metres in the plane within which the manipulated object comes to rest on another one."""
MAX_DROP = 0.02
"""Metres that an object may fall at its release, in our scene as in the log."""


@dataclass(frozen=True)
class Placement:
    """A log in our scene."""

    start: InitialState
    shift: Array
    """(T, 3) metres, added to the log's positions."""
    objects: Mapping[str, Array]
    """By our names, poses (T, 7) in our scene that the log's objects had, where it follows them."""
    assumptions: tuple[str, ...]


def place(log: Log, task: Task, poses: Mapping[str, Array] | None = None) -> Placement:
    """Bring ``log`` into the scene of ``task``.

    Args:
        log: what was recorded.
        task: ours.
        poses: start poses (7,) of the task's observed objects from a sidecar file, base frame; in place of the log's.

    Raises:
        LogError: it does not tell where the task's objects are, and neither can it be inferred.
    """
    names = [item.name for item in task.objects]
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
    if task.name not in (GRASPED if not log.objects else HALF_SIZES):
        have = f"has only {', '.join(log.objects)}" if log.objects else "has none"
        raise LogError(
            f"{task.name} needs the poses of {', '.join(names)}, and the log {have}: "
            "they cannot be inferred from the hand's motion, give them in a sidecar file (--objects)"
        )
    return _relative_to_objects(log, task)


def _in_place(
    log: Log, task: Task, starts: Mapping[str, Array], tracked: Mapping[str, Array], assumptions: tuple[str, ...]
) -> Placement:
    shift = np.zeros((len(log.time), 3))
    shift[:, 2] = -log.table_height
    down = np.array([0.0, 0.0, log.table_height, 0.0, 0.0, 0.0, 0.0])
    if log.table_height:
        assumptions += ("Heights are taken from the table's top, which the log places.",)
    return Placement(task.start_at(starts), shift, {name: pose - down for name, pose in tracked.items()}, assumptions)


def _relative_to_objects(log: Log, task: Task) -> Placement:
    """Our object where the hand grasps, our goal where it lets go."""
    source, grasp, release = find_grasp(log)
    rows = len(log.time)
    tcp = log.tcp_pose
    if source is None:
        moved = np.concatenate([tcp[grasp, :2], [log.table_height], tcp[grasp, 3:]])
        item = LogObject(np.tile(moved, (rows, 1)), tracked=False)
        notes = [
            f"The {GRASPED[task.name]}'s start pose is estimated: under the hand where it closes, turned as the hand."
        ]
    else:
        item = log.objects[source]
        notes = [
            f"The log's {source!r} stands for our {GRASPED[task.name]}, turned such that the fingers close across it."
        ]
    half = HALF_SIZES.get(task.name)
    hand = Rotation.from_quat(tcp[grasp, 3:])
    yaw = heading(tcp[grasp, 3:])
    along = np.array([np.cos(yaw), np.sin(yaw)])
    offset = item.poses[grasp, :2] - tcp[grasp, :2]
    height = 0.0
    if half is not None:
        # Along the object as far from the hand as in the log, if that is still on ours; the fingers centre it across.
        reach = half[0] - FINGER_MARGIN
        offset = np.clip(offset @ along, -reach, reach) * along
        room = half[2] - FINGER_MARGIN
        height = float(np.clip(tcp[grasp, 2] - item.poses[grasp, 2], -room, room)) if item.tracked else 0.0
    center = tcp[grasp, :2] + offset
    # Should the hand push the object before it takes it, it does so in our scene too.
    begin = center + item.poses[0, :2] - item.poses[grasp, :2]
    starts = {GRASPED[task.name]: np.array([*begin, 0.0, 0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])}
    at_grasp = -log.table_height if half is None else half[2] + height - tcp[grasp, 2]
    at_release = at_grasp
    if task.name in GOALS:
        goal, top = GOALS[task.name]
        turn = Rotation.from_quat(tcp[release, 3:]) * hand.inv()
        end = tcp[release, :2] + turn.apply([*offset, 0.0])[:2]
        other = _resting_on(log, source)
        yaw = heading(tcp[release, 3:])
        if other is None:
            notes.append(f"The {goal} is estimated: where the hand lets go.")
        else:
            notes.append(f"The log's {other!r} stands for our {goal}.")
            # As far off the goal's centre as in the log.
            end += log.objects[other].poses[-1, :2] - item.poses[-1, :2]
            yaw = heading(log.objects[other].poses[-1, 3:])
        starts[goal] = np.array([*end, 0.0, 0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])
        gap = float(np.linalg.norm(end - begin))
        if gap < (0.06 if task.name == "Stack" else 0.14):
            raise LogError(
                f"the hand lets go {1000 * gap:.0f} mm from where it grasps, where our {goal} would stand in the way: "
                f"this is no demonstration of {task.name}"
            )
        if half is not None:
            drop = np.clip(item.poses[release, 2] - item.poses[-1, 2], 0.0, MAX_DROP) if item.tracked else 0.0
            at_release = top + half[2] + height + drop - tcp[release, 2]
    notes.append(
        f"Heights follow our objects' sizes: the hand's are changed by {1000 * at_grasp:.0f} mm up to the grasp"
        + (f", by {1000 * at_release:.0f} mm from the release on." if task.name in GOALS else ".")
    )
    shift = np.zeros((rows, 3))
    shift[:, 2] = np.interp(np.arange(rows), [grasp, max(release, grasp + 1)], [at_grasp, at_release])
    objects = {}
    if source is not None and item.tracked:
        poses = item.poses.copy()
        poses[:, :3] += shift
        poses[:, :2] += center - item.poses[grasp, :2]
        objects[GRASPED[task.name]] = poses
    return Placement(task.start_at(starts), shift, objects, tuple(notes))


def find_grasp(log: Log) -> tuple[str | None, int, int]:
    """The object that the hand takes (``None`` where the log has no movable one), and the rows of grasp and release.

    Of several grasps of that object, the first grasp and the last release; the last row, where the hand never lets go.

    Raises:
        LogError: the hand never closes, or never on anything.
    """
    closed = log.gripper_closed.astype(int)
    starts = np.flatnonzero(np.diff(closed, prepend=0) == 1)
    if not len(starts):
        raise LogError("the gripper never closes, and the task is to grasp something")
    last = len(closed) - 1
    ends = [int(start + np.argmin(closed[start:])) if (closed[start:] == 0).any() else last for start in starts]
    movable = {name: item for name, item in log.objects.items() if item.tracked}
    found: tuple[str | None, int, int] | None = None
    for start, end in zip(starts.tolist(), ends, strict=True):
        moved = {name: float(np.ptp(item.poses[start : end + 1, :3], axis=0).max()) for name, item in movable.items()}
        name = max(moved, key=lambda name: moved[name], default=None)
        held = log.gripper_width is None or log.gripper_width[start : end + 1].min() > HELD_WIDTH
        if moved[name] > MOVED if name is not None else held:
            found = (name, start, end) if found is None else (found[0], found[1], end) if found[0] == name else found
    if found is not None:
        return found
    raise LogError(
        "the gripper closes, but on nothing: no object moves with it, and no width is left between the fingers"
    )


def _resting_on(log: Log, moved: str | None) -> str | None:
    """The object that the moved one ends on or in, by the log."""
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
