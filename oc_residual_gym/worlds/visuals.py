"""How a scene is made to look for people: it changes what is seen and no physics."""

from __future__ import annotations

from typing import Literal, get_args

import mujoco

Visuals = Literal["light", "full"]
"""``full``: for people. ``light``: primitives without mesh or texture, for policies."""


def check_visuals(visuals: str) -> None:
    if visuals not in get_args(Visuals):
        raise ValueError(f"visuals must be one of {', '.join(get_args(Visuals))}; got {visuals!r}")


def dress(spec: mujoco.MjSpec) -> None:
    pass
