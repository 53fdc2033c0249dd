"""All tests of the contract, for ``from oc_residual_gym.testing.contract import *`` in a test file of your own."""

from oc_residual_gym.testing.test_environments import *  # noqa: F403
from oc_residual_gym.testing.test_experts import *  # noqa: F403
from oc_residual_gym.testing.test_scenes import *  # noqa: F403
