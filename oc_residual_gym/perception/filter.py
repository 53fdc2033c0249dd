"""The pose filter: from tracked poses to those a policy sees; the same code in simulation and on the robot.

Each control step, for every object that was seen:

1. Symmetry. Among the poses that look alike, the one nearest to the last filtered rotation is taken, so
   that the rotation never jumps where the tracker changes its mind. The first pose of an episode is the one
   nearest to the identity rotation, so that the same physical state starts with the same observation.
   (Where two are equally near, as for a cube at a yaw of 45 degrees, noise picks the first one.)
2. One-Euro smoothing (Casiez, Roussel and Vogel, CHI 2012) of position and rotation: a low-pass whose
   cutoff rises with the speed of the object, the same for the three axes so that the result does not depend
   on the frame. Rotations are smoothed as rotation vectors from the last filtered rotation. The first pose
   passes unsmoothed.

An object that was not seen keeps its last filtered pose and grows older. When it is seen again the time in
between counts: the longer the gap, the more of the new pose is taken over.

With the constants below, at rest, the "paper" error model's standard deviations of 1.7 mm and 1.0 degrees
an axis become 0.7 mm and 0.5 degrees, and the jitter of "tracker", 1 mm and 0.5 degrees, becomes 0.4 mm and
0.2 degrees. The filtered pose lags 5 mm behind a motion at 0.2 m/s and 1.2 degrees behind a rotation at 0.6
rad/s (which are the fastest targets), and at most 7 mm and 1.6 degrees while the motion sets off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from oc_residual_gym.geometry import (
    IDENTITY_QUATERNION,
    Array,
    norm,
    quat_conjugate,
    quat_multiply,
)

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

# Angle in rad between the poses that look alike. They are turned about the object's own z axis only: a cube
# that was tipped over onto another face is another pose.
SYMMETRIES = {"none": 2 * np.pi, "yaw_180": np.pi, "yaw_90": np.pi / 2, "axis_z": 0.0}

# Smoothing of (position, rotation); speeds in m/s and rad/s.
MIN_CUTOFF = np.array([0.5, 0.5])  # Hz, at rest
BETA = np.array([20.0, 4.0])  # Hz per m/s, Hz per rad/s
SPEED_CUTOFF = 2.0  # Hz, of the low-pass on the speed itself

NEVER = 2**62  # age of an object that was not seen since the reset


class PoseFilter:
    """Filter of the poses of K objects in N worlds.

    Args:
        symmetries: of each object ``(K,)``, the rotations about its own z axis that look alike: "none",
            "yaw_180" or "yaw_90" (multiples of that angle), "axis_z" (any angle).
        num_worlds: number of worlds N.
        control_frequency: updates a second, Hz.

    Attributes:
        poses: filtered poses ``(N, K, 7)``; NaN until an object was first seen after a reset.
        valid: whether the object was seen in the last update ``(N, K)``.
        age: control steps since the object was last seen ``(N, K)``; at least ``NEVER`` if not since reset.

    Raises:
        ValueError: if a symmetry is unknown.
    """

    def __init__(self, symmetries: Sequence[str], num_worlds: int, control_frequency: float = 20.0) -> None:
        for symmetry in symmetries:
            if symmetry not in SYMMETRIES:
                names = ", ".join(map(repr, SYMMETRIES))
                raise ValueError(f"unknown object symmetry {symmetry!r}; choose one of {names}")
        self._period = 1.0 / control_frequency
        half_step = np.array([0.5 * SYMMETRIES[symmetry] for symmetry in symmetries])
        self._any_angle = half_step == 0.0
        self._half_step = np.where(self._any_angle, 1.0, half_step)  # 1 only keeps the division defined

        shape = (num_worlds, len(symmetries))
        self._last = np.zeros((*shape, 7))  # as `poses`, with the reference of the first pose instead of NaN
        self._speed = np.zeros((*shape, 2, 3))  # smoothed velocities of position and rotation, m/s and rad/s
        self.poses = np.zeros((*shape, 7))
        self.valid = np.zeros(shape, dtype=bool)
        self.age = np.zeros(shape, dtype=np.int64)
        self.reset(np.arange(num_worlds))

    def reset(self, worlds: IntArray) -> None:
        """Forget the objects of ``worlds``: a new episode starts there."""
        self._last[worlds] = [0.0, 0.0, 0.0, *IDENTITY_QUATERNION]
        self._speed[worlds] = 0.0
        self.poses[worlds] = np.nan
        self.valid[worlds] = False
        self.age[worlds] = NEVER

    def update(self, poses: Array, valid: BoolArray, worlds: IntArray | None = None) -> None:
        """Take in the tracked poses of one control step.

        Args:
            poses: tracked poses in the base frame, ``(N, K, 7)``; where not valid they may be NaN.
            valid: whether the object was seen in this step, ``(N, K)``.
            worlds: the worlds that advance; ``None`` means all. The others keep their state.
        """
        advancing: BoolArray | bool = True
        seen = valid
        if worlds is not None:
            advancing = np.zeros((len(self.age), 1), dtype=bool)
            advancing[worlds] = True
            seen = valid & advancing

        elapsed = (self._period * (self.age + 1.0))[..., None]
        axis, half_angle = self._nearest_rotation(poses[..., 3:])
        increment = np.empty_like(self._speed)  # (N, K, 2, 3): position, rotation vector
        np.subtract(poses[..., :3], self._last[..., :3], out=increment[..., 0, :])
        np.multiply(axis, 2.0 * half_angle, out=increment[..., 1, :])

        weight = _low_pass_weight(SPEED_CUTOFF, elapsed)[..., None]
        speed = self._speed + weight * (increment / elapsed[..., None] - self._speed)
        weight = _low_pass_weight(MIN_CUTOFF + BETA * norm(speed), elapsed)

        filtered = np.empty_like(self._last)
        np.add(self._last[..., :3], weight[..., :1] * increment[..., 0, :], out=filtered[..., :3])
        half_angle *= weight[..., 1:]
        rotation = np.empty_like(self._last[..., 3:])
        np.multiply(axis, np.sin(half_angle), out=rotation[..., :3])
        np.cos(half_angle, out=rotation[..., 3:])
        filtered[..., 3:] = quat_multiply(self._last[..., 3:], rotation)

        taken = seen[..., None]
        self._last = np.where(taken, filtered, self._last)
        self._speed = np.where(taken[..., None], speed, self._speed)
        self.poses = np.where(taken, filtered, self.poses)
        self.valid = seen if worlds is None else np.where(advancing, seen, self.valid)
        self.age = np.where(seen, 0, self.age + advancing)

    def _nearest_rotation(self, quats: Array) -> tuple[Array, Array]:
        """Axis ``(N, K, 3)`` and half angle ``(N, K, 1)`` from the last rotations to the nearest alike."""
        relative = quat_multiply(quat_conjugate(self._last[..., 3:]), quats)
        # The twist about the object's z axis is undone as far as the symmetry has steps to do so. With "none"
        # the only step is a full turn, which picks the quaternion's sign that turns the short way.
        half_twist = np.arctan2(relative[..., 2], relative[..., 3])
        steps = np.rint(half_twist / self._half_step)
        half_undone = np.where(self._any_angle, half_twist, self._half_step * steps)
        yaw = np.zeros_like(relative)
        yaw[..., 2] = -np.sin(half_undone)
        yaw[..., 3] = np.cos(half_undone)
        nearest = quat_multiply(relative, yaw)
        sine = norm(nearest[..., :3])[..., None]
        axis = nearest[..., :3] / np.maximum(sine, 1e-12)
        return axis, np.arctan2(sine, nearest[..., 3:])


def _low_pass_weight(cutoff: Array | float, elapsed: Array) -> Array:
    """Weight of a sample ``elapsed`` seconds after the last in a first-order low-pass of that cutoff, Hz."""
    ratio = (2.0 * np.pi) * cutoff * elapsed
    return ratio / (1.0 + ratio)
