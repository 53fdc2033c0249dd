"""A scripted operator in robosuite's own tasks, recorded into raw files by robosuite's own collector."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import robosuite
from robosuite.controllers import load_composite_controller_config
from robosuite.scripts.collect_human_demonstrations import gather_demonstrations_as_hdf5
from robosuite.wrappers import DataCollectionWrapper
from scipy.spatial.transform import Rotation

Array = np.ndarray

OPEN, CLOSE = -1.0, 1.0
POSITION_SCALE, ROTATION_SCALE = 0.05, 0.5  # m and rad per action of 1, robosuite's default OSC_POSE
SPEED = 0.6  # fraction of that which the operator uses at most
REACHED = 0.006


@dataclass(frozen=True)
class Truth:
    """True state of the simulation in the world frame, one row per recorded state."""

    states: Array
    grip_site: Array
    fingers: Array
    """(T, 3) from one finger's pad to the other's."""
    objects: dict[str, Array]
    """Poses (T, 7) of their bodies."""
    base: Array
    """Position (3,) of the robot's base."""


class Operator:
    """Drives one episode and notes the truth before every step.

    Args:
        env: robosuite environment.
        absolute: frame ("world" or "base") of absolute pose actions; None for delta actions.
    """

    def __init__(self, env: Any, absolute: str | None = None) -> None:
        self.env, self.absolute = env, absolute
        env.reset()
        self.rows: list[tuple[Array, Array, Array, dict[str, Array]]] = []

    def grip_site(self) -> Array:
        data, site = self.env.sim.data, self.env.robots[0].eef_site_id["right"]
        quat = Rotation.from_matrix(data.site_xmat[site].reshape(3, 3)).as_quat()
        return np.concatenate([data.site_xpos[site], quat])

    def fingers(self) -> Array:
        model, data = self.env.sim.model, self.env.sim.data
        pads = self.env.robots[0].gripper["right"].important_geoms
        left, right = (data.geom_xpos[model.geom_name2id(pads[f"{side}_fingerpad"][0])] for side in ("left", "right"))
        return right - left

    def objects(self) -> dict[str, Array]:
        model, data = self.env.sim.model, self.env.sim.data
        names = [name for name in model.body_names if name.endswith("_main") and not name.startswith("Visual")]
        bodies = {name.removesuffix("_main"): model.body_name2id(name) for name in names}
        return {
            name: np.concatenate([data.body_xpos[i], data.body_xquat[i][[1, 2, 3, 0]]]) for name, i in bodies.items()
        }

    def step(self, position: Array, yaw: float, gripper: float) -> float:
        """Move one step towards a grip site position, tool down at ``yaw``; return the remaining distance."""
        # After a step, body poses are those before its last substep.
        self.env.sim.forward()
        state = self.env.sim.get_state().flatten()
        pose = self.grip_site()
        self.rows.append((state, pose, self.fingers(), self.objects()))
        down = Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)
        turn = (down * Rotation.from_quat(pose[3:]).inv()).as_rotvec()
        move = np.concatenate([(position - pose[:3]) / POSITION_SCALE, turn / ROTATION_SCALE])
        action = np.clip(move, -SPEED, SPEED)
        if self.absolute is not None:
            goal = Rotation.from_rotvec(action[3:] * ROTATION_SCALE) * Rotation.from_quat(pose[3:])
            origin = self.env.robots[0].base_pos if self.absolute == "base" else np.zeros(3)
            action = np.concatenate([pose[:3] + action[:3] * POSITION_SCALE - origin, goal.as_rotvec()])
        self.env.step(np.append(action, gripper))
        return float(np.linalg.norm(position - pose[:3]) + 0.1 * np.linalg.norm(turn))

    def go(self, position: Array, yaw: float, gripper: float, steps: int = 80) -> None:
        for _ in range(steps):
            if self.step(position, yaw, gripper) < REACHED:
                break

    def hold(self, gripper: float, steps: int, yaw: float) -> None:
        position = self.grip_site()[:3]
        for _ in range(steps):
            self.step(position, yaw, gripper)

    def grasp(self, name: str, yaw: float | None = None) -> float:
        """Grasp an object from above, by its sides unless ``yaw`` is given; return the tool's yaw."""
        pose = self.objects()[name]
        if yaw is None:
            turn = Rotation.from_quat(pose[3:]).as_euler("xyz")[2]
            yaw = (turn + np.pi / 4) % (np.pi / 2) - np.pi / 4
        self.go(pose[:3] + up(0.1), yaw, OPEN)
        self.go(pose[:3], yaw, OPEN)
        self.hold(CLOSE, 15, yaw)
        self.go(pose[:3] + up(0.15), yaw, CLOSE)
        return yaw

    def release(self, yaw: float) -> None:
        self.hold(OPEN, 12, yaw)
        self.go(self.grip_site()[:3] + up(0.1), yaw, OPEN)
        self.hold(OPEN, 10, yaw)

    def truth(self) -> Truth:
        states, sites, fingers, objects = zip(*self.rows, strict=True)
        return Truth(
            states=np.array(states),
            grip_site=np.array(sites),
            fingers=np.array(fingers),
            objects={name: np.array([row[name] for row in objects]) for name in objects[0]},
            base=np.array(self.env.robots[0].base_pos),
        )


def up(height: float) -> Array:
    return np.array([0.0, 0.0, height])


def lift(operator: Operator) -> None:
    yaw = operator.grasp("cube")
    operator.hold(CLOSE, 10, yaw)


def stack(operator: Operator) -> None:
    yaw = operator.grasp("cubeA")
    held = operator.grip_site()[:3] - operator.objects()["cubeA"][:3]
    above = operator.objects()["cubeB"][:3] + held
    operator.go(above + up(0.12), yaw, CLOSE)
    operator.go(above + up(0.046), yaw, CLOSE)
    operator.release(yaw)


def pick_place_can(operator: Operator) -> None:
    yaw = operator.grasp("Can", yaw=0.0)
    env = operator.env
    place = np.array(env.target_bin_placements[env.object_to_id["can"]])
    operator.go(place + up(0.25), yaw, CLOSE)
    operator.go(place + up(0.1), yaw, CLOSE)
    operator.release(yaw)


def wander(operator: Operator) -> None:
    """Move and use the gripper a little, without success."""
    position = operator.grip_site()[:3]
    operator.go(position + np.array([0.05, 0.04, -0.06]), 0.3, OPEN, steps=12)
    operator.hold(CLOSE, 6, 0.3)
    operator.go(position, -0.2, CLOSE, steps=12)


Script = Callable[[Operator], None]
SCRIPTS: dict[str, Script] = {"Lift": lift, "Stack": stack, "PickPlaceCan": pick_place_can}


def record(
    path: Path,
    task: str,
    demos: int = 1,
    seed: int = 0,
    robot: str = "Panda",
    absolute: str | None = None,
    script: Script | None = None,
) -> list[Truth]:
    """Record a raw robosuite file of ``demos`` episodes; return the truth about each, in any order.

    With the task's own script only successful episodes are kept, as in robosuite; with another one, all.
    """
    controller = load_composite_controller_config(controller=None, robot=robot)
    if absolute is not None:
        controller["body_parts"]["right"] |= {"input_type": "absolute", "input_ref_frame": absolute}
    settings = {"env_name": task, "robots": [robot], "controller_configs": controller}
    rendering = {"has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False}
    env = robosuite.make(**settings, **rendering, ignore_done=True, control_freq=20, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        episodes = DataCollectionWrapper(env, folder)
        truths = []
        for _ in range(demos):
            operator = Operator(episodes, absolute)
            (script or SCRIPTS[task])(operator)
            episodes.successful |= script is not None
            truths.append(operator.truth())
        episodes.close()
        with tempfile.TemporaryDirectory() as out:
            gather_demonstrations_as_hdf5(folder, out, json.dumps(settings))
            shutil.move(Path(out) / "demo.hdf5", path)
    return truths
