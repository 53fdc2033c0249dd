"""Floor, table and lamp of every scene, around which the robot and the task's objects stand.

The numbers are those of robosuite's ``TableArena`` that shaped the models of v0; the table top is at z = 0.
"""

from __future__ import annotations

import mujoco

from oc_residual_gym.robots.geoms import COLLISION_GROUP, FIXTURE_BITS, NO_BITS, SUPPLEMENT, VISUAL_GROUP
from oc_residual_gym.robots.shapes import Color
from oc_residual_gym.tasks.base import TABLE_TOP_SIZE

TABLE_FRICTION = 0.5
"""Wood and metal on a coated table top."""
TABLE_CENTER_X = 0.3
"""Metres in front of the robot's base (the paper's table)."""
TABLE_THICKNESS = 0.05
"""Metres."""
TABLE_HEIGHT = 0.8
"""Metres of the table top above the floor."""
LEG_RADIUS, LEG_INSET = 0.025, 0.1
"""Metres; the inset is that of a leg's axis from the table's edges."""

FLOOR_SIZE = (3.0, 3.0, 0.125)
"""Half sizes of what is drawn of the plane, in metres, and the spacing of its grid."""
FLOOR_COLOR: Color = (0.82, 0.82, 0.80, 1.0)
TABLE_COLOR: Color = (0.72, 0.70, 0.66, 1.0)
"""White objects must stand out from it."""
LEG_COLOR: Color = (0.45, 0.45, 0.47, 1.0)

LAMP_POSITION, LAMP_DIRECTION = (1.0, 1.0, 0.7), (-0.2, -0.2, -1.0)
"""Metres in the base frame; the light's rays are parallel."""
LAMP_DIFFUSE, LAMP_SPECULAR = (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)


def add_arena(spec: mujoco.MjSpec) -> None:
    """Add the floor, the table (body ``table``, site ``table_top``) and a lamp without shadows."""
    world = spec.worldbody
    world.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=(0.0, 0.0, -TABLE_HEIGHT),
        size=FLOOR_SIZE,
        group=VISUAL_GROUP,
        rgba=FLOOR_COLOR,
        **FIXTURE_BITS,
    )
    _add_table(world)
    world.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=LAMP_POSITION,
        dir=LAMP_DIRECTION,
        diffuse=LAMP_DIFFUSE,
        specular=LAMP_SPECULAR,
        castshadow=False,
    )


def _add_table(world: mujoco.MjsBody) -> None:
    half = (TABLE_TOP_SIZE[0] / 2, TABLE_TOP_SIZE[1] / 2, TABLE_THICKNESS / 2)
    center = TABLE_HEIGHT - half[2]  # from the floor up; in this order the last digit is v0's
    table = world.add_body(name="table", pos=(TABLE_CENTER_X, 0.0, center - TABLE_HEIGHT))
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": half}
    friction = (TABLE_FRICTION, *SUPPLEMENT)
    table.add_geom(
        name="table_collision", group=COLLISION_GROUP, friction=friction, rgba=LEG_COLOR, **FIXTURE_BITS, **box
    )
    table.add_geom(name="table_visual", group=VISUAL_GROUP, rgba=TABLE_COLOR, **NO_BITS, **box)
    table.add_site(name="table_top", pos=(0.0, 0.0, half[2]), size=(0.001, 0.001, 0.001), rgba=(0.0, 0.0, 0.0, 0.0))
    x, y = half[0] - LEG_INSET, half[1] - LEG_INSET
    for i, (side_x, side_y) in enumerate(((1, 1), (-1, 1), (-1, -1), (1, -1))):
        table.add_geom(
            name=f"table_leg{i + 1}_visual",
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            pos=(side_x * x, side_y * y, -center / 2),
            size=(LEG_RADIUS, center / 2, 0.0),
            group=VISUAL_GROUP,
            rgba=LEG_COLOR,
            **NO_BITS,
        )
