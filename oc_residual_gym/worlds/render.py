"""Pictures of a simulated world: small and fast ones for policies, with meshes and shadows for people."""

from __future__ import annotations

import atexit
import copy
import os
import sys
import threading
from functools import lru_cache
from typing import Protocol

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from oc_residual_gym.errors import RenderError, one_of
from oc_residual_gym.geometry import matrix_from_quat
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.worlds.domains import EpisodePhysics
from oc_residual_gym.worlds.opengl import Canvas
from oc_residual_gym.worlds.scene import build_scene
from oc_residual_gym.worlds.visuals import Visuals

POLICY_CAMERAS = ("shoulder", "wrist")
POLICY_IMAGE_SIZE = (128, 128)
"""Height and width in pixels of the images that base policies see."""
CAMERAS = {"shoulder": "shoulder", "wrist": "robot0_wrist", "person": "person"}
"""Camera names to those of the model."""
CLOSE_UP_DISTANCE, CLOSE_UP_FOVY, CLOSE_UP_ELEVATION, CLOSE_UP_RISE = 0.4, 13.0, -28.0, 0.01
"""Close-ups show 9 cm, from this distance in metres, with a vertical field of view and an elevation in degrees. Their
centre is this many metres above the point, because the hand comes from above."""


class Posed(Protocol):
    """MuJoCo worlds that can be drawn, such as :class:`oc_residual_gym.worlds.sim.SimWorld`."""

    physics: list[EpisodePhysics]
    """What differs from the nominal simulation, per world."""

    def physics_state(self, world: int) -> tuple[Array, Array, Array]:
        """(nq,) joint positions, (M, 3) and (M, 4) poses (wxyz) of mocap bodies."""


class SceneRenderer:
    """Draws worlds of one task, in the thread that made it.

    Args:
        task: the scene.
        visuals: "light" (primitives, no shadows: what policies see) or "full" (meshes and shadows: for people).
        size: height and width in pixels.

    Raises:
        RenderError: there is no OpenGL library, or this process was forked from one that had rendered.
        ValueError: ``visuals`` is unknown (from the robot model).
    """

    def __init__(self, task: Task, visuals: Visuals, size: tuple[int, int]):
        self._nominal = build_scene(task, visuals).model
        self._model = model = copy.copy(self._nominal)
        height, width = size
        self._full = full = visuals == "full"
        quality = model.vis.quality
        quality.offsamples = 8 if full else 0
        if not full:
            # At 128 x 128 pixels the finer shapes look the same and cost two to three times as much.
            quality.numslices, quality.numstacks, quality.numquads = 12, 6, 1
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self._data = mujoco.MjData(model)
        model.vis.global_.fovy = CLOSE_UP_FOVY
        self._canvas = Canvas(model, width, height)
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION.value] = full
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0
        self._option.sitegroup[:] = 0
        self._option.flags[mujoco.mjtVisFlag.mjVIS_TENDON.value] = False
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._ids = {name: model.camera(camera).id for name, camera in CAMERAS.items()}

    def image(self, world: Posed, index: int, camera: str) -> np.ndarray:
        """(height, width, 3) uint8 of world ``index`` from "shoulder", "wrist" or "person"."""
        one_of("camera", camera, self._ids)
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, self._ids[camera]
        return self._draw(world, index, shadows=self._full)

    def close_up(self, world: Posed, index: int, point: Array) -> np.ndarray:
        """(height, width, 3) uint8 of world ``index``: what is around ``point`` (3,), in metres of the base frame.

        The camera looks in the direction of "person". There are no shadows: the hand would darken all that matters.
        """
        ahead = -matrix_from_quat(self._nominal.cam_quat[self._ids["person"]][[1, 2, 3, 0]])[:, 2]
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FREE, -1
        self._camera.lookat = [point[0], point[1], point[2] + CLOSE_UP_RISE]
        self._camera.distance = CLOSE_UP_DISTANCE
        self._camera.azimuth, self._camera.elevation = np.degrees(np.arctan2(ahead[1], ahead[0])), CLOSE_UP_ELEVATION
        return self._draw(world, index, shadows=False)

    def _draw(self, world: Posed, index: int, shadows: bool) -> np.ndarray:
        self._place(world, index)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW.value] = shadows
        mujoco.mjv_updateScene(
            self._model,
            self._data,
            self._option,
            self._perturb,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )
        return self._canvas.draw(self._scene)

    def _place(self, world: Posed, index: int) -> None:
        qpos, mocap_positions, mocap_quats = world.physics_state(index)
        model, data, physics = self._model, self._data, world.physics[index]
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = qpos, mocap_positions, mocap_quats
        table = model.body("table").id
        model.body_pos[table, 2] = self._nominal.body_pos[table, 2] + physics.table_height
        for i, name in enumerate(POLICY_CAMERAS):
            camera = self._ids[name]
            turn = Rotation.from_rotvec(physics.camera_rotation[i])
            quat = Rotation.from_quat(self._nominal.cam_quat[camera], scalar_first=True)
            model.cam_pos[camera] = self._nominal.cam_pos[camera] + physics.camera_position[i]
            model.cam_quat[camera] = (quat * turn).as_quat(scalar_first=True)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)


class _Renderers(threading.local):
    """The renderers of the current thread. They are freed when it ends."""

    def __init__(self) -> None:
        self.get = lru_cache(maxsize=16)(_made)


def _made(task: Task, visuals: Visuals, size: tuple[int, int]) -> SceneRenderer:
    renderer = SceneRenderer(task, visuals, size)
    # Contexts must be freed before the OpenGL library is unloaded: exit handlers run last in, first out.
    atexit.unregister(free_renderers)
    atexit.register(free_renderers)
    return renderer


_renderers = _Renderers()


def shared_renderer(task: Task, visuals: Visuals, size: tuple[int, int]) -> SceneRenderer:
    """One renderer for all worlds of a task in the current thread: OpenGL contexts and meshes are expensive.

    Raises:
        RenderError: there is no OpenGL library, or this process was forked from one that had rendered.
    """
    return _renderers.get(task, visuals, size)


def free_renderers() -> None:
    """Free the renderers of the current thread."""
    _renderers.get.cache_clear()


class HumanViewer:
    """MuJoCo's interactive window on one world, with meshes.

    Raises:
        RenderError: there is no display.
    """

    def __init__(self, task: Task):
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise RenderError("render_mode='human' needs a display (DISPLAY is not set): use render_mode='rgb_array'")
        from mujoco import viewer

        self._model = build_scene(task, "full").model
        self._data = mujoco.MjData(self._model)
        before = set(threading.enumerate())
        self._viewer = viewer.launch_passive(self._model, self._data, show_left_ui=False, show_right_ui=False)
        self._threads = set(threading.enumerate()) - before
        atexit.register(self.close)

    def show(self, world: Posed, index: int) -> None:
        """Draw the present state of world ``index``."""
        self._data.qpos[:], self._data.mocap_pos[:], self._data.mocap_quat[:] = world.physics_state(index)
        mujoco.mj_forward(self._model, self._data)
        self._viewer.sync()

    def close(self) -> None:
        """Close the window, and wait for it: MuJoCo crashes when the interpreter ends before its window."""
        atexit.unregister(self.close)
        self._viewer.close()
        for thread in self._threads:
            thread.join(timeout=10)
