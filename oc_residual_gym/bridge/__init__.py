"""The tasks in robosuite: the same scenes under robosuite's own controllers, devices and wrappers.

Needs the extra ``[robosuite]``. Importing this package registers ``OCResidual``, ``FR3`` and ``FR3Hand`` with
robosuite::

    import robosuite
    import oc_residual_gym.bridge

    env = robosuite.make("OCResidual", task="PegInsert", robots="FR3")

Record demonstrations with the keyboard (or a ``SpaceMouse``) into ``recordings/demo.hdf5``; Ctrl+q ends one
that went wrong, and only successful ones are kept::

    import json
    from robosuite.devices import Keyboard
    from robosuite.scripts import collect_human_demonstrations as demonstrations
    from robosuite.wrappers import DataCollectionWrapper

    config = {"env_name": "OCResidual", "task": "PegInsert", "robots": "FR3"}
    env = robosuite.make(
        **config, has_renderer=True, has_offscreen_renderer=False, use_camera_obs=False, ignore_done=True
    )
    env = DataCollectionWrapper(env, "recordings/episodes")
    device = Keyboard(env)
    for _ in range(10):
        demonstrations.collect_human_trajectory(env, device, "right", 20, "target")
    demonstrations.gather_demonstrations_as_hdf5("recordings/episodes", "recordings", json.dumps(config))

robosuite's script ``playback_demonstrations_from_hdf5`` shows them again, if it is started such that this
package is imported first::

    python -c "import runpy, oc_residual_gym.bridge; runpy.run_module(
        'robosuite.scripts.playback_demonstrations_from_hdf5', run_name='__main__')" --folder recordings
"""

from oc_residual_gym.bridge.installed import import_robosuite

import_robosuite()

from oc_residual_gym.bridge.env import OCResidual  # noqa: E402
from oc_residual_gym.bridge.hand import FR3Hand  # noqa: E402
from oc_residual_gym.bridge.robot import FR3  # noqa: E402

__all__ = ["FR3", "FR3Hand", "OCResidual"]
