"""Physics domains: "nominal"; "randomised", for training; and "twin", held out for tests of zero-shot transfer.

Values are drawn once per episode, from the episode's own generator. "nominal" and "twin" are frozen in v0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import mujoco
import numpy as np

from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.robots.reflex import Reflex
from oc_residual_gym.states import Array


@dataclass(frozen=True)
class EpisodePhysics:
    """Physics of one episode, as changes to the nominal simulation."""

    friction: float = 1.0
    """Factor on every sliding friction coefficient."""
    object_mass: float = 1.0
    """Factor on the mass and inertia of the task's objects and drawers."""
    stiffness: float = 1.0
    """Factor on the impedance's stiffness; damping scales with its square root."""
    gripper_force: float = 1.0
    """Factor on the hand's grasp force."""
    gripper_speed: float = 1.0
    """Factor on the hand's speed."""
    joint_friction: Array = field(default_factory=lambda: np.zeros(7))
    """(7,) dry friction of the joints, Nm."""
    payload: float = 0.0
    """Error of the hand's mass in the robot's gravity compensation: true minus assumed mass, kilograms. The wrench
    reading is tared and does not show it; the robot's reflex feels its weight."""
    wrench_bias: Array = field(default_factory=lambda: np.zeros(6))
    """(6,) bias of the wrench estimate, N and Nm, in the reading and in what the robot's reflex feels."""
    latency: int = 0
    """Delay in control steps from a target to its execution."""
    table_height: float = 0.0
    """Height of the table top in metres; everything on the table moves with it."""
    tcp_offset: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) error of the robot's TCP position, metres in the TCP frame."""
    hand_eye_position: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) position error of the hand-eye calibration, metres in the base frame; the same for all observed poses."""
    hand_eye_rotation: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) rotation error of the hand-eye calibration, a rotation vector in radians in the base frame."""
    camera_position: Array = field(default_factory=lambda: np.zeros((2, 3)))
    """(2, 3) position errors of the shoulder and the wrist camera, metres."""
    camera_rotation: Array = field(default_factory=lambda: np.zeros((2, 3)))
    """(2, 3) rotation errors of the shoulder and the wrist camera, rotation vectors in radians."""
    inference_pause: int = 0
    """Control steps that the base policy needs to compute a chunk."""
    drawer: float = 1.0
    """Factor on the friction and damping of drawers."""


Range = tuple[float, float]
"""Bounds of a uniform distribution: lowest and highest value."""


_SPREADS = ("wrench_bias", "tcp_offset", "hand_eye", "camera")  # spreads about zero; the other drawn fields are ranges
_SIGNED = ("payload", "table_height")


@dataclass(frozen=True)
class Domain:
    """Distribution of the physics of episodes. By default, every episode is nominal.

    Raises:
        SettingsError: the lower bound of a range exceeds the upper one, or a value is negative that must not be.
    """

    friction: Range = (1.0, 1.0)
    """Factor on every sliding friction coefficient."""
    object_mass: Range = (1.0, 1.0)
    """Factor on the mass and inertia of the task's objects and drawers."""
    stiffness: Range = (1.0, 1.0)
    """Factor on the impedance's stiffness."""
    gripper_force: Range = (1.0, 1.0)
    """Factor on the hand's grasp force."""
    gripper_speed: Range = (1.0, 1.0)
    """Factor on the hand's speed."""
    joint_friction: Range = (0.0, 0.0)
    """Dry friction in Nm, drawn per joint."""
    payload: Range = (0.0, 0.0)
    """Error of the hand's mass in the robot's gravity compensation: true minus assumed mass, kilograms."""
    wrench_bias: tuple[float, float] = (0.0, 0.0)
    """Standard deviations per axis of the wrench estimate's bias, N and Nm."""
    latency: tuple[int, int] = (0, 0)
    """Smallest and largest delay in control steps from a target to its execution."""
    table_height: Range = (0.0, 0.0)
    """Height of the table top in metres."""
    tcp_offset: float = 0.0
    """Standard deviation per axis of the TCP position error, metres."""
    hand_eye: tuple[float, float] = (0.0, 0.0)
    """Standard deviations per axis of the calibration error common to all observed poses, metres and radians."""
    camera: tuple[float, float] = (0.0, 0.0)
    """Largest error per axis of the cameras' poses, metres and radians; uniform on both sides of zero."""
    inference_pause: tuple[int, int] = (0, 0)
    """Smallest and largest number of control steps that the base policy needs to compute a chunk."""
    drawer: Range = (1.0, 1.0)
    """Factor on the friction and damping of drawers."""
    reflex: Reflex = field(default_factory=Reflex)
    """External forces and torques at which the robot stops itself. Not drawn; ``Reflex(math.inf, math.inf, math.inf)``
    never stops."""

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self) if entry.name != "reflex"):
            value = getattr(self, name)
            if name not in _SPREADS and value[0] > value[1]:
                raise SettingsError(f"{name} of a domain goes from {value[0]} to {value[1]}: lesser value first")
            if name not in _SIGNED and np.min(value) < 0:
                raise SettingsError(f"{name} of a domain is {value}: it cannot be negative")

    @property
    def is_nominal(self) -> bool:
        """Whether every episode is nominal."""
        return self == DOMAINS["nominal"]

    @property
    def is_calibrated(self) -> bool:
        """Whether no episode has a hand-eye calibration error."""
        return not any(self.hand_eye)

    def sample(self, rng: np.random.Generator) -> EpisodePhysics:
        """Draw the physics of one episode."""
        if self.is_nominal:
            return EpisodePhysics()
        # Keep this order of draws: results of "twin" depend on it.
        return EpisodePhysics(
            friction=rng.uniform(*self.friction),
            object_mass=rng.uniform(*self.object_mass),
            stiffness=rng.uniform(*self.stiffness),
            gripper_force=rng.uniform(*self.gripper_force),
            gripper_speed=rng.uniform(*self.gripper_speed),
            joint_friction=rng.uniform(*self.joint_friction, size=7),
            payload=rng.uniform(*self.payload),
            wrench_bias=rng.normal(scale=np.repeat(self.wrench_bias, 3)),
            latency=int(rng.integers(*self.latency, endpoint=True)),
            table_height=rng.uniform(*self.table_height),
            tcp_offset=rng.normal(scale=self.tcp_offset, size=3),
            hand_eye_position=rng.normal(scale=self.hand_eye[0], size=3),
            hand_eye_rotation=rng.normal(scale=self.hand_eye[1], size=3),
            camera_position=rng.uniform(-self.camera[0], self.camera[0], size=(2, 3)),
            camera_rotation=rng.uniform(-self.camera[1], self.camera[1], size=(2, 3)),
            inference_pause=int(rng.integers(*self.inference_pause, endpoint=True)),
            drawer=rng.uniform(*self.drawer),
        )


DOMAINS = {
    "nominal": Domain(),
    "twin": Domain(
        friction=(0.7, 1.3),
        object_mass=(0.7, 1.5),
        stiffness=(0.8, 1.2),
        gripper_force=(0.7, 1.2),
        gripper_speed=(0.7, 1.2),
        joint_friction=(0.1, 0.6),
        payload=(-0.15, 0.15),
        wrench_bias=(1.0, 0.1),
        latency=(1, 2),
        table_height=(-0.002, 0.002),
        tcp_offset=0.001,
        hand_eye=(0.003, math.radians(0.5)),
        camera=(0.005, math.radians(1.0)),
        inference_pause=(3, 3),
        drawer=(0.6, 1.6),
    ),
    # Wide, round ranges of what may differ between cells; not fitted to "twin".
    "randomised": Domain(
        friction=(0.5, 1.5),
        object_mass=(0.5, 2.0),
        stiffness=(0.7, 1.3),
        gripper_force=(0.5, 1.25),
        gripper_speed=(0.5, 1.25),
        joint_friction=(0.0, 1.0),
        payload=(-0.2, 0.2),
        wrench_bias=(2.0, 0.2),
        latency=(0, 3),
        table_height=(-0.003, 0.003),
        tcp_offset=0.0015,
        hand_eye=(0.003, math.radians(1.0)),
        camera=(0.01, math.radians(2.0)),
        inference_pause=(0, 4),
        drawer=(0.5, 2.0),
    ),
}
"""The named domains."""


def domain_of(domain: str | Domain) -> Domain:
    """Return the domain for a name or a :class:`Domain`.

    Raises:
        SettingsError: there is no domain of this name; the message lists the valid ones.
    """
    return domain if isinstance(domain, Domain) else DOMAINS[one_of("domain", domain, DOMAINS)]


@dataclass(frozen=True)
class ModelIndex:
    """MuJoCo ids of the parts of a scene's model that a domain changes."""

    object_bodies: np.ndarray
    hand_body: int
    table_body: int
    tcp_site: int
    arm_dofs: np.ndarray
    slide_dofs: np.ndarray
    impedance_actuators: np.ndarray
    gripper_actuator: int


def apply_physics(physics: EpisodePhysics, nominal: mujoco.MjModel, model: mujoco.MjModel, index: ModelIndex) -> None:
    """Write ``physics`` into ``model``, a copy of ``nominal``. This overwrites all changes of earlier episodes."""
    model.geom_friction[:, 0] = nominal.geom_friction[:, 0] * physics.friction
    bodies, hand = index.object_bodies, index.hand_body
    model.body_mass[bodies] = nominal.body_mass[bodies] * physics.object_mass
    model.body_inertia[bodies] = nominal.body_inertia[bodies] * physics.object_mass
    # The gravity compensation keeps assuming the nominal mass of the hand.
    model.body_mass[hand] = nominal.body_mass[hand] + physics.payload
    model.body_gravcomp[hand] = nominal.body_gravcomp[hand] * nominal.body_mass[hand] / model.body_mass[hand]
    model.actuator_biasprm[index.impedance_actuators, 1] = (
        nominal.actuator_biasprm[index.impedance_actuators, 1] * physics.stiffness
    )
    model.actuator_biasprm[index.impedance_actuators, 2] = nominal.actuator_biasprm[
        index.impedance_actuators, 2
    ] * np.sqrt(physics.stiffness)
    model.actuator_forcerange[index.gripper_actuator] = (
        nominal.actuator_forcerange[index.gripper_actuator] * physics.gripper_force
    )
    model.dof_frictionloss[index.arm_dofs] = physics.joint_friction
    model.dof_frictionloss[index.slide_dofs] = nominal.dof_frictionloss[index.slide_dofs] * physics.drawer
    model.dof_damping[index.slide_dofs] = nominal.dof_damping[index.slide_dofs] * physics.drawer
    model.body_pos[index.table_body, 2] = nominal.body_pos[index.table_body, 2] + physics.table_height
    model.site_pos[index.tcp_site] = nominal.site_pos[index.tcp_site] + physics.tcp_offset
