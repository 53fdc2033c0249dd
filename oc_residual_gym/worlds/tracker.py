"""The tracker of a simulation: true poses with a hand-eye calibration error and a pose noise model.

A symmetric object looks the same in several poses. At the start of an episode, the tracker chooses the one that is
turned least from the base frame, and then follows that frame. The noise is added in that frame, so it does not depend
on which of these poses the simulation started with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oc_residual_gym.geometry import IDENTITY_QUATERNION, norm, quat_from_rotvec, quat_multiply, rotate
from oc_residual_gym.perception.errors import PoseErrorModel, PoseErrors
from oc_residual_gym.states import Array, BoolArray, IntArray, TrueState
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.tasks.symmetry import nearest_turn
from oc_residual_gym.worlds.domains import EpisodePhysics

NEAR_FINGERS = 0.08
"""Metres from the TCP within which closed fingers hide an object from the tracker."""


class SimulatedTracker:
    """Tracker of the objects in N simulated worlds (``oc_residual_gym.worlds.base.Tracker``).

    Args:
        task: task whose objects are tracked.
        true: true state of the worlds, which the simulation updates in place.
        errors: pose error model or its name.
        calibrated: whether no world has a hand-eye calibration error.
    """

    def __init__(self, task: Task, true: TrueState, errors: str | PoseErrorModel, calibrated: bool):
        n = len(true.table_height)
        self.errors = PoseErrors(errors, n, len(task.objects))
        self.wrench_noise = self.errors.wrench_noise
        self._task, self._true, self._calibrated = task, true, calibrated
        self._far = np.zeros((n, len(task.objects)), bool)
        self._registered = np.tile(IDENTITY_QUATERNION, (n, len(task.objects), 1))
        """(N, K, 4) rotations of the frames that are tracked, in the frames of the objects."""
        self._hand_eye_position = np.zeros((n, 1, 3))
        self._hand_eye_rotation = np.zeros((n, 1, 4))

    def reset(
        self, worlds: IntArray, generators: Sequence[np.random.Generator], physics: Sequence[EpisodePhysics]
    ) -> None:
        """Start an episode in each of ``worlds``, which draws its errors from its own generator.

        The worlds must already be in the start state: the objects are registered as they lie there.
        """
        for k, pose in enumerate(self._task.object_poses(self._true)):
            turn = nearest_turn(pose[worlds, 3:], IDENTITY_QUATERNION, self._task.objects[k].symmetry)
            self._registered[worlds, k] = turn
        self._hand_eye_position[worlds, 0] = [p.hand_eye_position for p in physics]
        self._hand_eye_rotation[worlds, 0] = quat_from_rotvec(np.array([p.hand_eye_rotation for p in physics]))
        self.errors.reset(worlds, generators)

    def observe(self, tcp_pose: Array, closed: BoolArray, worlds: IntArray | None) -> tuple[Array, BoolArray]:
        """Observe the objects after a control step of ``worlds``; see ``Tracker.observe``."""
        poses = np.stack(self._task.object_poses(self._true), axis=1)
        poses[..., 3:] = quat_multiply(poses[..., 3:], self._registered)
        if not self._calibrated:
            rotation = self._hand_eye_rotation
            positions = self._hand_eye_position + rotate(rotation, poses[..., :3])
            poses = np.concatenate([positions, quat_multiply(rotation, poses[..., 3:])], axis=-1)
        near = self._far
        if self.errors.fingers_matter:
            near = norm(poses[..., :3] - tcp_pose[:, None, :3]) < NEAR_FINGERS
            near &= closed[:, None]
        return self.errors.observe(poses, near, worlds)
