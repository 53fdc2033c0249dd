"""Make docs/images/tasks.png: the scripted expert at work in each of the six tasks. Run from a clone."""

from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw, ImageFont

import oc_residual_gym  # noqa: F401 (registers the environments)
from oc_residual_gym.registration import env_id

MOMENTS = {"Lift": 92, "PickPlace": 112, "Stack": 128, "CloseDrawer": 46, "StandCup": 128, "PegInsert": 118}
"""Task to the control step that is shown."""
SEED = 4
HEIGHT, WIDTH = 400, 520


def picture(task: str, steps: int) -> Image.Image:
    """The task's scene after that many steps of the expert, with its name."""
    env = gym.make(env_id(task), base_policy="expert", errors="clean", split="val", render_mode="rgb_array")
    env.reset(seed=SEED)
    for _ in range(steps):
        env.step(np.zeros(7))
    # Rendered larger than shown, for smooth edges.
    pixels = env.unwrapped.core.simulation.render(0, "person", (2 * HEIGHT, 2 * WIDTH), "full")
    env.close()
    image = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    draw.text((14, 10), task, fill="white", font=ImageFont.load_default(26), stroke_width=2, stroke_fill="black")
    return image


def main() -> None:
    sheet = Image.new("RGB", (3 * WIDTH, 2 * HEIGHT))
    for i, (task, steps) in enumerate(MOMENTS.items()):
        sheet.paste(picture(task, steps), (i % 3 * WIDTH, i // 3 * HEIGHT))
    path = Path(__file__).parent / "images" / "tasks.png"
    sheet.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
