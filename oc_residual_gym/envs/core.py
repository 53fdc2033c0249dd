"""N residual environments of one task on one implementation: what the single and the vector environment both run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oc_residual_gym.envs.actions import ACTION_NAMES, LATCH_STEPS, Latch, ResidualScales, compose, limit
from oc_residual_gym.envs.episodes import SPLITS, check_seed, draw_seed, episode_generators
from oc_residual_gym.envs.judging import judge
from oc_residual_gym.envs.observation import BASE_TARGET_STEPS, Field, ObservationBuilder
from oc_residual_gym.errors import BasePolicyError
from oc_residual_gym.perception.filter import PoseFilter
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.base import ChunkRunner, PolicyView
from oc_residual_gym.robots.mjcf import Visuals
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks import resolve_task
from oc_residual_gym.tasks.base import InitialState, Snapshot
from oc_residual_gym.worlds.base import Tracker, World
from oc_residual_gym.worlds.domains import DOMAINS, sample_physics
from oc_residual_gym.worlds.sim import SimWorld
from oc_residual_gym.worlds.tracker import SimulatedTracker

REWARDS = ("dense", "sparse")
_MAX_PAUSE = 3  # control steps, the longest inference pause of any domain


class ResidualWorlds:
    """N worlds of one task, the base policy acting inside, advanced by residual actions.

    Args:
        task: its name, "module:Class", a subclass of ``Task`` or an instance.
        num_worlds: N.
        base_policy: see :func:`oc_residual_gym.policies.load_base_policy`; by default the task's.
        domain: "nominal" or "twin".
        errors: pose error model, "clean", "paper" or "tracker".
        split: seed stream of the initial states, "train", "val" or "test".
        reward: "dense" or "sparse".
        scales: what a residual action of 1 means.
        max_episode_steps: control steps after which an episode is truncated; ``None`` for no limit.
        threads: threads that step worlds; by default one a core.
        world: a real robot in place of simulated worlds; "nominal" only, its own pose source in place of ``errors``.

    Raises:
        ValueError: an option is unknown; the message lists the valid ones. A real robot was asked for what it has not.
    """

    def __init__(
        self,
        task: Any,
        num_worlds: int,
        *,
        base_policy: Any = None,
        domain: str = "nominal",
        errors: str = "paper",
        split: str = "train",
        reward: str = "dense",
        scales: ResidualScales = ResidualScales(),  # noqa: B008 (frozen)
        max_episode_steps: int | None = None,
        threads: int | None = None,
        world: World | None = None,
    ):
        self.task = resolve_task(task)
        if num_worlds < 1:
            raise ValueError(f"the number of worlds is {num_worlds}: give at least 1")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}: give at least 1, or None for no limit")
        self.domain, self.split = _one_of("domain", domain, DOMAINS), _one_of("split", split, SPLITS)
        self.reward_kind = _one_of("reward", reward, REWARDS)
        self.num_worlds, self.scales, self.max_episode_steps = num_worlds, scales, max_episode_steps
        self.filter = PoseFilter([o.symmetry for o in self.task.objects], num_worlds)
        self.base_policy = load_base_policy(base_policy, self.task)
        self.world: World
        self.tracker: Tracker
        if world is None:
            simulation = SimWorld(self.task, num_worlds, shared_physics=domain == "nominal", threads=threads)
            self.tracker = SimulatedTracker(self.task, simulation.true, errors, calibrated=domain == "nominal")
            self.world = simulation
        else:
            self._check_reality(world)
            assert world.tracker is not None
            self.world, self.tracker = world, world.tracker
        self._builder = ObservationBuilder(tuple(o.name for o in self.task.objects))
        self._runner = ChunkRunner(self.base_policy, num_worlds, _MAX_PAUSE if domain != "nominal" else 0)
        self._ahead = np.array([*BASE_TARGET_STEPS, 1_000_000])
        self._all = np.arange(num_worlds)
        self._weights = np.array(list(self.task.weights.values()))
        self._allocate()

    def _allocate(self) -> None:
        n = self.num_worlds
        self.seeds = np.zeros(n, np.int64)
        """(N,) seed of the running episode."""
        self.steps = np.zeros(n, np.int64)
        """(N,) control steps done in the running episode."""
        self.observation = np.zeros((n, self._builder.size), np.float32)
        self.reward = np.zeros(n)
        self.terminated = np.zeros(n, bool)
        self.truncated = np.zeros(n, bool)
        self.success = np.zeros(n, bool)
        """(N,): has the success condition held for long enough?"""
        self.failure: list[str | None] = [None] * n
        """Why the episode was truncated, where it was."""
        self.executed_target = np.zeros((n, 8))
        self.base_target = np.zeros((n, 8))
        """(N, 8) the base policy's target for the coming step."""
        self.reward_terms: dict[str, Array] = {name: np.zeros(n) for name in self.task.weights}
        self.latch = Latch(np.zeros(n, bool), np.zeros(n, np.int64))
        self._held = np.zeros(n, np.int64)
        self._best = np.zeros((len(self._weights), n))
        self._missed = np.zeros(n, np.int64)
        self._failures = [*(f"no_{name}" for name in self.task.weights), "not_held"]
        self.base_policy_failed = np.zeros(n, bool)
        """(N,): had the base policy no target for the coming step?"""
        self.base_policy_problem = ""
        """What the base policy said when it last failed."""
        self._pauses = np.zeros(n, np.int64)

    def _check_reality(self, world: World) -> None:
        if world.true is not None:
            raise ValueError("world= takes a real robot; leave it out for a simulated one")
        if self.domain != "nominal":
            raise ValueError(f"a real robot has its own physics: leave domain={self.domain!r} out")
        if self.num_worlds != world.num_worlds:
            raise ValueError(f"the robot is {world.num_worlds} world, and {self.num_worlds} were asked for")
        if self.task.name != world.task.name:
            raise ValueError(f"the robot was set up for {world.task.name}, and the environment is {self.task.name}")
        if "truth" in self.base_policy.needs:
            raise ValueError(f"base policy {self.base_policy.name!r} reads true state, which a real robot has not")

    @property
    def simulation(self) -> SimWorld:
        """The simulated worlds. Raises ``ValueError`` where the robot is real."""
        if not isinstance(self.world, SimWorld):
            raise ValueError("this needs simulated worlds, and the environment runs a real robot")
        return self.world

    @property
    def observation_layout(self) -> tuple[Field, ...]:
        """What each slice of the observation is."""
        return self._builder.layout

    @property
    def observation_builder(self) -> ObservationBuilder:
        return self._builder

    @property
    def peak_contact_force(self) -> Array:
        """(N,) largest net contact force on the hand within the last step, N."""
        return self.world.peak_contact_force

    def check_seed(self, seed: int) -> int:
        """``seed``, if the split has it. Raises ``ValueError`` otherwise."""
        return check_seed(self.split, seed)

    def draw_seed(self, rng: np.random.Generator) -> int:
        """A seed of the split for an episode that was given none."""
        return draw_seed(self.split, rng)

    def reset(self, worlds: IntArray, seeds: Sequence[int], starts: Sequence[InitialState] | None = None) -> None:
        """Start the episodes with these seeds in ``worlds``; the others are not touched.

        A world whose base policy cannot give its first targets is truncated by its first step.

        Args:
            worlds: (n,) their numbers.
            seeds: n seeds of the split.
            starts: n start states in place of those that the seeds stand for.

        Raises:
            ValueError: a seed is not in the split.
        """
        worlds = np.asarray(worlds, np.int64)
        streams = [episode_generators(self.task.name, self.split, self.check_seed(seed)) for seed in seeds]
        if starts is None:
            starts = [self.task.reset(initial) for initial, *_ in streams]
        physics = [sample_physics(self.domain, generator) for _, generator, *_ in streams]
        self.world.reset(worlds, starts, physics)
        self.seeds[worlds] = seeds
        self.steps[worlds] = 0
        self.base_policy_failed[worlds] = False
        closed = np.array([start.gripper_closed for start in starts])
        self.latch.closed[worlds] = closed
        self.latch.steps[worlds] = LATCH_STEPS
        self.executed_target[worlds, :7] = self.world.robot.tcp_pose[worlds]
        self.executed_target[worlds, 7] = ~closed
        self._pauses[worlds] = [p.inference_pause for p in physics]
        self.tracker.reset(worlds, [perception for _, _, perception, _ in streams], physics)
        self.filter.reset(worlds)
        self.base_policy.reset(worlds, [policy for *_, policy in streams])
        for world in worlds:
            self.failure[world] = None
        self._perceive(worlds)
        # Should the base policy fail at once, there is no chunk of the last episode to go on with.
        self._runner.hold(worlds, self.executed_target[worlds])
        self._plan(worlds)
        self._judge(worlds)
        # Nothing has been done yet that could count.
        self._held[worlds] = 0
        self._best[:, worlds] = 0.0
        self.reward[worlds] = 0.0
        self.truncated[worlds] = False
        self._observe()

    def step(self, actions: Array, worlds: IntArray | None = None) -> None:
        """Advance ``worlds`` (all by default) by one control step; rows of ``actions`` (N, 7) of others are ignored.

        Raises:
            ValueError: ``actions`` have the wrong shape or an entry is not finite; no world was touched.
        """
        actions = self.checked(actions)
        if worlds is not None and len(worlds) == 0:
            return
        target = compose(self.base_target, np.minimum(np.maximum(actions, -1.0), 1.0), self.scales)
        executed, latch = limit(target, self.executed_target, self.world.robot.tcp_pose, self.latch, self.world.speed)
        rows: slice | IntArray
        if worlds is None:
            rows, self.executed_target, self.latch = slice(None), executed, latch
        else:
            rows = worlds
            self.executed_target[rows] = executed[rows]
            self.latch.closed[rows], self.latch.steps[rows] = latch.closed[rows], latch.steps[rows]
        self.world.step(self.executed_target, worlds)
        self.steps[rows] += 1
        self._perceive(worlds)
        self._plan(self._runner.advance(rows))
        self._judge(self._all[rows])
        self._observe()

    def checked(self, actions: Array) -> Array:
        """``actions`` as float64, if they are finite and (N, 7). Raises ``ValueError`` otherwise."""
        actions = np.asarray(actions, np.float64)
        if actions.shape != (self.num_worlds, 7):
            raise ValueError(f"actions have shape {actions.shape}; expected {(self.num_worlds, 7)}: {ACTION_NAMES}")
        if not np.isfinite(actions).all():
            world, entry = np.argwhere(~np.isfinite(actions))[0]
            raise ValueError(
                f"action entry {entry} ({ACTION_NAMES[entry]}) of world {world} is {actions[world, entry]}; "
                "give finite numbers"
            )
        return actions

    def _perceive(self, worlds: IntArray | None) -> None:
        seen, valid = self.tracker.observe(self.world.robot.tcp_pose, self.latch.closed, worlds)
        self.filter.update(seen, valid, worlds)

    def _plan(self, worlds: IntArray) -> None:
        """New chunks where the old ones ran out; then the base target of the coming step.

        A world whose base policy fails keeps its last target and is truncated by the next judgement.
        """
        if len(worlds):
            problem = "it returned targets that are no poses"
            try:
                chunks = self.base_policy.predict(self.view(worlds, self.base_policy.needs))
                failed = self._runner.load(worlds, self.executed_target[worlds], self._pauses[worlds], chunks)
            except (BasePolicyError, OSError) as error:
                failed, problem = np.ones(len(worlds), bool), str(error)
            self.base_policy_failed[worlds] = failed
            if failed.any():
                self.base_policy_problem = f"base policy {self.base_policy.name!r} failed: {problem}"
        self.base_target = self._runner.current

    def _judge(self, worlds: IntArray) -> None:
        """Success, reward, and whether episodes end, in the present state of ``worlds``."""
        true = self.world.true
        if true is None:
            self._take_verdicts(worlds)
            return
        done_now = self.task.success(true)
        milestones = self.task.progress(true)
        values = np.array(list(milestones.values()), np.float64)
        terms = np.empty_like(values)
        judge(
            worlds,
            done_now,
            values,
            self._weights,
            self.world.stopped,
            self.base_policy_failed,
            self.steps,
            self.max_episode_steps or 0,
            self.reward_kind == "sparse",
            self._held,
            self._best,
            self.reward,
            terms,
            self.success,
            self.truncated,
            self._missed,
        )
        self._end(worlds)
        self.reward_terms = dict(zip(milestones, terms, strict=True))

    def _take_verdicts(self, worlds: IntArray) -> None:
        """Success as the operator of a real robot sees it: the reward is -1 a step until he says so."""
        for world in worlds:
            verdict = self.world.verdict(int(world)) if self.steps[world] else None  # not before the first step
            fault = self.world.stopped[world] or self.base_policy_failed[world]
            self.success[world] = verdict is True and not fault
            self.truncated[world] = verdict is False or fault
            self.reward[world] = 0.0 if self.success[world] else -1.0
        late = self.steps >= (self.max_episode_steps or np.inf)
        self.truncated[worlds] |= late[worlds]
        self._end(worlds)

    def _end(self, worlds: IntArray) -> None:
        """Take the episodes that are over to their end."""
        self.terminated = self.success.copy()
        for world in np.flatnonzero(self.truncated & ~self.success):
            self.failure[world] = self.name_failure(world)
            if self.base_policy_failed[world]:
                self.world.stop(int(world), "base_policy_failed")

    def name_failure(self, world: int) -> str:
        """Why the episode of ``world`` has not succeeded: a fault, or "no_<milestone>" for the first one missed.

        "not_held" where all milestones were reached but success did not hold; "not_done" where an operator judged.
        """
        if self.world.stopped[world]:
            return self.world.stop_reason(world)
        if self.base_policy_failed[world]:
            return "base_policy_failed"
        return self._failures[self._missed[world]] if self.world.true is not None else "not_done"

    def _observe(self) -> None:
        robot = self.world.robot
        self.observation = self._builder.build(
            robot,
            robot.wrench + self.tracker.wrench_noise(),
            self.latch.closed,
            np.concatenate([self.executed_target[:, None], self._runner.targets(self._ahead)], axis=1),
            self._runner.phase,
            self.filter.poses,
            self.filter.valid,
            self.filter.age,
        )

    def view(self, worlds: IntArray, needs: frozenset[str]) -> PolicyView:
        """What a base policy with these ``needs`` sees of ``worlds``."""
        robot = self.world.robot
        objects = images = truth = None
        if "objects" in needs:
            objects = {o.name: self.filter.poses[worlds, i] for i, o in enumerate(self.task.objects)}
        if "images" in needs:
            from oc_residual_gym.worlds.render import POLICY_CAMERAS

            images = {c: np.stack([self._policy_image(int(w), c) for w in worlds]) for c in POLICY_CAMERAS}
        if "truth" in needs:
            truth = [self._snapshot(int(world)) for world in worlds]
        return PolicyView(
            worlds=worlds,
            instruction=self.task.instruction,
            tcp_pose=robot.tcp_pose[worlds],
            joint_positions=robot.joint_positions[worlds],
            gripper_width=robot.gripper_width[worlds],
            gripper_closed=self.latch.closed[worlds],
            wrench=(robot.wrench + self.tracker.wrench_noise())[worlds],
            previous_target=self.executed_target[worlds],
            objects=objects,
            images=images,
            truth=truth,
        )

    def _policy_image(self, world: int, camera: str) -> np.ndarray:
        from oc_residual_gym.worlds.render import POLICY_IMAGE_SIZE

        if self.world.true is None:
            return self.world.image(world, camera)
        return self.render(world, camera, POLICY_IMAGE_SIZE)

    def _snapshot(self, world: int) -> Snapshot:
        true = self.simulation.true
        return Snapshot(
            poses={k: v[world].copy() for k, v in true.poses.items()},
            velocities={k: v[world].copy() for k, v in true.velocities.items()},
            contacts={k: bool(v[world]) for k, v in true.contacts.items()},
            slides={k: v[world].copy() for k, v in true.slides.items()},
            parameters={k: float(v[world]) for k, v in true.parameters.items()},
            table_height=float(true.table_height[world]),
            tcp_pose=true.tcp_pose[world].copy(),
            gripper_width=float(true.gripper_width[world]),
            gripper_closed=bool(self.latch.closed[world]),
            target=self.executed_target[world].copy(),
        )

    def render(self, world: int, camera: str, size: tuple[int, int], visuals: Visuals = "light") -> np.ndarray:
        """Image (height, width, 3) uint8 of one world; see :class:`oc_residual_gym.worlds.render.SceneRenderer`."""
        from oc_residual_gym.worlds.render import shared_renderer

        return shared_renderer(self.task, visuals, size).image(self.simulation, world, camera)

    def close(self) -> None:
        """Free the worlds' threads and connections."""
        self.world.close()


def _one_of(kind: str, name: str, valid: Any) -> str:
    if name not in valid:
        raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(valid)}")
    return name
