"""Start poses of trials, written before the first trial: numbers, words and pictures for placing the objects."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.errors import RenderError
from oc_residual_gym.files import Record, write_bytes
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.base import InitialState, Task, axis_z, heading

LYING = 0.5
"""An object lies on its side if the vertical component of its own z axis is below this."""
PICTURE_SIZE = (480, 640)


def write_starts(task: Task, split: str, seeds: Iterable[int], out: Path, pictures: bool) -> list[Record]:
    """Describe the start poses of ``seeds``, and draw them.

    Args:
        task: the task whose objects are placed.
        split: split of the seeds.
        seeds: simulated episodes with these seeds have the same starts.
        out: folder; pictures go into its subfolder ``starts``.
        pictures: whether to draw pictures, if this machine can render.

    Returns:
        One record per seed: "seed", "objects" (poses of the observed objects in the base frame), "place" (one line per
        item to place) and "picture" (its path in ``out``, or "").
    """
    starts = []
    core = ResidualWorlds(task.name, 1, base_policy="hold", errors="clean", split=split)
    try:
        for seed in seeds:
            start = start_of(task, split, seed)
            core.reset(np.zeros(1, np.int64), [seed])
            poses = task.object_poses(core.simulation.true)
            picture = f"starts/start_{seed:04}.png"
            if pictures:
                try:
                    drawn = core.simulation.render(0, "person", PICTURE_SIZE, "full")
                    write_bytes(out / picture, imageio.imwrite("<bytes>", drawn, extension=".png"))
                except RenderError:
                    pictures = False
            starts.append(
                {
                    "seed": seed,
                    "objects": {o.name: pose[0].tolist() for o, pose in zip(task.objects, poses, strict=True)},
                    "place": place(start),
                    "picture": picture if pictures else "",
                }
            )
    finally:
        core.close()
    return starts


def place(start: InitialState) -> list[str]:
    """One line of instructions per item to place."""
    drawers = [f"{name} open by {1000 * opening:.0f} mm" for name, opening in start.slides.items()]
    return [f"{name} {_words(pose)}" for name, pose in start.poses.items()] + drawers


def _words(pose: Array) -> str:
    """Describe a pose as "at x 512 mm, y -83 mm, turned by 34 degrees": base frame, +x forward, +y left, + is left."""
    return f"at x {1000 * pose[0]:.0f} mm, y {1000 * pose[1]:.0f} mm, {turn_in_words(pose)}"


def turn_in_words(pose: Array) -> str:
    """Describe the rotation of a pose (7,) as "turned by 34 degrees", or "lying, its top towards 34 degrees"."""
    z = axis_z(pose[3:])
    if abs(z[2]) < LYING:
        return f"lying, its top towards {np.degrees(np.arctan2(z[1], z[0])):.0f} degrees"
    return f"turned by {np.degrees(heading(pose[3:])):.0f} degrees"
