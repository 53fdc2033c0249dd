"""Physics domains: "nominal", and "twin", a shifted world that stands in for reality in tests of zero-shot transfer.

Values are drawn once an episode from the episode's own generator. Frozen in v0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import numpy as np

from oc_residual_gym.states import Array

DOMAINS = ("nominal", "twin")


@dataclass(frozen=True)
class EpisodePhysics:
    """What differs from the nominal simulation in one episode."""

    friction: float = 1.0
    """Factor on every sliding friction."""
    object_mass: float = 1.0
    """Factor on the mass and inertia of the task's objects and drawers."""
    stiffness: float = 1.0
    """Factor on the impedance's stiffness; the damping follows with its square root."""
    gripper_force: float = 1.0
    gripper_speed: float = 1.0
    """Factors on the hand's grasp force and speed."""
    joint_friction: Array = field(default_factory=lambda: np.zeros(7))
    """(7,) Nm."""
    payload: float = 0.0
    """Kilograms that the hand weighs more than the robot's gravity compensation believes."""
    wrench_bias: Array = field(default_factory=lambda: np.zeros(6))
    """(6,) N and Nm on the wrench estimate."""
    latency: int = 0
    """Control steps from a target to its execution."""
    table_height: float = 0.0
    """Metres; everything on the table comes along."""
    tcp_offset: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) metres in the TCP frame, of the point that the robot takes for its TCP."""
    hand_eye_position: Array = field(default_factory=lambda: np.zeros(3))
    hand_eye_rotation: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) metres and rotation vector in radians, in the base frame, common to all observed poses."""
    camera_position: Array = field(default_factory=lambda: np.zeros((2, 3)))
    camera_rotation: Array = field(default_factory=lambda: np.zeros((2, 3)))
    """(2, 3) metres and rotation vectors in radians, of the shoulder and the wrist camera."""
    inference_pause: int = 0
    """Control steps that the base policy takes to compute a chunk."""
    drawer: float = 1.0
    """Factor on the friction and damping of drawers."""


def sample_physics(domain: str, rng: np.random.Generator) -> EpisodePhysics:
    """Draw one episode's physics. Raises ``ValueError`` for an unknown domain."""
    if domain == "nominal":
        return EpisodePhysics()
    if domain != "twin":
        raise ValueError(f"unknown domain {domain!r}: choose one of {', '.join(DOMAINS)}")
    return EpisodePhysics(
        friction=rng.uniform(0.7, 1.3),
        object_mass=rng.uniform(0.7, 1.5),
        stiffness=rng.uniform(0.8, 1.2),
        gripper_force=rng.uniform(0.7, 1.2),
        gripper_speed=rng.uniform(0.7, 1.2),
        joint_friction=rng.uniform(0.1, 0.6, size=7),
        payload=rng.uniform(-0.15, 0.15),
        wrench_bias=rng.normal(scale=[1.0] * 3 + [0.1] * 3),
        latency=int(rng.integers(1, 3)),
        table_height=rng.uniform(-0.002, 0.002),
        tcp_offset=rng.normal(scale=0.001, size=3),
        hand_eye_position=rng.normal(scale=0.003, size=3),
        hand_eye_rotation=rng.normal(scale=np.radians(0.5), size=3),
        camera_position=rng.uniform(-0.005, 0.005, size=(2, 3)),
        camera_rotation=rng.uniform(-np.radians(1), np.radians(1), size=(2, 3)),
        inference_pause=3,
        drawer=rng.uniform(0.6, 1.6),
    )


@dataclass(frozen=True)
class ModelIndex:
    """Which parts of a scene's model a domain changes."""

    object_bodies: np.ndarray
    hand_body: int
    table_body: int
    tcp_site: int
    arm_dofs: np.ndarray
    slide_dofs: np.ndarray
    impedance_actuators: np.ndarray
    gripper_actuator: int


def apply_physics(physics: EpisodePhysics, nominal: mujoco.MjModel, model: mujoco.MjModel, index: ModelIndex) -> None:
    """Write ``physics`` into ``model``, a copy of ``nominal``; nothing of an earlier episode remains."""
    model.geom_friction[:, 0] = nominal.geom_friction[:, 0] * physics.friction
    bodies, hand = index.object_bodies, index.hand_body
    model.body_mass[bodies] = nominal.body_mass[bodies] * physics.object_mass
    model.body_inertia[bodies] = nominal.body_inertia[bodies] * physics.object_mass
    # The compensation goes on believing in the nominal hand.
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
