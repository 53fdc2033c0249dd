"""Judge of a rehearsal: applies the task's success rule to the true state that the rig publishes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import zmq
from scipy.spatial.transform import Rotation

from oc_residual_gym.geometry import WXYZ_FROM_XYZW
from oc_residual_gym.tasks.base import SUCCESS_STEPS, InitialState, Task
from oc_residual_gym.worlds.domains import EpisodePhysics
from oc_residual_gym.worlds.sim import SimWorld


class SceneJudge:
    """Judges a rehearsed trial in the operator's place; pass it as the ``verdict`` of an ``FR3World``.

    Args:
        task: the task whose success rule applies.
        start: initial placement of all objects, including those that never move.
        truth_address: ZeroMQ publisher of true states, from a rig with the full scene.
    """

    def __init__(self, task: Task, start: InitialState, truth_address: str):
        self._task = task
        self._world = SimWorld(task, 1, threads=1)
        model, scene = self._world.scene.model, self._world.scene
        self._free = {name: _dof_at(model, address) for name, address in scene.free_qpos.items()}
        self._slides = {name: _dof_at(model, address) for name, address in scene.slide_qpos.items()}
        self.begin(start)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.CONFLATE, 1)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(truth_address)

    def begin(self, start: InitialState) -> None:
        """Begin a new trial with the objects at ``start``."""
        self._world.reset(np.zeros(1, int), [start], [EpisodePhysics()])
        self._held = 0

    def __call__(self) -> bool | None:
        """Call once per control step: ``True`` once the success condition has held long enough, else ``None``."""
        if self._socket.poll(0):
            self._take(json.loads(self._socket.recv()))
        done = bool(self._task.success(self._world.true)[0])
        self._held = self._held + 1 if done else 0
        return True if self._held >= SUCCESS_STEPS else None

    @property
    def progress(self) -> dict[str, float]:
        """The task's milestones in the last judged state."""
        return {name: float(value[0]) for name, value in self._task.progress(self._world.true).items()}

    def _take(self, truth: dict[str, Any]) -> None:
        scene = self._world.scene
        qpos, qvel = scene.home.copy(), np.zeros(scene.model.nv)
        qpos[scene.arm_qpos], qvel[scene.arm_qpos] = truth["q"], truth["dq"]
        qpos[scene.finger_qpos] = np.abs(truth["fingers"]) * np.sign(scene.home[scene.finger_qpos])
        for name, dof in self._free.items():
            pose, velocity, address = (
                np.array(truth["qpos"][name]),
                np.array(truth["qvel"][name]),
                scene.free_qpos[name],
            )
            qpos[address : address + 7] = np.concatenate([pose[:3], pose[3:][WXYZ_FROM_XYZW]])
            # A free joint's angular velocity is in the body's own frame.
            qvel[dof : dof + 3] = velocity[:3]
            qvel[dof + 3 : dof + 6] = Rotation.from_quat(pose[3:]).inv().apply(velocity[3:])
        for name, dof in self._slides.items():
            qpos[scene.slide_qpos[name]], qvel[dof] = truth["slides"][name]
        self._world.place(0, qpos, qvel)

    def close(self) -> None:
        """Close the connection and the simulation."""
        self._context.destroy(linger=0)
        self._world.close()


def _dof_at(model: Any, address: int) -> int:
    """Index of the first velocity of the joint whose positions begin at ``address``."""
    return int(model.jnt_dofadr[model.jnt_qposadr.tolist().index(address)])
