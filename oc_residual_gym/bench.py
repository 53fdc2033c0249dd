"""Speed of the environments, and what they cost above MuJoCo's own physics.

Whatever is compared runs in turns, in short blocks within one process, and medians over the blocks count: a
noisy moment of the machine then spoils a block, not a result.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from mujoco.rollout import Rollout
from tqdm import tqdm

from oc_residual_gym.evaluation.provenance import machine, versions
from oc_residual_gym.files import Record
from oc_residual_gym.policies import exists_for
from oc_residual_gym.registration import env_id
from oc_residual_gym.states import Array
from oc_residual_gym.tasks.index import INDEX
from oc_residual_gym.worlds.render import POLICY_IMAGE_SIZE
from oc_residual_gym.worlds.sim import SUBSTEPS, SimWorld

WORLDS = 64
"""Worlds of the vector environment."""
BLOCKS, STEPS, STEPS_OF_WORLDS = 10, 60, 6
"""Blocks of each measurement; control steps per block, of one world and of 64."""
ROBOSUITE_STEPS = 15
"""Control steps per block of robosuite's environment."""
BASES = ("bc", "vla")
"""Base policies whose cost is measured."""
BASE_BLOCKS, CHUNKS = 3, 2
"""Blocks per base policy, and chunks per block. All steps of a chunk are timed, so inference counts with its share."""
FRESH_PROCESSES = 5
"""Python processes started per figure that needs a fresh one."""

REACH = {
    "overhead_us": "<= 200",
    "overhead_us_n64": "<= 40",
    "overhead_share": "<= 0.25",
    "overhead_share_n64": "<= 0.04",
    "physics_us": "<= 1200",
    "reset_ms": "<= 5",
    "image_ms": "<= 2.5",
    "speedup_n64": ">= 1.5",
    "robosuite_ratio": ">= 8",
    "import_seconds": "<= 0.1 above gymnasium's",
    "make_seconds": "<= 3",
}
"""What two cores of an ordinary processor should reach."""

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS.value
_CONTROL = (
    mujoco.mjtState.mjSTATE_CTRL.value
    | mujoco.mjtState.mjSTATE_MOCAP_POS.value
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value
)


def bench(tasks: Sequence[str]) -> Record:
    """Measure ``tasks``, then what does not depend on the task.

    Returns:
        ``tasks``, a list with, for each task,

        - ``steps_per_second``: control steps through ``gym.make``, base policy "hold", random actions, no images;
        - ``steps_per_second_n64``: the same through ``gym.make_vec``, of all 64 worlds together;
        - ``physics_us``: 25 bare ``mj_step`` from the same states under the same controls;
        - ``overhead_us``: a control step less its physics, the median over steps;
        - ``overhead_us_n64``: the same with 64 worlds, per world, where the physics are a bare ``mujoco.rollout`` of
          these worlds on as many threads;
        - ``overhead_share``, ``overhead_share_n64``: our cost as a share of the physics, step by step, the median over
          steps; machines differ by a factor of two, and these figures hardly do;
        - ``reset_ms``; ``image_ms``, of 128 x 128 pixels with light visuals;
        - ``bc``, ``bc_n64``, ``vla``, ``vla_n64``: steps per second with these base policies, inference and images
          included, of one world and of 64 together;

        and, where robosuite is installed, ``robosuite_ratio``, our Lift's steps per second over those of robosuite's
        Lift with its Panda at 20 Hz; ``import_seconds`` and ``gymnasium_import_seconds``; ``make_seconds``, the slowest
        task's ``gym.make`` and first reset. The last three are measured in fresh processes.
    """
    result: Record = {"tasks": [_bench_task(task) for task in tqdm(tasks, unit="task", disable=None)]}
    if find_spec("robosuite"):
        result["robosuite_ratio"] = _robosuite_ratio()
    imports = {"import_seconds": "import oc_residual_gym", "gymnasium_import_seconds": "import gymnasium"}
    result |= _fresh_seconds(imports)
    makes = {task: f"gymnasium.make({env_id(task)!r}).reset(seed=0)" for task in tasks}
    outside = [INDEX[task].source for task in tasks if not INDEX[task].shipped]
    setup = "".join(f"oc_residual_gym.register_task({source!r})\n" for source in outside)
    result["make_seconds"] = max(_fresh_seconds(makes, f"import gymnasium, oc_residual_gym\n{setup}").values())
    return result | {"machine": machine(), "versions": versions()}


def _bench_task(task: str) -> Record:
    single = gym.make(env_id(task), base_policy="hold")
    many = gym.make_vec(env_id(task), num_envs=WORLDS, base_policy="hold")
    core: Any = single.unwrapped.core  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    resets, images, alone, together = [], [], [], []
    core.simulation.render(0, "shoulder", POLICY_IMAGE_SIZE)  # makes the OpenGL context
    for seed in range(BLOCKS):
        resets.append(_seconds(single.reset, seed=seed))
        alone += _block(single, seed, rng, (STEPS, 7))
        images.append(_seconds(core.simulation.render, 0, "shoulder", POLICY_IMAGE_SIZE))
        together += _block(many, seed, rng, (STEPS_OF_WORLDS, WORLDS, 7))
    single.close()
    many.close()
    bases = [base for base in BASES if exists_for(base, task)]
    rates = {base: _base_rates(task, base) for base in bases}
    return {
        "task": task,
        "steps_per_second": 1.0 / median(step for step, _ in alone),
        "steps_per_second_n64": WORLDS / median(step for step, _ in together),
        "physics_us": 1e6 * median(physics for _, physics in alone),
        "overhead_us": 1e6 * median(step - physics for step, physics in alone),
        "overhead_us_n64": 1e6 / WORLDS * median(step - physics for step, physics in together),
        "overhead_share": median(step / physics for step, physics in alone) - 1.0,
        "overhead_share_n64": median(step / physics for step, physics in together) - 1.0,
        "reset_ms": 1e3 * median(resets),
        "image_ms": 1e3 * median(images),
        **{name: rate for base in bases for name, rate in rates[base].items()},
    }


def _base_rates(task: str, base: str) -> dict[str, float]:
    """Steps per second with a base policy, through ``gym.make`` and of 64 worlds through ``gym.make_vec``."""
    rates = {}
    environments: dict[str, tuple[int, Any]] = {
        base: (1, gym.make(env_id(task), base_policy=base)),
        f"{base}_n64": (WORLDS, gym.make_vec(env_id(task), num_envs=WORLDS, base_policy=base)),
    }
    for name, (count, env) in environments.items():
        steps = CHUNKS * env.unwrapped.core.base_policy.horizon
        actions = np.zeros(env.action_space.shape, np.float32)
        seconds = []
        for seed in range(BASE_BLOCKS):
            env.reset(seed=seed)
            seconds.append(sum(_seconds(env.step, actions) for _ in range(steps)))
        env.close()
        rates[name] = count * steps / median(seconds)
    return rates


def _block(env: Any, seed: int, rng: np.random.Generator, shape: tuple[int, ...]) -> list[tuple[float, float]]:
    """Seconds of each control step of ``env`` under random actions of that shape, and of the bare physics within it."""
    actions = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
    env.reset(seed=seed)
    seconds = [_seconds(env.step, action) for action in actions]
    # The same steps once more, for their states and controls: taking these down in between would have cost time.
    world: SimWorld = env.unwrapped.core.mujoco
    env.reset(seed=seed)
    starts, controls = [], []
    for action in actions:
        starts.append(world._state.copy())
        env.step(action)
        controls.append(world._control[:, :SUBSTEPS].copy())
    physics = _BarePhysics(world)
    bare = [physics.seconds(*moment) for moment in zip(starts, controls, strict=True)]
    return list(zip(seconds, bare, strict=True))


class _BarePhysics:
    """MuJoCo alone on the models of a SimWorld: ``mj_step`` for one world, ``mujoco.rollout`` for more."""

    def __init__(self, world: SimWorld) -> None:
        model = world.models[0]
        self._models = world.models
        self._data = [mujoco.MjData(model) for _ in range(max(1, world._threads))]
        self._rollout = Rollout(nthread=world._threads)
        self._states = np.empty((world.num_worlds, SUBSTEPS, mujoco.mj_stateSize(model, _STATE)))
        self._sensors = np.empty((world.num_worlds, SUBSTEPS, model.nsensordata))

    def seconds(self, start: Array, control: Array) -> float:
        """Seconds of a control step from the states (N, S) under the controls (N, substeps, C)."""
        if len(start) > 1:
            return _seconds(
                self._rollout.rollout,
                self._models,
                self._data,
                start,
                control,
                control_spec=_CONTROL,
                skip_checks=True,
                nstep=SUBSTEPS,
                state=self._states,
                sensordata=self._sensors,
            )
        model, data = self._models[0], self._data[0]
        mujoco.mj_setState(model, data, start[0], _STATE)
        # One call of mj_step makes all substeps, so that Python takes no part; it holds the controls of the
        # middle.
        mujoco.mj_setState(model, data, control[0, SUBSTEPS // 2], _CONTROL)
        data.qacc_warmstart[:] = 0.0
        return _seconds(mujoco.mj_step, model, data, SUBSTEPS)


def _robosuite_ratio() -> float:
    """Our Lift's steps per second over those of robosuite's Lift."""
    import oc_residual_gym.bridge  # noqa: F401  # keeps robosuite's import quiet

    import robosuite  # isort: skip

    ours = gym.make(env_id("Lift"), base_policy="hold")
    theirs = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=20,
        ignore_done=True,
    )
    rng = np.random.default_rng(0)
    low, high = theirs.action_spec
    theirs.reset()
    ratios = []
    for seed in range(BLOCKS):
        ours.reset(seed=seed)
        our_actions = rng.uniform(-1.0, 1.0, (STEPS, 7)).astype(np.float32)
        their_actions = rng.uniform(low, high, (ROBOSUITE_STEPS, len(low)))
        our_step = sum(_seconds(ours.step, action) for action in our_actions) / STEPS
        their_step = sum(_seconds(theirs.step, action) for action in their_actions) / ROBOSUITE_STEPS
        ratios.append(their_step / our_step)
    ours.close()
    theirs.close()
    return median(ratios)


def _seconds(function: Callable[..., object], *arguments: Any, **options: Any) -> float:
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def _fresh_seconds(statements: dict[str, str], setup: str = "") -> dict[str, float]:
    """Median seconds of each Python statement, every time in a fresh process, in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(FRESH_PROCESSES):
        for name, statement in statements.items():
            timed = f"start = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"
            program = [sys.executable, "-c", f"import time\n{setup}\n{timed}"]
            output = subprocess.run(program, capture_output=True, text=True, check=True).stdout
            seconds[name].append(float(output.split()[-1]))
    return {name: median(values) for name, values in seconds.items()}


def table(result: Record) -> str:
    """The figures, and beside them what they should reach, for people."""
    rows = [row | {"speedup_n64": row["steps_per_second_n64"] / row["steps_per_second"]} for row in result["tasks"]]
    columns = list(rows[0])
    lines = [columns]
    lines += [[row["task"], *(f"{row[column]:.2f}" for column in columns[1:])] for row in rows]
    lines += [["reach", *(REACH.get(column, "") for column in columns[1:])]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    text = "".join("  ".join(f"{entry:>{w}}" for entry, w in zip(line, widths, strict=True)) + "\n" for line in lines)
    for key in ("robosuite_ratio", "import_seconds", "gymnasium_import_seconds", "make_seconds"):
        figure = f"{result[key]:8.3f}" if key in result else "not measured: robosuite is not installed"
        text += f"{key:24} {figure}   {'reach ' + REACH[key] if key in REACH else ''}\n"
    return text
