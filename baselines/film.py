"""``film``: a video of a base policy alone and with a residual, side by side in the same episode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from baselines import BaselineError
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import RenderError
from oc_residual_gym.evaluation.episodes import EPISODES_FILE, SETTINGS_FILE, read_episodes
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.files import Record
from oc_residual_gym.parsing import read_json
from oc_residual_gym.states import CONTROL_FREQUENCY, Array
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.failures import failure_in_words
from oc_residual_gym.video import VIDEO_RATES, Colour, Picture, check_suffix, episode, write_video
from oc_residual_gym.worlds.render import CAMERAS, shared_renderer

SIZE = (300, 400)
"""Height and width of each side's picture in pixels."""
HOLD = 1.5
"""Seconds for which the last picture is shown."""
CAMERA = "person"
MARGIN = 0.06
"""Margin around the hand and the objects at the start of the episode, as a share of the full picture's height."""
CLOSE_UP, BORDER = 0.45, 2
"""Side of the close-up's square in a corner, as a share of the picture's height, and its border in pixels."""
BAR, FONT_SIZE = 26, 16
"""Height of a text bar and of its letters, in pixels."""
PAPER, TEXT, QUIET, GREEN, RED = (24, 24, 28), (240, 240, 240), (160, 160, 165), (80, 210, 100), (255, 95, 85)
"""Colours of the text bars and their text."""


def film(settings: EvaluationSettings, seed: int, out: Path, speed: int) -> str:
    """Write a video of one episode: the base policy alone on the left, with the residual on the right.

    Args:
        settings: task, base and residual policy, domain, pose errors and split.
        seed: seed of the episode in the split.
        out: .gif or .mp4 file.
        speed: playback speed; 1 is real time.

    Returns:
        The outcome of both sides, in words.

    Raises:
        SettingsError: ``out`` has another suffix, there is no such seed, or the residual was made for another task.
        BaselineError: this machine cannot render.
    """
    check_suffix(out, tuple(VIDEO_RATES))
    rate = VIDEO_RATES[out.suffix]
    stride = round(CONTROL_FREQUENCY / rate) * speed
    task = settings.tasks[0]
    facts = f"{task}, {settings.domain}, {settings.errors} errors, {settings.split} seed {seed}, {speed}x speed"
    base = Path(settings.base).stem if settings.base.endswith(".onnx") else settings.base
    # A file path means nothing to viewers.
    residual = "residual" if Path(settings.residual).exists() else f"{settings.residual} residual"
    sides = (
        _Side(f"{base} alone", replace(settings, residual="zero"), seed),
        _Side(f"{base} + {residual}", settings, seed),
    )
    pictures = []
    try:
        with tqdm(total=TASKS[task].max_episode_steps // stride + 1, unit="picture", disable=None) as bar:
            for picture in _pictures(sides, facts, stride):
                pictures.append(picture)
                bar.update()
    except RenderError as error:
        raise BaselineError(str(error)) from error
    write_video(out, pictures + pictures[-1:] * round(HOLD * rate), (GREEN, RED))
    return "; ".join(f"{side.caption}: {side.outcome}" for side in sides)


def seed_to_show(settings: EvaluationSettings, compared: Path) -> int:
    """The first seed of a comparison on which the base policy fails alone and succeeds with the residual.

    Args:
        settings: what to show.
        compared: folder written by ``python -m baselines compare``.

    Raises:
        BaselineError: the folder has no episodes with these settings, or no such seed.
    """
    alone, corrected = (
        _successes(replace(settings, residual=residual), compared) for residual in ("zero", settings.residual)
    )
    both = sorted(alone.keys() & corrected.keys())
    if not both:
        compare = f"python -m baselines compare --base {settings.base} --residual {settings.residual}"
        raise BaselineError(
            f"{compared} has no episodes of these policies, in this version, on {settings.tasks[0]} "
            f"({settings.domain}, {settings.errors} errors, split {settings.split}): give the --out of "
            f"`{compare}`, or a --seed"
        )
    failed = [seed for seed in both if not alone[seed]]
    fixed = [seed for seed in failed if corrected[seed]]
    if not fixed:
        raise BaselineError(
            f"there is no episode to show among the {len(both)} in {compared}: {settings.base} alone fails in "
            f"{len(failed)}, and the residual {settings.residual} succeeds in none of these; give a --seed"
        )
    return fixed[0]


def _successes(settings: EvaluationSettings, compared: Path) -> dict[int, bool]:
    """Seed to success, for all episodes in ``compared`` that were run with ``settings``, whatever their number."""

    def described(identity: Record) -> Record:
        return {key: value for key, value in identity.items() if key != "episodes"}

    wanted = described(json.loads(json.dumps(settings.identity)))  # tuples become lists, as in the file
    return {
        record["seed"]: record["success"]
        for file in sorted(compared.glob(f"runs/*/{SETTINGS_FILE}"))
        if described(read_json(file)) == wanted
        for record in read_episodes(file.with_name(EPISODES_FILE))
    }


class _Side:
    """One side of the video: an episode, its caption and its outcome."""

    def __init__(self, caption: str, settings: EvaluationSettings, seed: int):
        self.caption = caption
        self._states = episode(settings, seed)
        self.core = next(self._states)

    @property
    def over(self) -> bool:
        return bool(self.core.terminated[0] or self.core.truncated[0])

    @property
    def outcome(self) -> str:
        """How the episode ended, or the elapsed time."""
        time = f"{self.core.steps[0] / CONTROL_FREQUENCY:.1f} s"
        if not self.over:
            return time
        if self.core.terminated[0]:
            return f"success after {time}"
        return f"failed: {failure_in_words(self.core.task, self.core.failure[0] or 'not_done')}"

    def advance(self, steps: int) -> None:
        """Advance by ``steps`` control steps, or to the end of the episode."""
        for _ in range(steps):
            if not self.over:
                next(self._states)

    def picture(self, window: _Window) -> Image.Image:
        """Render the scene, with caption and outcome."""
        height, width = SIZE
        image = Image.new("RGB", (width, height + 2 * BAR), PAPER)
        image.paste(Image.fromarray(window.picture(self.core)), (0, BAR))
        self._paste_close_up(image, window)
        colour = TEXT if not self.over else GREEN if self.core.terminated[0] else RED
        _write(image, self.caption, 0, TEXT)
        _write(image, self.outcome, BAR + height, colour)
        return image

    def _paste_close_up(self, image: Image.Image, window: _Window) -> None:
        """Paste what is around the decisive object into an upper corner, if the task names one."""
        point = _decisive_point(self.core)
        if point is None:
            return
        inner = round(CLOSE_UP * SIZE[0])
        outer = inner + 2 * BORDER
        seen = shared_renderer(self.core.task, "full", (inner, inner)).close_up(self.core.mujoco, 0, point)
        left = 0 if window.close_up_is_left else image.width - outer
        image.paste(QUIET, (left, BAR, left + outer, BAR + outer))
        image.paste(Image.fromarray(seen), (left + BORDER, BAR + BORDER))


def _pictures(sides: tuple[_Side, _Side], facts: str, stride: int) -> Iterator[Picture]:
    """Yield a picture of both sides after every ``stride`` control steps, until both episodes have ended."""
    window = _window(sides[0].core)
    images = [side.picture(window) for side in sides]
    width, height = images[0].size
    sheet = Image.new("RGB", (2 * width + 2, height + BAR), PAPER)
    _write(sheet, facts, height, QUIET)
    while True:
        for i, image in enumerate(images):
            sheet.paste(image, (i * (width + 2), 0))
        yield np.array(sheet)
        if all(side.over for side in sides):
            return
        for i, side in enumerate(sides):
            if not side.over:
                side.advance(stride)
                images[i] = side.picture(window)


def _write(image: Image.Image, text: str, top: int, colour: Colour) -> None:
    """Draw left-aligned text into the bar of ``image`` that starts at height ``top``."""
    font = ImageFont.load_default(FONT_SIZE)
    ImageDraw.Draw(image).text((8, top + BAR // 2), text, fill=colour, font=font, anchor="lm")


@dataclass(frozen=True)
class _Window:
    """The part of the camera's picture that is shown, in pixels."""

    whole: tuple[int, int]
    """Height and width of the full picture."""
    top: int
    left: int
    close_up_is_left: bool
    """Whether the close-up is in the left corner: away from the decisive object, to which the hand comes from above."""

    def picture(self, core: ResidualWorlds) -> Picture:
        height, width = SIZE
        whole = core.simulation.render(0, CAMERA, self.whole, "full")
        return whole[self.top : self.top + height, self.left : self.left + width]


def _window(core: ResidualWorlds) -> _Window:
    """Crop window around the present positions of hand and objects: in the full picture, they would be too small."""
    objects = [poses[0, :3] for poses in core.task.object_poses(core.simulation.true)]
    seen = _seen(core, np.array([core.world.robot.tcp_pose[0, :3], *objects]))
    low, high = seen.min(axis=0) - MARGIN, seen.max(axis=0) + MARGIN
    pixels = np.array(SIZE)
    height = round((pixels / (high - low)).min())
    whole = np.array([height, height * SIZE[1] // SIZE[0]])
    corner = np.clip(np.round(whole / 2 + height * (low + high) / 2 - pixels / 2), 0, whole - pixels).astype(int)
    point = _decisive_point(core)
    column = 0.0 if point is None else whole[1] / 2 + height * _seen(core, point[None])[0, 1] - corner[1]
    top, left = corner.tolist()
    return _Window((int(whole[0]), int(whole[1])), top, left, bool(column > SIZE[1] / 2))


def _seen(core: ResidualWorlds, points: Array) -> Array:
    """Where the camera sees ``points`` (n, 3): (n, 2) down and right from the centre, in heights of the picture."""
    camera = core.mujoco.scene.model.camera(CAMERAS[CAMERA])
    # MuJoCo's cameras look along -z with y up.
    x, y, z = Rotation.from_quat(camera.quat, scalar_first=True).inv().apply(points - camera.pos).T
    return np.stack([-y / -z, x / -z], axis=1) / (2.0 * np.tan(np.radians(camera.fovy[0]) / 2.0))


def _decisive_point(core: ResidualWorlds) -> Array | None:
    """Position (3,) of the object that the task shows close up; ``None`` if it names none."""
    names = [o.name for o in core.task.objects]
    if core.task.close_up is None:
        return None
    return core.task.object_poses(core.simulation.true)[names.index(core.task.close_up)][0, :3]
