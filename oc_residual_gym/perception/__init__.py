"""Perception: pose error models for simulation, and the pose filter for simulated and real worlds."""

from oc_residual_gym.perception.errors import PoseErrors
from oc_residual_gym.perception.filter import PoseFilter

__all__ = ["PoseErrors", "PoseFilter"]
