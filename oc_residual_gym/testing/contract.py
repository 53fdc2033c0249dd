"""All tests that a task must pass. Use ``from oc_residual_gym.testing.contract import *`` in your own test file."""

from oc_residual_gym.testing.test_environments import *  # noqa: F403
from oc_residual_gym.testing.test_experts import *  # noqa: F403
from oc_residual_gym.testing.test_look_alikes import *  # noqa: F403
from oc_residual_gym.testing.test_scenes import *  # noqa: F403
