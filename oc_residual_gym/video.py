"""Pictures and videos of one episode."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.evaluation.rollout import stopped_by_base
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.files import write_bytes
from oc_residual_gym.identity import own_copy
from oc_residual_gym.residuals import load_residual
from oc_residual_gym.states import CONTROL_FREQUENCY
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.render import CAMERAS

Picture = NDArray[np.uint8]
"""(height, width, 3) RGB, 0 to 255."""
Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

PICTURE_SUFFIX = ".png"
VIDEO_RATES = {".mp4": 20, ".gif": 10}
"""Frames per second by file suffix. Browsers slow down a GIF with more than about 10."""


def render_episode(
    settings: EvaluationSettings, seed: int, out: Path, camera: str, size: tuple[int, int], step: int = 0
) -> int:
    """Run one episode of the first task in ``settings.tasks`` and write it to ``out``.

    Args:
        settings: task, policies, domain, pose errors and split.
        seed: seed of the episode in the split.
        out: .mp4 or .gif for the episode in real time, .png for a single picture.
        camera: name of a camera of the scene.
        size: height and width in pixels.
        step: control steps before the first picture.

    Returns:
        Number of pictures written.

    Raises:
        SettingsError: if ``out`` has another suffix, there is no such camera or seed, or the episode is shorter than
            ``step``.
        RenderError: if this machine cannot render.
    """
    check_suffix(out, (PICTURE_SUFFIX, *VIDEO_RATES))
    one_of("camera", camera, CAMERAS)
    stride = round(CONTROL_FREQUENCY / VIDEO_RATES.get(out.suffix, CONTROL_FREQUENCY))
    pictures = (
        core.simulation.render(0, camera, size, "full")
        for core in episode(settings, seed)
        if core.steps[0] >= step and (core.steps[0] - step) % stride == 0
    )
    first = next(pictures, None)
    if first is None:
        raise SettingsError(f"the episode ends before control step {step}")
    if out.suffix == PICTURE_SUFFIX:
        write_bytes(out, imageio.imwrite("<bytes>", first, extension=PICTURE_SUFFIX))
        return 1
    shown = [first, *pictures]
    write_video(out, shown)
    return len(shown)


def check_suffix(out: Path, suffixes: Sequence[str]) -> None:
    """Raise ``SettingsError`` if ``out`` does not end in one of ``suffixes``."""
    if out.suffix not in suffixes:
        raise SettingsError(f"{out} does not end in one of {', '.join(suffixes)}")


def episode(settings: EvaluationSettings, seed: int) -> Iterator[ResidualWorlds]:
    """Run one episode of the first task in ``settings.tasks``; yield its world at the start and after each step.

    The same object is yielded each time.

    Raises:
        SettingsError: the split has no such seed, the residual was made for another task, or the base policy has raised
            an exception.
        RenderError: the base policy needs images, and this machine cannot render.
    """
    task = settings.tasks[0]
    core = ResidualWorlds(
        task,
        1,
        base_policy=own_copy(settings.base),
        domain=settings.domain,
        errors=settings.errors,
        split=settings.split,
        max_episode_steps=TASKS[task].max_episode_steps,
    )
    residual = load_residual(own_copy(settings.residual), task, settings.base)
    world = np.zeros(1, dtype=np.int64)
    try:
        try:
            with stopped_by_base(core):
                core.reset(world, [seed])
            residual.reset(core, world)
        except ValueError as error:  # no such seed, or a residual made for another task
            raise SettingsError(str(error)) from error
        yield core
        while not (core.terminated[0] or core.truncated[0]):
            with stopped_by_base(core):
                core.step(residual.act(core))
            yield core
    finally:
        core.close()


def write_video(out: Path, pictures: Sequence[Picture], exact: Sequence[Colour] = ()) -> None:
    """Write ``pictures`` as a video; the suffix of ``out`` sets format and frame rate (:data:`VIDEO_RATES`).

    A GIF has 256 colours; its palette always includes those in ``exact``.
    """
    rate = VIDEO_RATES[out.suffix]
    if out.suffix == ".gif":
        write_bytes(out, _gif(pictures, rate, exact))
    else:
        video = imageio.imwrite("<bytes>", pictures, extension=out.suffix, fps=rate, macro_block_size=2)
        write_bytes(out, video)


def _gif(pictures: Sequence[Picture], rate: int, exact: Sequence[Colour]) -> bytes:
    """A looping GIF. One palette and no dithering, so that still parts stay identical and compress well."""
    samples = [pictures[0], pictures[len(pictures) // 2], pictures[-1]]
    palette = Image.fromarray(np.concatenate(samples)).quantize(256 - len(exact))
    palette.putpalette([*(palette.getpalette() or ()), *np.ravel(exact)])
    first, *others = (
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures
    )
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 // rate, loop=0)
    return file.getvalue()
