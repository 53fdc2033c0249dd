"""The state of a world as far as a policy can tell it, in the form that a task's scripted expert needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oc_residual_gym.states import IntArray
from oc_residual_gym.tasks.base import Snapshot

if TYPE_CHECKING:
    from oc_residual_gym.envs.core import ResidualWorlds

EMPTY, OPEN = 0.004, 0.076
"""Metres between closed fingers: below the first they hold nothing, above the second they have not begun to close."""
AT_REST = 0.0005
"""Metres per control step: fingers that move less are at rest. The hand closes with 5 mm per step."""
REST_STEPS = 4
"""Control steps at rest after which closed fingers have met an object. A robot's hand reports its width only every
0.1 s, so that moving fingers may seem to rest for two steps."""


class Sight:
    """Tells the state of N worlds from filtered poses, the measured tool, the fingers' distance and the latch.

    A grasped object shows in the fingers: closed, at rest and apart. It moves as the tool does, and everything else is
    at rest. The table is at its nominal height. What else follows from the poses, the task's own plan tells, see
    :meth:`~oc_residual_gym.tasks.base.Task.plan`.

    Args:
        num_worlds: N.
    """

    def __init__(self, num_worlds: int):
        self._widths = np.zeros(num_worlds)
        self._rested = np.zeros(num_worlds, np.int64)

    def start(self, worlds: IntArray) -> None:
        """Forget how long the fingers of ``worlds`` have been at rest: a new episode begins there."""
        self._rested[worlds] = 0
        self._widths[worlds] = np.nan

    def update(self, core: ResidualWorlds, worlds: IntArray) -> None:
        """Follow the fingers of ``worlds`` for one control step."""
        widths = core.world.robot.gripper_width[worlds]
        still = np.abs(widths - self._widths[worlds]) < AT_REST
        self._rested[worlds] = np.where(still, self._rested[worlds] + 1, 0)
        self._widths[worlds] = widths

    def state(self, core: ResidualWorlds, world: int) -> Snapshot | None:
        """State of one world; ``None`` if one of its objects has not been seen in this episode."""
        task, robot = core.task, core.world.robot
        poses = {o.name: core.filter.poses[world, i].copy() for i, o in enumerate(task.objects)}
        if not all(np.isfinite(pose).all() for pose in poses.values()):
            return None
        closed, width = bool(core.latch.closed[world]), float(robot.gripper_width[world])
        holds = closed and EMPTY < width < OPEN and bool(self._rested[world] >= REST_STEPS)
        velocities = {name: np.zeros(6) for name in poses}
        if holds and task.grasped is not None:
            velocities[task.grasped.name] = robot.tcp_velocity[world].copy()
        fingers = {"left", "right", "hand"}
        return Snapshot(
            poses=poses,
            velocities=velocities,
            contacts={name: holds and name in fingers for name in task.contacts},
            slides={},
            parameters={},
            table_height=0.0,
            tcp_pose=robot.tcp_pose[world].copy(),
            gripper_width=width,
            gripper_closed=closed,
            target=core.executed_target[world].copy(),
        )
