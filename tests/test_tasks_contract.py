"""What every task promises, for the tasks of this package."""

from oc_residual_gym.testing.contract import *  # noqa: F403
