"""Pictures and videos of one episode, for people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.evaluation import SettingsError
from oc_residual_gym.evaluation.evaluator import EvaluationSettings
from oc_residual_gym.policies.residual import load_residual
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.base import CONTROL_FREQUENCY
from oc_residual_gym.worlds.render import CAMERAS

SUFFIXES = (".png", ".mp4", ".gif")
GIF_STRIDE = 2
"""Control steps a picture: at more than some 10 pictures a second, browsers slow a GIF down."""


def render_episode(
    settings: EvaluationSettings, seed: int, out: Path, camera: str, size: tuple[int, int], step: int = 0
) -> int:
    """Write an episode of the first of ``settings.tasks`` into ``out``.

    Args:
        settings: task, policies, domain, pose errors and split.
        seed: of the episode, in the split.
        out: .mp4 or .gif shows the episode in real time; .png is one picture of it.
        camera: name of a camera of the scene.
        size: height and width in pixels.
        step: control steps before the first picture.

    Returns:
        Number of pictures written.

    Raises:
        SettingsError: if ``out`` has another suffix, there is no such camera or seed, or the episode is
        shorter
            than ``step``.
        RenderError: if this machine cannot make pictures.
    """
    if out.suffix not in SUFFIXES:
        raise SettingsError(f"{out} does not end in one of {', '.join(SUFFIXES)}")
    if camera not in CAMERAS:
        raise SettingsError(f"unknown camera {camera!r}: choose one of {', '.join(CAMERAS)}")
    stride = GIF_STRIDE if out.suffix == ".gif" else 1
    pictures = _pictures(settings, seed, camera, size, step, stride)
    first = next(pictures, None)
    if first is None:
        raise SettingsError(f"the episode ends before control step {step}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".png":
        imageio.imwrite(out, first)
        return 1
    shown = [first, *pictures]
    if out.suffix == ".gif":
        imageio.imwrite(out, shown, duration=1000.0 * stride / CONTROL_FREQUENCY, loop=0)
    else:
        imageio.imwrite(out, shown, fps=CONTROL_FREQUENCY, macro_block_size=2)
    return len(shown)


def _pictures(
    settings: EvaluationSettings, seed: int, camera: str, size: tuple[int, int], first: int, stride: int
) -> Iterator[NDArray[np.uint8]]:
    """Pictures (height, width, 3) after ``first`` control steps and then after every ``stride``-th."""
    task = settings.tasks[0]
    core = ResidualWorlds(
        task,
        1,
        base_policy=settings.base,
        domain=settings.domain,
        errors=settings.errors,
        split=settings.split,
        max_episode_steps=TASKS[task].max_episode_steps,
    )
    residual = load_residual(settings.residual, task, settings.base)
    world = np.zeros(1, dtype=np.int64)
    try:
        try:
            core.reset(world, [seed])
            residual.reset(core, world)
        except ValueError as error:  # no such seed, or a residual made for another task
            raise SettingsError(str(error)) from error
        while True:
            if core.steps[0] >= first and (core.steps[0] - first) % stride == 0:
                yield core.render(0, camera, size, "full")
            if core.terminated[0] or core.truncated[0]:
                return
            core.step(residual.act(core))
    finally:
        core.close()
