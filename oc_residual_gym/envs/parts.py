"""The parts of an environment that depend on its world or task: world, tracker, judge, runner of the base policy."""

from __future__ import annotations

from oc_residual_gym.envs.judges import Judge, OperatorJudge, SimulationJudge
from oc_residual_gym.envs.options import EnvOptions
from oc_residual_gym.envs.views import simulated
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.policies import OWN_BASES
from oc_residual_gym.policies.base import BasePolicy
from oc_residual_gym.policies.chunks import ChunkRunner
from oc_residual_gym.policies.conventions import GripperWatch
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.worlds.base import RealCell, Simulation, Tracker, World
from oc_residual_gym.worlds.domains import domain_of
from oc_residual_gym.worlds.sim import SimWorld
from oc_residual_gym.worlds.tracker import SimulatedTracker


def world_of(task: Task, num_worlds: int, options: EnvOptions, base_policy: BasePolicy) -> World:
    """The world in ``options``, or a MuJoCo simulation if they have none.

    Raises:
        SettingsError: the world does not fit the task or the other options.
    """
    world = options.world
    if world is None:
        return SimWorld(task, num_worlds, domain=domain_of(options.domain), threads=options.threads)
    if not isinstance(world, (Simulation, RealCell)):
        wanted = [name for name in dir(Simulation) if not name.startswith("_")] + list(World.__annotations__)
        lacking = ", ".join(sorted({name for name in wanted if not hasattr(world, name)}))
        raise SettingsError(f"{type(world).__name__} is not a world, because it has no {lacking}: see Simulation")
    if num_worlds != world.num_worlds:
        raise SettingsError(f"the world has N = {world.num_worlds}, and {num_worlds} were asked for")
    if task.name != world.task.name:
        raise SettingsError(f"the world was set up for {world.task.name}, and the environment is {task.name}")
    if isinstance(world, RealCell):
        if not domain_of(options.domain).is_nominal:
            raise SettingsError("a real robot has its own physics: leave domain= out")
        if options.render_mode is not None:
            mode = options.render_mode
            raise SettingsError(f"render_mode {mode!r} draws simulated worlds: leave it out with a real robot")
        if "truth" in base_policy.needs:
            raise SettingsError(f"base policy {base_policy.name!r} reads true state, which a real robot does not have")
    return world


def observers_of(world: World, options: EnvOptions) -> tuple[Tracker, Judge]:
    """The tracker and the judge for ``world``."""
    max_steps = options.step_limit(world.task)
    if isinstance(world, RealCell):
        return world.tracker, OperatorJudge(world, max_steps)
    simulation = simulated(world)
    tracker = SimulatedTracker(world.task, simulation.true, options.errors, domain_of(options.domain).is_calibrated)
    return tracker, SimulationJudge(simulation, options.reward == "sparse", max_steps)


def runner_of(policy: BasePolicy, task: Task, num_worlds: int, options: EnvOptions) -> ChunkRunner:
    """What requests, checks and executes the chunks of the base policy, which was loaded from ``options``.

    Raises:
        SettingsError: the policy's horizon is out of range.
    """
    given = options.base_policy
    is_ours = given is None or (isinstance(given, str) and given in OWN_BASES)
    # A log's gripper was checked against its states when the log was read.
    watched = task.grasped is not None and not is_ours and not getattr(policy, "is_log", False)
    watch = GripperWatch(policy.name, num_worlds, task.max_episode_steps // 2) if watched else None
    return ChunkRunner(policy, num_worlds, domain_of(options.domain).inference_pause[1], watch)
