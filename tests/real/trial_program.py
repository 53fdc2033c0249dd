"""One trial of "bc" on Lift in a process of its own, which a test may freeze or interrupt: HOST POSES_ADDRESS OUT."""

import sys
from pathlib import Path

from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.operator import ScriptedOperator
from oc_residual_gym.real.run import run_trials
from oc_residual_gym.real.session import make_env, open_cell
from oc_residual_gym.real.settings import TrialSettings

host, poses, out = sys.argv[1:]
robot = Robot(host=host, realtime=False, set_tcp=True, speed_cap=0.2)
cell = Cell("rehearsal", robot, Poses(source=poses))
settings = TrialSettings("Lift", cell, "bc", "zero", "val", starts=1, rehearsal=True)
with open_cell(cell, "Lift") as world:
    run_trials(
        settings, lambda: make_env(world, settings.base_policy, "val"), ScriptedOperator(), Path(out), pictures=False
    )
