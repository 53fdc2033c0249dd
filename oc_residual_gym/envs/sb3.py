"""For Stable-Baselines3: an adapter to its own ``VecEnv`` interface, and a callback that starts at the base policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import nn

from oc_residual_gym.envs.episodes import episode_seeds, given_seeds
from oc_residual_gym.envs.vector_env import ResidualVectorEnv


class ResidualVecEnv(VecEnv):
    """N worlds for Stable-Baselines3: ``SAC("MlpPolicy", ResidualVecEnv("Lift", 16))``.

    At the end of an episode, its info has ``terminal_observation`` and ``TimeLimit.truncated``, so that SB3 bootstraps
    from time limits and faults but not from success.

    Args:
        task: task name, "module:Class", a subclass of ``Task`` or an instance.
        num_envs: N.
        options: as for :class:`ResidualVectorEnv`.
    """

    def __init__(self, task: Any, num_envs: int, **options: Any):
        self.envs = ResidualVectorEnv(num_envs, task, autoreset_mode=AutoresetMode.SAME_STEP, **options)
        self.render_mode = self.envs.render_mode
        self._actions = np.zeros((num_envs, 7))
        super().__init__(num_envs, self.envs.single_observation_space, self.envs.single_action_space)
        self.metadata["render_fps"] = self.envs.metadata["render_fps"]  # the frame rate of VecVideoRecorder

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Set the seeds of the next reset: ``seed`` to ``seed + N - 1``, or seeds drawn from the split.

        Raises:
            SettingsError: the split does not have one of them.
        """
        self._seeds = episode_seeds(self.envs.core.split, given_seeds(seed, self.num_envs))
        return self._seeds

    def reset(self) -> VecEnvObs:
        observation, infos = self.envs.reset(seed=self._seeds)
        self.reset_infos = [_world_info(infos, i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observation, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        done = terminated | truncated
        sources = [infos["final_info"] if d else infos for d in done]
        world_infos = [_world_info(source, i) for i, source in enumerate(sources)]
        for i in np.flatnonzero(done):
            world_infos[i]["terminal_observation"] = infos["final_obs"][i]
            world_infos[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return observation, rewards.astype(np.float32), done, world_infos

    def close(self) -> None:
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        return self.envs.render() or [None] * self.num_envs

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        values = self.envs.get_attr(attr_name)
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise NotImplementedError(f"worlds share one implementation: {attr_name} cannot differ between them")
        self.envs.set_attr(attr_name, [value] * self.num_envs)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        results = self.envs.call(method_name, *args, **kwargs)
        return [results[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))


class StartAtBase(BaseCallback):
    """Sets the mean action of SAC, TD3 or PPO to zero when training begins: ``learn(100_000, callback=StartAtBase())``.

    SAC's and TD3's random weights correct by about 1 mm in one direction, which halves the success of a precise base
    policy. The size of the exploration is not changed: it belongs into the algorithm's settings, as in
    ``examples/rl_zoo3``. A model that has been trained before is left as it is.
    """

    def _on_training_start(self) -> None:
        policy: Any = self.model.policy
        if getattr(self.model, "_n_updates", 0):
            return
        if hasattr(policy, "action_net"):
            networks = [policy.action_net]
        else:
            networks = [
                actor.mu for actor in (policy.actor, getattr(policy, "actor_target", None)) if actor is not None
            ]
        for network in networks:
            *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def _on_step(self) -> bool:
        return True


def _world_info(infos: dict[str, Any], world: int) -> dict[str, Any]:
    info: dict[str, Any] = {key: infos[key][world] for key in ("executed_target", "base_target", "critic_state")}
    info["success"] = info["is_success"] = bool(infos["success"][world])
    info["seed"] = int(infos["seed"][world])
    if infos.get("failure") is not None and infos["failure"][world] is not None:
        info["failure"] = infos["failure"][world]
    if infos.get("base_policy_problem") is not None and infos["base_policy_problem"][world] is not None:
        info["base_policy_problem"] = infos["base_policy_problem"][world]
    return info
