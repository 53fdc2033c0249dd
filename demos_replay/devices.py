"""A base policy driven by a person at a robosuite device (keyboard, SpaceMouse, DualSense)."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from oc_residual_gym.envs.actions import RATE_POSITION, RATE_ROTATION
from oc_residual_gym.errors import BasePolicyError, one_of
from oc_residual_gym.geometry import quat_from_rotvec, quat_multiply
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.states import Array, IntArray

DEVICES = {"keyboard": "Keyboard", "spacemouse": "SpaceMouse", "dualsense": "DualSense"}
"""Device name to the name of robosuite's class."""


class DeviceError(Exception):
    """A device cannot be used; the message says what to install or to connect."""


class DevicePolicy:
    """Base policy that moves the last executed target by the device's input, within the rate limits; for one world.

    The device's reset control aborts the demonstration.
    """

    hash: str | None = None
    horizon = 1
    needs: frozenset[str] = frozenset()

    def __init__(self, name: str, device: Any):
        self.name = name
        self._device = device

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        self._device.start_control()

    def predict(self, view: PolicyView) -> Array:
        state = self._device.get_controller_state()
        if state["reset"]:
            raise BasePolicyError("given up at the device")
        # Order and sign of the angles are robosuite's (Device.input2action).
        turn = state["raw_drotation"][[1, 0, 2]] * [1.0, 1.0, -1.0]
        # robosuite scales the output of its devices to [-1, 1] with device-specific gains.
        move, turn = self._device._postprocess_device_outputs(state["dpos"], turn)
        target = view.previous_target.copy()
        target[:, :3] += RATE_POSITION * np.asarray(move)
        target[:, 3:7] = quat_multiply(quat_from_rotvec(RATE_ROTATION * np.asarray(turn)), target[:, 3:7])
        target[:, 7] = 0.0 if state["grasp"] else 1.0
        return target[:, None]


def connect(name: str) -> DevicePolicy:
    """Connect to the device ``name`` and return its policy.

    Raises:
        DeviceError: the device is unknown or not connected, or its driver is missing.
    """
    kind = DEVICES[one_of("device", name, DEVICES, DeviceError)]
    try:
        import oc_residual_gym.bridge  # noqa: F401  # imports robosuite, or says which extra brings it
    except ImportError as error:
        raise DeviceError(f"cannot use the {name}: {error}") from error
    # The devices only ask the environment how many arms it has.
    one_arm = SimpleNamespace(robots=[SimpleNamespace(arms=["right"])])
    try:
        from robosuite import devices

        return DevicePolicy(name, getattr(devices, kind)(one_arm))
    except Exception as error:  # drivers raise anything: OSError, ImportError, bare Exception
        remedy = "run it on a desktop with a display" if name == "keyboard" else "connect it, and `pip install hidapi`"
        raise DeviceError(f"cannot use the {name} ({type(error).__name__}: {error}): {remedy}") from error
