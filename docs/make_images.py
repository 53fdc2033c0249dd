"""Make docs/images/tasks.png: the scripted expert at work in each task. Run from a clone."""

import math
from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import oc_residual_gym  # noqa: F401 (registers the environments)
from oc_residual_gym.registration import env_id
from oc_residual_gym.tasks import SHIPPED_TASKS, TASKS

SEED = 4
HEIGHT, WIDTH = 400, 520
COLUMNS = 3


def picture(task: str) -> Image.Image:
    """The task's scene at the moment that tells what it is about, with its name."""
    env = gym.make(env_id(task), base_policy="expert", errors="clean", split="val", render_mode="rgb_array")
    env.reset(seed=SEED)
    for _ in range(TASKS[task].picture_step):
        env.step(np.zeros(7))
    # Rendered larger than shown, for smooth edges.
    pixels = env.unwrapped.core.simulation.render(0, "person", (2 * HEIGHT, 2 * WIDTH), "full")
    env.close()
    image = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    draw.text((14, 10), task, fill="white", font=ImageFont.load_default(26), stroke_width=2, stroke_fill="black")
    return image


def main() -> None:
    sheet = Image.new("RGB", (COLUMNS * WIDTH, math.ceil(len(SHIPPED_TASKS) / COLUMNS) * HEIGHT))
    for i, task in enumerate(SHIPPED_TASKS):
        sheet.paste(picture(task), (i % COLUMNS * WIDTH, i // COLUMNS * HEIGHT))
    path = Path(__file__).parent / "images" / "tasks.png"
    sheet.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
