"""Numbers of the Franka Research 3 and the Franka Hand, for simulation and real robot alike.

``fr3.json`` holds link inertias, joint origins and limits, extracted from Franka's own robot description
(https://github.com/frankarobotics/franka_description, ``robots/fr3``, Apache-2.0). Lengths are in m, angles
in rad.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import numpy as np

from oc_residual_gym.states import Array

DATA_FILES = ("fr3.json",)
"""Results depend on them, as on code: see :mod:`oc_residual_gym.syntax`."""

FR3_DESCRIPTION: dict[str, Any] = json.loads(
    resources.files(__package__).joinpath(*DATA_FILES).read_text(encoding="utf-8")
)
"""``links`` (``link0`` ..): mass, com, inertia about the com; ``joints`` (``joint1`` ..): origin, limits."""

ARM_LINKS = tuple(f"link{i}" for i in range(8))
ARM_JOINTS = tuple(f"joint{i}" for i in range(1, 8))


def _limits(key: str) -> Array:
    return np.array([float(FR3_DESCRIPTION["joints"][joint]["limit"][key]) for joint in ARM_JOINTS])


# Franka Research 3 datasheet, "joint position limits": a few mrad inside those of the robot description.
_DATASHEET_LOWER = np.array([-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159])
_DATASHEET_UPPER = np.array([2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159])

JOINT_LOWER: Array = np.maximum(_limits("lower"), _DATASHEET_LOWER)
"""(7,) rad, the tighter of datasheet and robot description."""
JOINT_UPPER: Array = np.minimum(_limits("upper"), _DATASHEET_UPPER)
"""(7,) rad, the tighter of datasheet and robot description."""
JOINT_VELOCITY_LIMIT: Array = _limits("velocity")
"""(7,) rad/s. The simulation does not enforce it; the rate limit on targets stays far below."""
JOINT_TORQUE_LIMIT: Array = _limits("effort")
"""(7,) Nm."""

HOME_JOINT_POSITIONS: Array = np.array(
    [0.0, -0.32534420895648036, 0.0, -2.550864525920069, 0.0, 2.2255203169635887, np.pi / 4]
)
"""(7,) rad: TCP at (0.42, 0, 0.28) m, tool straight down, hand x along base x, elbow up, arm in its plane."""

HAND_OFFSET = 0.107
"""Flange and the hand's frame from link 7's frame along its z, m."""
HAND_ROTATION = -np.pi / 4
"""Turn of the hand's frame about that z, rad."""
TCP_OFFSET = 0.1034
"""Franka's nominal TCP from the hand frame along its z, m."""

MAX_OPENING = 0.08
"""Greatest distance between the fingertips, m (Franka Hand product manual)."""
FINGER_SPEED = 0.1
"""Greatest speed of that distance, m/s (product manual: 50 mm/s a finger)."""
GRASP_FORCE = 40.0
"""Force with which each fingertip presses on a held object, N (the hand allows 30 to 70 N continuously)."""

for _array in (JOINT_LOWER, JOINT_UPPER, JOINT_VELOCITY_LIMIT, JOINT_TORQUE_LIMIT, HOME_JOINT_POSITIONS):
    _array.flags.writeable = False
