"""The vectorised environment in which a residual policy is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from scipy.spatial.transform import Rotation
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn

from baselines.residual.privileged import privileged, privileged_size
from oc_residual_gym.envs.observation import BOUND
from oc_residual_gym.envs.sb3 import ResidualVecEnv
from oc_residual_gym.evaluation.rollout import stopped_by_base


class TrainingWorlds(VecEnv):
    """Worlds of one task in ``nominal``, with an equal share of them under each pose error model.

    Args:
        task: name of the task.
        base: base policy.
        num_envs: total number of worlds.
        errors: pose error models.
        bound: (7,) residual action that corresponds to an action of 1.
        penalty: factor on the mean square of the action, which is subtracted from the reward, so that the policy
            corrects only where it pays.
        reward_scale: factor on rewards.
        threads: number of threads that step the worlds.
    """

    def __init__(
        self,
        task: str,
        base: str,
        num_envs: int,
        errors: Sequence[str],
        bound: Sequence[float],
        penalty: float,
        reward_scale: float,
        threads: int | None,
    ):
        share = num_envs // len(errors)
        self.parts = [ResidualVecEnv(task, share, base_policy=base, errors=e, threads=threads) for e in errors]
        self.bound = np.array(bound, np.float32)
        self._penalty, self._scale = penalty, reward_scale
        self._actions = np.zeros((num_envs, len(self.bound)), np.float32)
        first = self.parts[0].envs
        self.render_mode = None
        self.observation_layout = first.observation_layout
        true = first.core.simulation.true
        self._bodies = len(true.poses)
        size = self.observation_layout[-1].stop + privileged_size(self._bodies, len(true.contacts))
        space = spaces.Box(-BOUND, BOUND, (size,), np.float32)
        super().__init__(num_envs, space, first.single_action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        seeds = super().seed(seed)
        for i, part in enumerate(self.parts):
            part._seeds = list(seeds[i * part.num_envs : (i + 1) * part.num_envs])
        return seeds

    def reset(self) -> VecEnvObs:
        observations = [np.asarray(part.reset()) for part in self.parts]
        return np.concatenate(
            [self._with_privileged(o, part) for o, part in zip(observations, self.parts, strict=True)]
        )

    def _with_privileged(self, observations: np.ndarray, part: ResidualVecEnv) -> np.ndarray:
        """Append the privileged entries of the worlds of ``part`` to their observations."""
        world = part.envs.core.simulation
        seen = privileged(world.robot.tcp_pose, world.critic_state, self._bodies)
        return np.concatenate([observations, seen], axis=1)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions
        for part, rows in zip(self.parts, np.split(self.bound * actions, len(self.parts)), strict=True):
            part.step_async(rows)

    def step_wait(self) -> VecEnvStepReturn:
        steps = []
        for part in self.parts:
            with stopped_by_base(part.envs.core):
                observations, rewards, dones, infos = part.step_wait()
            for world in np.flatnonzero(dones):
                infos[world]["terminal_observation"] = self._terminal(infos[world])
            steps.append((self._with_privileged(np.asarray(observations), part), rewards, dones, infos))
        observations, rewards, dones, infos = zip(*steps, strict=True)
        merged = [info for part in infos for info in part]
        reward = np.concatenate(rewards) - self._penalty * np.square(self._actions).mean(axis=1)
        return np.concatenate(observations), (self._scale * reward).astype(np.float32), np.concatenate(dones), merged

    def _terminal(self, info: dict[str, Any]) -> np.ndarray:
        """The last observation of an episode, with its privileged entries."""
        observation = info["terminal_observation"]
        tcp_pose = self._tcp_pose(observation)
        seen = privileged(tcp_pose[None], info["critic_state"][None], self._bodies)[0]
        return np.concatenate([observation, seen])

    def _tcp_pose(self, observation: np.ndarray) -> np.ndarray:
        """TCP pose (7,) from an observation (D,)."""
        parts = {f.name: observation[f.slice] * f.scale for f in self.observation_layout[:2]}
        first, second = parts["tcp_rotation"][:3].astype(float), parts["tcp_rotation"][3:].astype(float)
        matrix = np.column_stack([first, second, np.cross(first, second)])
        return np.concatenate([parts["tcp_position"], Rotation.from_matrix(matrix).as_quat()])

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        raise NotImplementedError("worlds share one implementation: attributes cannot differ between them")

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError("worlds share one implementation: call methods of `parts` instead")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))
