"""The vectorised environment in which a residual policy is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from scipy.spatial.transform import Rotation
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from baselines.residual.memory import Memory
from baselines.residual.privileged import privileged, privileged_size
from baselines.residual.settings import Settings
from baselines.residual.targets import action_to, correction
from oc_residual_gym.envs.observation import BOUND
from oc_residual_gym.envs.sb3 import ResidualVecEnv
from oc_residual_gym.errors import StopReason
from oc_residual_gym.evaluation.rollout import stopped_by_base
from oc_residual_gym.residuals.scripted import ScriptedResidual
from oc_residual_gym.states import IntArray

ADVICE = 7
"""Number of entries of the teacher's action, which come last in the observation."""


class TrainingWorlds(VecEnv):
    """Worlds of one task, an equal share of them in each condition of the settings.

    An observation holds what the policy sees (its own observation and memory), then privileged entries, then the
    teacher's action (zeros without a teacher). The actor sees the first part only.

    Args:
        task: name of the task.
        base: base policy.
        settings: conditions, and how actions and rewards are formed.
        teacher: "planner", "oracle" or "none".
        threads: number of threads that step the worlds.
    """

    def __init__(self, task: str, base: str, settings: Settings, teacher: str = "none", threads: int | None = None):
        share, gamma = settings.worlds // len(settings.conditions), settings.model["gamma"]
        options = {"base_policy": base, "threads": threads}
        self.parts = [
            _Part(ResidualVecEnv(task, share, domain=domain, errors=errors, **options), teacher, gamma)
            for domain, errors in settings.conditions
        ]
        self.driven = np.zeros(settings.worlds, bool)
        """(N,) whether the teacher acts in the current episode; the algorithm asks for it."""
        self.drive_share = 0.0
        """Share of new episodes in which the teacher acts."""
        self.bound = np.array(settings.bound, np.float32)
        self._settings = settings
        # Rewards are scaled by 1 - gamma, so that discounted returns lie in [-1, 0].
        self._scale = 1.0 - gamma
        self._rng = np.random.default_rng(0)
        self._actions = np.zeros((settings.worlds, 7), np.float32)
        self.render_mode = None
        first = self.parts[0]
        self.observation_layout = first.envs.observation_layout
        self.hidden = first.privileged_size + ADVICE
        """Number of entries at the end of an observation that the actor does not see."""
        size = first.memory.width + self.hidden
        space = spaces.Box(-BOUND, BOUND, (size,), np.float32)
        super().__init__(settings.worlds, space, first.envs.single_action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        seeds = super().seed(seed)
        self._rng = np.random.default_rng(seed)
        for i, part in enumerate(self.parts):
            part.worlds._seeds = list(seeds[i * part.worlds.num_envs : (i + 1) * part.worlds.num_envs])
        return seeds

    def reset(self) -> VecEnvObs:
        self._choose_drivers(np.arange(self.num_envs))
        return np.concatenate([part.reset() for part in self.parts])

    def _choose_drivers(self, worlds: IntArray) -> None:
        self.driven[worlds] = self._rng.random(len(worlds)) < self.drive_share

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        steps, sizes = [], []
        for part, actions in zip(self.parts, np.split(self._actions, len(self.parts)), strict=True):
            residual = part.correction(actions) if self._settings.action == "target" else self.bound * actions
            sizes.append(np.square(residual / self.bound).mean(axis=1))
            steps.append(part.step(residual))
        observations, rewards, dones, infos = zip(*steps, strict=True)
        merged = [info for part in infos for info in part]
        done = np.concatenate(dones)
        self._choose_drivers(np.flatnonzero(done))
        reward = np.concatenate(rewards) - self._settings.penalty * np.concatenate(sizes)
        return np.concatenate(observations), (self._scale * reward).astype(np.float32), done, merged

    def close(self) -> None:
        for part in self.parts:
            part.worlds.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise NotImplementedError("worlds share one implementation: attributes cannot differ between them")
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("worlds share one implementation: call methods of `parts` instead")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))


class _Part:
    """The worlds in one condition, with the memory of the policy and the teacher in them."""

    def __init__(self, worlds: ResidualVecEnv, teacher: str, gamma: float):
        self.worlds, self.envs, self._horizon = worlds, worlds.envs, 1.0 / (1.0 - gamma)
        self._core = worlds.envs.core
        self.memory = Memory(worlds.num_envs, self.envs.observation_layout)
        self._teacher = None if teacher == "none" else ScriptedResidual(teacher)
        true = self._core.simulation.true
        self._bodies = len(true.poses)
        self.privileged_size = privileged_size(self._bodies, len(true.contacts))

    def reset(self) -> np.ndarray:
        observations = np.asarray(self.worlds.reset())
        self._begin(np.arange(self.worlds.num_envs))
        return self._whole(observations)

    def correction(self, actions: np.ndarray) -> np.ndarray:
        core = self._core
        return correction(actions, core.executed_target, core.base_target, core.scales)

    def step(self, residual: np.ndarray) -> VecEnvStepReturn:
        self.worlds.step_async(residual)
        with stopped_by_base(self._core):
            observations, rewards, dones, infos = self.worlds.step_wait()
        if self._teacher is not None:
            self._teacher.advance(self._core)
        over = np.flatnonzero(dones)
        for world in over.tolist():
            infos[world]["terminal_observation"] = self._terminal(infos[world], world)
            if infos[world].get("failure") == StopReason.ROBOT_REFLEX:
                # The policy caused this end, so it is terminal for the learner, with the lowest possible return.
                infos[world]["TimeLimit.truncated"] = False
                rewards[world] = -self._horizon
        self._begin(over)
        return self._whole(np.asarray(observations)), rewards, dones, infos

    def _begin(self, worlds: IntArray) -> None:
        """Begin episodes in ``worlds``, which have been reset."""
        self.memory.forget(worlds)
        if self._teacher is not None and len(worlds):
            self._teacher.reset(self._core, worlds)

    def _whole(self, observations: np.ndarray) -> np.ndarray:
        world = self._core.simulation
        seen = privileged(world.robot.tcp_pose, world.critic_state, self._bodies)
        advice = np.zeros((len(observations), ADVICE), np.float32)
        if self._teacher is not None:
            advice = action_to(self._teacher.targets(self._core), self._core.executed_target)
        return np.concatenate([self.memory.recall(observations), seen, advice], axis=1)

    def _terminal(self, info: dict[str, Any], world: int) -> np.ndarray:
        """The last observation of an episode, with its other entries; the teacher has nothing to say about it."""
        observation = info["terminal_observation"]
        tcp_pose = self._tcp_pose(observation)
        seen = privileged(tcp_pose[None], info["critic_state"][None], self._bodies)[0]
        return np.concatenate([self.memory.peek(observation, world), seen, np.zeros(ADVICE, np.float32)])

    def _tcp_pose(self, observation: np.ndarray) -> np.ndarray:
        """TCP pose (7,) from an observation (D,)."""
        parts = {f.name: observation[f.slice] * f.scale for f in self.envs.observation_layout[:2]}
        first, second = parts["tcp_rotation"][:3].astype(float), parts["tcp_rotation"][3:].astype(float)
        matrix = np.column_stack([first, second, np.cross(first, second)])
        return np.concatenate([parts["tcp_position"], Rotation.from_matrix(matrix).as_quat()])
