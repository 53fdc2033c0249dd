"""robosuite model of a task's scene: its table, made as large as ours, our FR3 and the task's objects."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import mujoco
import numpy as np
from robosuite.models.arenas import TableArena
from robosuite.models.objects import MujocoGeneratedObject
from robosuite.models.tasks import ManipulationTask

from oc_residual_gym.bridge.robot import FR3
from oc_residual_gym.robots.geoms import FIXTURE_BITS, SUPPLEMENT
from oc_residual_gym.robots.mjcf import body_element, camera_element, hull_element, settings_elements, text
from oc_residual_gym.tasks.base import TABLE_TOP_SIZE, Task
from oc_residual_gym.tasks.objects import ObjectSpec
from oc_residual_gym.worlds.arena import (
    LAMP_DIFFUSE,
    TABLE_CENTER_X,
    TABLE_COLOR,
    TABLE_FRICTION,
    TABLE_HEIGHT,
    TABLE_THICKNESS,
)
from oc_residual_gym.worlds.scene import add_camera, add_cameras, empty_scene
from oc_residual_gym.worlds.scene_objects import add_object

FRONT_CAMERA = {"position": (1.25, 0.0, 0.9), "target": (0.42, 0.0, 0.12), "fovy": 42.0}
"""Opposite the robot, as robosuite's devices expect: "up" is away from the viewer, "right" to the right. High
enough to look over the cabinet; metres in the base frame, degrees."""


class SceneObject(MujocoGeneratedObject):
    """robosuite model of an :class:`ObjectSpec`; its bodies are ``<name>_main`` and ``<name>_<drawer>``."""

    def __init__(self, spec: ObjectSpec):
        # Our geoms that are only seen have other bits and colours than robosuite's twins of collision geoms.
        super().__init__(duplicate_collision_geoms=False)
        self._name = spec.name
        self.spec = spec
        model = mujoco.MjSpec()
        self._obj = body_element(add_object(model, spec, prefix=""))
        for mesh in model.meshes:
            element = hull_element(mesh)
            # robosuite prefixes an object's bodies, and not its assets.
            element.set("name", f"{spec.name}_{mesh.name}")
            self.asset.append(element)
        self._get_object_properties()

    @property
    def bottom_offset(self) -> np.ndarray:
        return np.array([0.0, 0.0, -self._extent()[2]])

    @property
    def top_offset(self) -> np.ndarray:
        return np.array([0.0, 0.0, self._extent()[2]])

    @property
    def horizontal_radius(self) -> float:
        return float(np.linalg.norm(self._extent()[:2]))

    def _extent(self) -> np.ndarray:
        """Half sizes of an axis-aligned box around all geoms (upper bound), in metres."""
        reach = [np.abs(g.pos) + np.linalg.norm(g.size) for g in self.spec.geoms if g.type != "mesh"]
        corners = [np.abs(g.vertices).max(axis=0) for g in self.spec.geoms if g.type == "mesh"]
        return np.max([*reach, *corners], axis=0)


def compose_around(robot: FR3, task: Task) -> ManipulationTask:
    """The scene of ``task`` around a robot that has its base and its hand already, with our physics and cameras."""
    arena = TableArena(
        table_full_size=(*TABLE_TOP_SIZE, TABLE_THICKNESS),
        table_friction=(TABLE_FRICTION, *SUPPLEMENT),
        table_offset=(TABLE_CENTER_X, 0.0, TABLE_HEIGHT),
    )
    # The floor follows the table's offset.
    arena.set_origin([0.0, 0.0, -TABLE_HEIGHT])
    _simplify_arena(arena.root)
    model = ManipulationTask(arena, [robot], [SceneObject(spec) for spec in task.specs])
    _take_settings(model.root, task)
    return model


def _simplify_arena(root: Element) -> None:
    """Drop robosuite's walls and cameras; set collision bits; make the table plain."""
    world = _section(root, "worldbody")
    for light in world.iter("light"):
        light.set("diffuse", text(LAMP_DIFFUSE))
    for child in list(world):
        if child.tag == "camera" or child.get("name", "").startswith("wall_"):
            world.remove(child)
    for geom in world.iter("geom"):
        name = geom.get("name", "")
        if name in ("floor", "table_collision"):
            for key, value in FIXTURE_BITS.items():
                geom.set(key, str(value))
        if name == "table_visual":
            # White objects must stand out from it.
            geom.attrib.pop("material", None)
            geom.set("rgba", text(TABLE_COLOR))


def _take_settings(root: Element, task: Task) -> None:
    """Give the model ``root`` the project's physics, lights and cameras instead of robosuite's."""
    for tag in ("option", "size", "visual", "statistic"):
        for element in root.findall(tag):
            root.remove(element)
    spec = empty_scene(task.name)
    add_cameras(spec)
    add_camera(spec, "frontview", FRONT_CAMERA)
    root.extend(settings_elements(spec))
    _section(root, "worldbody").extend(camera_element(camera) for camera in spec.cameras)


def _section(root: Element, tag: str) -> Element:
    section = root.find(tag)
    assert section is not None, f"robosuite's models have a section {tag!r}"
    return section
