"""For tests of single tasks."""

from oc_residual_gym.testing.stages import expert_beats, stage, stopped  # noqa: F401 (fixtures)
