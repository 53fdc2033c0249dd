"""Dynamic replay: the simulated robot tracks a log's targets within the environment's limits; the task judges."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from demos_replay.demo import Demo
from demos_replay.log import Log, LogError
from demos_replay.path import Path, make_path, poses_at
from demos_replay.transfer import Placement, place
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.geometry import clip_norm, norm, rotation_between, towards
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS
from oc_residual_gym.robots.kinematics import forward_kinematics
from oc_residual_gym.states import CONTROL_FREQUENCY, Array, IntArray
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.worlds.render import POLICY_CAMERAS

MAX_LAG = 6
"""Largest lead or delay (control steps, 0.3 s) of the replay against the log that is removed from the drift."""
FARTHEST, MOST_TURNED = 0.2, 0.8
"""Metres and radians of a target from the tool, within what a base policy may give for its next step."""
SETTLING = 40
"""Control steps (2 s) left for success to occur after the last target."""


class TrackPolicy:
    """Base policy that returns stored targets, one per step, and then holds the last one."""

    name = "replay"
    hash: str | None = None
    horizon = 1
    needs: frozenset[str] = frozenset()
    is_log = True

    def __init__(self) -> None:
        self.targets: dict[int, Array] = {}
        """World index to its targets (P, 8); set them before that world is reset."""
        self._done: dict[int, int] = {}

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        self._done |= dict.fromkeys(worlds.tolist(), 0)

    def predict(self, view: PolicyView) -> Array:
        chunk = np.empty((len(view.worlds), 1, 8))
        for i, world in enumerate(view.worlds.tolist()):
            targets = self.targets[world]
            chunk[i, 0] = targets[min(self._done[world], len(targets) - 1)]
            self._done[world] += 1
        # Where the arm is held far behind its log, a nearer target leads the same way: the leash is shorter than this.
        tool, ahead = view.tcp_pose, chunk[:, 0]
        far = norm(ahead[:, :3] - tool[:, :3]) > FARTHEST
        ahead[far, :3] = tool[far, :3] + clip_norm(ahead[far, :3] - tool[far, :3], FARTHEST)
        ahead[:, 3:7] = towards(tool[:, 3:], ahead[:, 3:7], MOST_TURNED)
        return chunk


class Replayer:
    """Replays logs of one task, several in parallel.

    Args:
        task: the task whose scene and success rule are used.
        worlds: number of demonstrations that run in parallel.
        images: whether to record the images of both cameras at every step.
        domain: physics domain, "nominal" or "twin".
        longest: maximum duration in seconds; a demonstration is kept in memory until it ends.
    """

    def __init__(
        self, task: Task, worlds: int = 32, *, images: bool = False, domain: str = "nominal", longest: float = np.inf
    ):
        self.task, self.images, self.longest = task, images, longest
        self._policy = TrackPolicy()
        self._domain = domain
        self._core = ResidualWorlds(
            task.name, worlds, base_policy=self._policy, domain=domain, errors="clean", max_episode_steps=-1
        )
        self._home = self._home_pose()

    def _home_pose(self) -> Array:
        self._policy.targets[0] = np.append(forward_kinematics(HOME_JOINT_POSITIONS), 1.0)[None]
        self._core.reset(np.array([0]), [0])
        return self._core.world.robot.tcp_pose[0].copy()

    def run(
        self, logs: Iterable[tuple[str, Log]], poses: Mapping[str, Mapping[str, Array]] | None = None
    ) -> Iterator[tuple[str, Demo | LogError]]:
        """Replay ``logs``; yield the name of each with its demonstration, or with the error that prevents its replay.

        Args:
            logs: pairs of the name for the demonstration, and the log.
            poses: start poses (7,) from a sidecar file, by demonstration name and object name.
        """
        waiting = iter(logs)
        running: dict[int, _Run] = {}
        idle = list(range(self._core.num_worlds))
        while True:
            while idle:
                name, log = next(waiting, ("", None))
                if log is None:
                    break
                try:
                    placement = place(log, self.task, None if poses is None else poses.get(name))
                    path = self._checked(make_path(log, placement.shift, self._home))
                except LogError as error:
                    yield name, error
                    continue
                world = idle.pop()
                self._policy.targets[world] = path.targets
                # The seed only draws the physics of a shifted domain.
                seed = zlib.crc32(name.encode())
                self._core.reset(np.array([world]), [seed], [placement.start])
                running[world] = _Run(name, log, placement, path, seed)
            if not running:
                return
            for world in self._step(running):
                run = running.pop(world)
                idle.append(world)
                yield run.name, self._demo(run, world)

    def _checked(self, path: Path) -> Path:
        """Return ``path``; raise ``LogError`` if it is so long that memory might not suffice."""
        seconds = len(path.targets) / CONTROL_FREQUENCY
        if seconds > self.longest:
            most = "the limit with images is" if self.images else "the limit is"
            raise LogError(
                f"it takes {seconds:.0f} s at the robot's speed limits; {most} {self.longest:.0f} s: split it into "
                "shorter ones"
            )
        return path

    def _step(self, running: Mapping[int, _Run]) -> list[int]:
        """Run one control step in the running worlds; return the worlds whose demonstration is over."""
        core, worlds = self._core, np.array(sorted(running))
        for world in worlds.tolist():
            running[world].see(self._state(world))
        core.step(np.zeros((core.num_worlds, 7)), worlds)
        over = []
        for world in worlds.tolist():
            run = running[world]
            run.targets.append(core.executed_target[world].copy())
            run.rewards.append(float(core.reward[world]))
            run.peak_force = max(run.peak_force, float(core.world.peak_contact_force[world]))
            ended = core.terminated[world] or core.truncated[world]
            if ended or len(run.targets) >= len(run.path.targets) + SETTLING:
                run.see(self._state(world))
                over.append(world)
        return over

    def _state(self, world: int) -> dict[str, np.ndarray]:
        core, robot = self._core, self._core.world.robot
        state: dict[str, Any] = {
            "tcp_pose": robot.tcp_pose[world],
            "tcp_velocity": robot.tcp_velocity[world],
            "joint_positions": robot.joint_positions[world],
            "joint_velocities": robot.joint_velocities[world],
            "gripper_width": robot.gripper_width[world],
            "gripper_closed": core.latch.closed[world],
            "wrench": robot.wrench[world],
            "qpos": core.mujoco.physics_state(world)[0],
        }
        object_poses = self.task.object_poses(core.simulation.true)
        state |= {f"objects/{o.name}": pose[world] for o, pose in zip(self.task.objects, object_poses, strict=True)}
        if self.images:
            state |= {f"images/{camera}": core.world.image(world, camera) for camera in POLICY_CAMERAS}
        return {name: np.array(value) for name, value in state.items()}

    def _demo(self, run: _Run, world: int) -> Demo:
        states = {name: np.stack([state[name] for state in run.states]) for name in run.states[0]}
        groups: dict[str, dict[str, np.ndarray]] = {"objects": {}, "images": {}}
        for name in [name for name in states if "/" in name]:
            group, _, member = name.partition("/")
            groups[group][member] = states.pop(name)
        success = bool(self._core.success[world])
        return Demo(
            name=run.name,
            task=self.task.name,
            instruction=self.task.instruction,
            success=success,
            failure=None if success else self._core.name_failure(world),
            target=np.stack(run.targets),
            reward=np.array(run.rewards),
            report=self._report(run, states["tcp_pose"], groups["objects"]),
            objects=groups["objects"],
            images=groups["images"],
            **states,
        )

    def _report(self, run: _Run, tcp: Array, objects: Mapping[str, Array]) -> dict[str, Any]:
        log, placement, path = run.log, run.placement, run.path
        # State t + 1 is the result of target t. Success may cut the path short.
        steps = min(len(tcp) - 1, len(path.targets))
        along = path.rows[:steps] >= 0.0
        rows = path.rows[:steps][along]
        recorded = log.tcp_pose.copy()
        recorded[:, :3] += placement.shift
        ahead, off, turned = _drift(tcp[1 : steps + 1][along], poses_at(recorded, rows))
        report: dict[str, Any] = {
            "file": log.file,
            "demo": log.name,
            "format": log.format,
            "domain": self._domain,
            "seed": run.seed,
            "synthetic": log.synthetic,
            "steps": len(tcp) - 1,
            "seconds_in_log": round(float(log.time[-1]), 3),
            "seconds": (len(tcp) - 1) / CONTROL_FREQUENCY,
            "stretched": round(path.stretched, 4),
            "within_time_limit": len(tcp) - 1 <= self.task.max_episode_steps,
            "ahead_steps": ahead,
            "tcp_drift_mm": _spread(1000.0 * off),
            "tcp_drift_degrees": _spread(np.degrees(turned)),
            "peak_contact_force": round(run.peak_force, 1),
            "object_drift_mm": {},
            "start": {name: pose.tolist() for name, pose in placement.start.poses.items()},
            "assumptions": [*log.assumptions, *placement.assumptions],
        }
        for name, poses in placement.objects.items():
            _, away, _ = _drift(objects[name][1 : steps + 1][along], poses_at(poses, rows), ahead)
            report["object_drift_mm"][name] = _spread(1000.0 * away)
        return report

    def close(self) -> None:
        """Free the simulator's threads."""
        self._core.close()


class _Run:
    """A log that is being replayed in a world, with what was recorded so far."""

    def __init__(self, name: str, log: Log, placement: Placement, path: Path, seed: int):
        self.name, self.log, self.placement, self.path, self.seed = name, log, placement, path, seed
        self.states: list[dict[str, np.ndarray]] = []
        self.targets: list[Array] = []
        self.rewards: list[float] = []
        self.peak_force = 0.0

    def see(self, state: dict[str, np.ndarray]) -> None:
        self.states.append(state)


def _drift(reached: Array, recorded: Array, known: int | None = None) -> tuple[int, Array, Array]:
    """Distances (m) and angles (rad) between two paths (n, 7), after aligning them in time.

    Returns:
        Control steps by which ``reached`` is ahead of ``recorded`` (``known``, else the best fit); distances; angles.
    """
    results = []
    for ahead in range(-MAX_LAG, MAX_LAG + 1) if known is None else (known,):
        late, early = max(ahead, 0), max(-ahead, 0)
        one, other = reached[early : len(reached) - late], recorded[late : len(recorded) - early]
        if len(one):
            off = norm(one[:, :3] - other[:, :3])
            results.append((float(off.mean()), ahead, off, norm(rotation_between(other[:, 3:], one[:, 3:]))))
    if not results:
        return 0, np.zeros(0), np.zeros(0)
    _, ahead, off, turned = min(results, key=lambda result: result[0])
    return ahead, off, turned


def _spread(values: Array) -> dict[str, float]:
    """Mean, largest and last of ``values`` (T,)."""
    if not len(values):
        return {}
    return {k: round(float(v), 2) for k, v in (("mean", values.mean()), ("max", values.max()), ("end", values[-1]))}
