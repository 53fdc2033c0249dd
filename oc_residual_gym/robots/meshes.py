"""The meshes of robosuite's Panda for people's pictures, where robosuite is installed: its files, not its code."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

from oc_residual_gym.robots.constants import ARM_LINKS
from oc_residual_gym.robots.fr3 import GRIPPER, ROBOT
from oc_residual_gym.robots.geoms import NO_BITS, VISUAL_GROUP, quaternion
from oc_residual_gym.robots.hand import FROM_HAND_FRAME

_ROBOT_FILE, _GRIPPER_FILE = Path("robots/panda/robot.xml"), Path("grippers/panda_gripper.xml")


def show_meshes(spec: mujoco.MjSpec) -> None:
    """Show the FR3 in ``spec`` with meshes instead of primitives, if robosuite is installed."""
    package = find_spec("robosuite")
    if package is None or package.origin is None:
        return
    assets = Path(package.origin).parent / "models" / "assets"
    arm = mujoco.MjSpec.from_file(str(assets / _ROBOT_FILE))
    for link in ARM_LINKS:
        _replace(spec, ROBOT, arm, assets / _ROBOT_FILE, link)
    hand = mujoco.MjSpec.from_file(str(assets / _GRIPPER_FILE))
    for mesh in _visuals(hand.body("right_gripper")):
        # robosuite's gripper frame is turned against Franka's hand frame, which the meshes are made for.
        mesh.quat = quaternion(FROM_HAND_FRAME)
    _drop_visuals(spec, spec.body(f"{GRIPPER}hand"))
    for body in ("right_gripper", "leftfinger", "rightfinger"):
        _replace(spec, GRIPPER, hand, assets / _GRIPPER_FILE, body)


def _visuals(body: mujoco.MjsBody) -> list[mujoco.MjsGeom]:
    return [geom for geom in body.geoms if geom.group == VISUAL_GROUP]


def _drop_visuals(spec: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    for geom in _visuals(body):
        spec.delete(geom)


def _replace(spec: mujoco.MjSpec, prefix: str, source: mujoco.MjSpec, file: Path, name: str) -> None:
    """Give the body the visible geoms of the body with this name in ``source``, which was read from ``file``."""
    body = spec.body(prefix + name)
    _drop_visuals(spec, body)
    for geom in _visuals(source.body(name)):
        mesh, material = prefix + geom.meshname, prefix + geom.material
        if spec.mesh(mesh) is None:
            spec.add_mesh(name=mesh, file=str(file.parent / source.mesh(geom.meshname).file))
        look = {"rgba": geom.rgba}
        if geom.material:
            look = {"material": material}
            if spec.material(material) is None:
                original = source.material(geom.material)
                finish = {"specular": original.specular, "shininess": original.shininess}
                spec.add_material(name=material, rgba=original.rgba, **finish)
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=mesh,
            pos=geom.pos,
            quat=geom.quat,
            group=VISUAL_GROUP,
            mass=0.0,
            **NO_BITS,
            **look,
        )
