"""Demonstrations of random numbers, for tests of writers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from demos_replay.demo import Demo

TOOL_DOWN = Rotation.from_quat([1.0, 0.0, 0.0, 0.0])


def make_demo(seed: int = 0, steps: int = 12, cameras: tuple[str, ...] = (), **changes: Any) -> Demo:
    """A tool that looks down and turns, with targets some millimetres ahead; all different for every ``seed``."""
    rng = np.random.default_rng(seed)
    rows = steps + 1
    walk = np.cumsum(rng.normal(0.0, 0.003, (rows, 3)), axis=0)
    turn = Rotation.from_rotvec(np.cumsum(rng.normal(0.0, 0.02, (rows, 3)), axis=0))
    start = Rotation.from_euler("z", rng.uniform(-2.0, 2.0))
    rotation = start * TOOL_DOWN * turn
    tcp_pose = np.concatenate([np.array([0.45, 0.0, 0.25]) + walk, _continuous(rotation.as_quat(), 0)], axis=1)
    ahead = rotation[:-1] * Rotation.from_rotvec(rng.normal(0.0, 0.03, (steps, 3)))
    target_quat = ahead.as_quat()
    target_quat *= np.where((target_quat * tcp_pose[:-1, 3:]).sum(1) < 0, -1.0, 1.0)[:, None]
    position = tcp_pose[:-1, :3] + rng.normal(0.0, 0.004, (steps, 3))
    opening = (np.arange(steps) < steps // 2).astype(float)
    values: dict[str, Any] = {
        "name": f"log{seed}/demo_1",
        "task": "PickPlace",
        "instruction": "pick up the red block and place it on the plate",
        "success": True,
        "failure": None,
        "target": np.concatenate([position, target_quat, opening[:, None]], axis=1),
        "reward": -rng.random(steps),
        "tcp_pose": tcp_pose,
        "tcp_velocity": rng.normal(size=(rows, 6)),
        "joint_positions": rng.normal(size=(rows, 7)),
        "joint_velocities": rng.normal(size=(rows, 7)),
        "gripper_width": rng.uniform(0.0, 0.08, rows),
        "gripper_closed": rng.random(rows) < 0.5,
        "wrench": rng.normal(0.0, 5.0, (rows, 6)),
        "objects": {name: _object(rng, rows) for name in ("plate", "block")},
        "qpos": rng.normal(size=(rows, 23)),
        "images": {camera: _pictures(rng, rows) for camera in cameras},
        "report": {"source": f"log{seed}.hdf5", "drift": {"position_mm": 1.5}, "assumptions": ["the table is flat"]},
    }
    return Demo(**(values | changes))


def _object(rng: np.random.Generator, rows: int) -> np.ndarray:
    turn = Rotation.from_rotvec(np.cumsum(rng.normal(0.0, 0.05, (rows, 3)), axis=0))
    return np.concatenate([rng.normal(0.4, 0.1, (rows, 3)), _continuous(turn.as_quat(), 3)], axis=1)


def _pictures(rng: np.random.Generator, rows: int) -> np.ndarray:
    """A soft gradient and a square that jumps from picture to picture, (rows, 128, 128, 3)."""
    gradient = np.linspace(0, 200, 128)[:, None, None] * np.array([1.0, 0.6, 0.3])
    pictures = np.broadcast_to(gradient, (rows, 128, 128, 3)).astype(np.uint8)
    for picture, corner in zip(pictures, rng.integers(0, 96, (rows, 2)), strict=True):
        picture[corner[0] : corner[0] + 32, corner[1] : corner[1] + 32] = (30, 200, 60)
    return pictures


def _continuous(quaternions: np.ndarray, entry: int) -> np.ndarray:
    result = quaternions * np.sign(quaternions[0, entry])
    for before, row in pairwise(result):
        if before @ row < 0:
            row *= -1.0
    return result
