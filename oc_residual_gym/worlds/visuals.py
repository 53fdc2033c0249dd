"""Materials, light and meshes for pictures for people. They change the looks of a scene and not its physics."""

from __future__ import annotations

from typing import Literal, get_args

import mujoco
import numpy as np

from oc_residual_gym.errors import one_of
from oc_residual_gym.robots.geoms import VISUAL_GROUP
from oc_residual_gym.robots.meshes import show_meshes

Visuals = Literal["light", "full"]
"""``full``: with materials and shadows, and with robosuite's meshes where it is installed, for people. ``light``:
primitives without mesh or texture, for policies."""

# Material per body: how strongly it shines, in MuJoCo's units, 0 to 1.
FINISHES = {
    "paint": {"specular": 0.5, "shininess": 0.6},
    "satin": {"specular": 0.25, "shininess": 0.3},
    "table": {"specular": 0.25, "shininess": 0.4, "reflectance": 0.06},
}
FLOOR_TILES = 2.0
"""Tiles per metre."""
FLOOR_LIGHT, FLOOR_DARK, FLOOR_JOINT = (0.74, 0.76, 0.78), (0.70, 0.72, 0.74), (0.60, 0.62, 0.64)
SKY_LOW, SKY_HIGH = (0.93, 0.95, 0.98), (0.55, 0.66, 0.80)
LAMP_DIFFUSE, FILL_DIFFUSE, HEADLIGHT = (0.58, 0.57, 0.54), (0.18, 0.19, 0.22), (0.15, 0.15, 0.15)
AMBIENT = (0.36, 0.36, 0.38)
SHADOW_SIZE = 8192
"""Pixels along each side of the shadows' map."""


def check_visuals(visuals: str) -> None:
    """Check that ``visuals`` is valid.

    Raises:
        ValueError: ``visuals`` is unknown; the message lists the valid ones.
    """
    one_of("visuals", visuals, get_args(Visuals))


def dress(spec: mujoco.MjSpec) -> None:
    """Add materials, a sky, floor tiles, shadows and, if robosuite is installed, the robot's meshes."""
    _add_surroundings(spec)
    _add_finishes(spec)
    _light(spec)
    show_meshes(spec)


def _add_surroundings(spec: mujoco.MjSpec) -> None:
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=SKY_LOW,
        rgb2=SKY_HIGH,
        width=256,
        height=256,
    )
    spec.add_texture(
        name="tiles",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        mark=mujoco.mjtMark.mjMARK_EDGE,
        markrgb=FLOOR_JOINT,
        rgb1=FLOOR_LIGHT,
        rgb2=FLOOR_DARK,
        width=512,
        height=512,
    )
    floor = spec.add_material(
        name="floor", texuniform=True, texrepeat=(FLOOR_TILES / 2, FLOOR_TILES / 2), specular=0.1, reflectance=0.08
    )
    floor.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "tiles"


def _add_finishes(spec: mujoco.MjSpec) -> None:
    for name, finish in FINISHES.items():
        spec.add_material(name=name, **finish)
    for geom in spec.geoms:
        if geom.group == VISUAL_GROUP:
            geom.material = _finish(geom.name)
    spec.geom("floor").rgba = (1.0, 1.0, 1.0, 1.0)  # the tiles' own colours


def _finish(geom: str) -> str:
    if geom in ("floor", "table_visual"):
        return geom.removesuffix("_visual")
    return "paint" if geom.startswith(("robot0_", "gripper0_")) else "satin"


def _light(spec: mujoco.MjSpec) -> None:
    (lamp,) = spec.lights
    lamp.pos, lamp.dir = (0.1, -0.9, 2.2), (0.16, 0.45, -1.0)
    lamp.diffuse, lamp.castshadow = LAMP_DIFFUSE, True
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=(1.5, 1.0, 1.5),
        dir=(-0.6, -0.4, -0.6),
        diffuse=FILL_DIFFUSE,
        specular=np.zeros(3),
        castshadow=False,
    )
    headlight = spec.visual.headlight
    headlight.ambient, headlight.diffuse, headlight.specular = AMBIENT, HEADLIGHT, np.zeros(3)
    spec.visual.quality.shadowsize = SHADOW_SIZE
