"""The core imports neither robosuite nor OpenCV, whatever it does, and leaves the process's environment alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PARTS = {
    "make and step": """
import gymnasium as gym, numpy as np, oc_residual_gym
env = gym.make("OCResidual-PegInsert-v0")
env.reset(seed=0)
env.step(np.zeros(7))
many = gym.make_vec("OCResidual-Lift-v0", num_envs=2)
many.reset(seed=0)
many.step(np.zeros((2, 7)))
""",
    "render": """
import gymnasium as gym, oc_residual_gym
from oc_residual_gym.errors import RenderError
from oc_residual_gym.worlds.opengl import gl_context
env = gym.make("OCResidual-Lift-v0", render_mode="rgb_array", render_size=(60, 80))
env.reset(seed=0)
try:
    gl_context(8, 8).free()
except RenderError:
    pass
else:
    env.render()
""",
    "read and replay logs": """
from demos_replay import LOGS
from demos_replay.readers import demo_names, open_log, read_demo
from demos_replay.replay import Replayer
from oc_residual_gym.tasks import TASKS
with open_log(LOGS / "Lift.hdf5") as (file, reader):
    log = read_demo(file, reader, demo_names(file, reader)[0])
replayer = Replayer(TASKS["Lift"], 1)
next(iter(replayer.run([("one", log)])))
replayer.close()
""",
    "write the rig's models": """
import tempfile, pathlib
from oc_residual_gym.real.rig_models import write_models
write_models(None, None, pathlib.Path(tempfile.mkdtemp()))
""",
}
NOTHING_BROUGHT_IN = """
import os, sys
print([name for name in ("robosuite", "cv2") if name in sys.modules], os.environ.get("MUJOCO_GL"))
"""


@pytest.mark.parametrize("part", PARTS)
def test_neither_robosuite_nor_opencv_is_imported(part: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    program = [sys.executable, "-W", "ignore", "-c", PARTS[part] + NOTHING_BROUGHT_IN]
    run = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[] None"


def test_the_bridge_without_robosuite_names_the_extra() -> None:
    program = "import sys; sys.modules['robosuite'] = None; import oc_residual_gym.bridge"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert 'ImportError: this needs robosuite: pip install "oc-residual-gym[robosuite]"' in run.stderr
