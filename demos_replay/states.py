"""A log's recorded states as a video; nothing is simulated or judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from imageio.v2 import get_writer
from tqdm import tqdm

from demos_replay.log import Log, LogError
from demos_replay.transfer import place
from oc_residual_gym.geometry import WXYZ_FROM_XYZW
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.states import CONTROL_FREQUENCY, Array
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.worlds.domains import EpisodePhysics
from oc_residual_gym.worlds.render import shared_renderer
from oc_residual_gym.worlds.sim import SimWorld

SIZE = (480, 640)
"""Height and width in pixels."""


def show_states(log: Log, task: Task, out: Path, poses: Mapping[str, Array] | None = None) -> int:
    """Write a video of ``log`` in the scene of ``task``: arm, fingers, table and objects as the log has them.

    Objects that the log does not track stay at their start poses, or at ``poses`` (7,) as in :func:`place`.

    Returns:
        Number of frames.

    Raises:
        LogError: there are no joint positions of a Franka arm, or the objects' poses are unknown.
        RenderError: this machine cannot render images.
    """
    joints = log.joint_positions
    if joints is None:
        raise LogError("it has no joint positions of a Franka arm: replay it dynamically to see it")
    placement = place(log, task, poses)
    world = SimWorld(task, 1)
    try:
        world.reset(np.array([0]), [placement.start], [EpisodePhysics()])
        qpos, positions, quats = (part.copy() for part in world.physics_state(0))
    finally:
        world.close()
    scene = world.scene
    # The arm is shown at its recorded joints, so undo the log's shift into this scene for everything else.
    positions -= placement.shift[-1]
    physics = EpisodePhysics(table_height=-placement.shift[0, 2])
    arm = [scene.model.jnt_qposadr[scene.model.joint(f"robot0_joint{i}").id] for i in range(1, 8)]
    view: Any = SimpleNamespace(physics=[physics], physics_state=lambda _: (qpos, positions, quats))
    renderer = shared_renderer(task, "full", SIZE)
    rows = np.arange(0.0, log.time[-1], 1.0 / CONTROL_FREQUENCY)
    rows = np.searchsorted(log.time, rows, side="right") - 1
    width = np.full(len(log.time), MAX_OPENING) if log.gripper_width is None else log.gripper_width
    opened = scene.home[scene.finger_qpos]
    out.parent.mkdir(parents=True, exist_ok=True)

    def picture(row: int) -> np.ndarray:
        qpos[arm] = joints[row]
        qpos[scene.finger_qpos] = opened * width[row] / MAX_OPENING
        for name, address in scene.free_qpos.items():
            if name in placement.objects:
                pose = placement.objects[name][row]
                qpos[address : address + 7] = np.concatenate(
                    [pose[:3] - placement.shift[row], pose[3:][WXYZ_FROM_XYZW]]
                )
        if len(placement.objects) == len(task.objects):
            slides = task.start_at({name: path[row] for name, path in placement.objects.items()}).slides
            for name, opening in slides.items():
                qpos[scene.slide_qpos[name]] = opening
        return renderer.image(view, 0, "person")

    partial = out.with_name(f"{out.stem}.partial{out.suffix}")
    # One frame in memory at a time: a log may be long.
    writer: Any = get_writer(partial, fps=CONTROL_FREQUENCY, macro_block_size=2)
    with writer as video:
        for row in tqdm(rows.tolist(), unit="picture", disable=None):
            video.append_data(picture(row))
    partial.replace(out)
    return len(rows)
