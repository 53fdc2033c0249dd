"""The vector environment: N residual environments that are stepped together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from oc_residual_gym.envs.actions import checked
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.episodes import check_seed, draw_seed
from oc_residual_gym.envs.observation import Field
from oc_residual_gym.envs.options import EnvOptions
from oc_residual_gym.envs.residual_env import check_options
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.states import CONTROL_FREQUENCY, Array, BoolArray, IntArray

AUTORESET_MODES = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)


class ResidualVectorEnv(VectorEnv, EzPickle):
    """N worlds of one task. Each gives the same episodes as a :class:`ResidualEnv` with its seeds, bit for bit.

    Args:
        num_envs: N.
        task: task name, "module:Class", a subclass of ``Task`` or an instance.
        autoreset_mode: ``AutoresetMode.NEXT_STEP`` (the next step resets a finished world and ignores its action) or
            ``SAME_STEP`` (the world is reset at once; ``infos["final_obs"]`` and ``infos["final_info"]`` hold the
            last observation and info).
        options: as for :class:`ResidualEnv`.

    Raises:
        ValueError: an option has an invalid value; the message lists the valid ones.
        TypeError: an option is unknown.
    """

    def __init__(
        self,
        num_envs: int,
        task: Any,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **options: Any,
    ):
        EzPickle.__init__(self, num_envs, task, autoreset_mode, **options)
        self.options = EnvOptions.of(type(self).__name__, options)
        if self.options.render_mode == "human":
            raise SettingsError("the vector environment has no render_mode 'human': use 'rgb_array'")
        self._same_step = _autoreset_mode(autoreset_mode) is AutoresetMode.SAME_STEP
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": int(CONTROL_FREQUENCY),
            "autoreset_mode": _autoreset_mode(autoreset_mode),
        }
        self.core = ResidualWorlds(task, num_envs, self.options)
        self.num_envs = num_envs
        self.render_mode = self.options.render_mode
        self._as_dict = self.options.obs_mode == "dict"
        builder = self.core.observation_builder
        self.single_observation_space = builder.dict_space() if self._as_dict else builder.space()
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [np.random.default_rng() for _ in range(num_envs)]
        self._finished = np.zeros(num_envs, bool)

    @property
    def observation_layout(self) -> tuple[Field, ...]:
        """Name, slice, unit, frame and scale of every part of the flat observation."""
        return self.core.observation_layout

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every world: with seeds ``seed + i``, the seeds listed, or seeds drawn from the split.

        If the base policy fails to return a world's first targets, the first step truncates that world.

        Raises:
            ValueError: the split does not have a seed, their number is not N, or ``options`` is not empty.
        """
        check_options(options)
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, (int, np.integer)) else seed
        if seeds is None:
            seeds = [None] * self.num_envs
        if len(seeds) != self.num_envs:
            raise ValueError(f"got {len(seeds)} seeds for {self.num_envs} worlds")
        for i, s in enumerate(seeds):
            if s is not None:
                check_seed(self.core.split, s)
                self._rngs[i] = np.random.default_rng(s)
        self._start(np.arange(self.num_envs), seeds)
        self._finished[:] = False
        return self._observation(), self._infos()

    def step(self, actions: Array) -> tuple[Any, Array, BoolArray, BoolArray, dict[str, Any]]:
        """Execute one control step with residual actions (N, 7).

        Raises:
            ValueError: the actions have the wrong shape or a non-finite entry; nothing has moved.
        """
        core = self.core
        actions = checked(actions, self.num_envs)
        waiting = np.flatnonzero(self._finished)
        if len(waiting):
            running = np.flatnonzero(~self._finished)
            self._start(waiting)
            self._finished[waiting] = False
            core.step(actions, running)
        else:
            core.step(actions)
        rewards, terminated, truncated = core.reward.copy(), core.terminated.copy(), core.truncated.copy()
        done = terminated | truncated
        infos = self._infos(done)
        if self._same_step:
            if done.any():
                infos = self._restart(done, infos)
        else:
            self._finished = done
        return self._observation(), rewards, terminated, truncated, infos

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Return one (height, width, 3) uint8 image per world with ``render_mode="rgb_array"``."""
        if self.render_mode is None:
            return None
        options, simulation = self.options, self.core.simulation
        return tuple(simulation.render(i, options.camera, options.render_size, "full") for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the threads."""
        self.core.close()

    def _start(self, worlds: IntArray, seeds: Sequence[int | None] | None = None) -> None:
        given = seeds if seeds is not None else [None] * len(worlds)
        drawn = [
            draw_seed(self.core.split, self._rngs[w]) if s is None else s for w, s in zip(worlds, given, strict=True)
        ]
        self.core.reset(worlds, drawn)

    def _restart(self, done: np.ndarray, final_infos: dict[str, Any]) -> dict[str, Any]:
        """Reset the finished worlds in the same step; keep their last observations and infos."""
        finals = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(done):
            flat = self.core.observation[i].copy()
            finals[i] = self.core.observation_builder.as_dict(flat) if self._as_dict else flat
        self._start(np.flatnonzero(done))
        infos = self._infos()
        infos["final_obs"], infos["_final_obs"] = finals, done.copy()
        infos["final_info"], infos["_final_info"] = final_infos, done.copy()
        return infos

    def _observation(self) -> Any:
        flat = self.core.observation.copy()
        return self.core.observation_builder.as_dict(flat) if self._as_dict else flat

    def _infos(self, done: np.ndarray | None = None) -> dict[str, Any]:
        core, every = self.core, np.ones(self.num_envs, bool)
        values: dict[str, Any] = {
            "success": core.success.copy(),
            "is_success": core.success.copy(),
            "executed_target": core.executed_target.copy(),
            "base_target": core.base_target.copy(),
            "critic_state": core.simulation.critic_state,
            "seed": core.seeds.copy(),
        }
        infos: dict[str, Any] = {}
        for key, value in values.items():
            infos[key], infos[f"_{key}"] = value, every.copy()
        infos["reward_terms"] = {**core.reward_terms, **{f"_{name}": every.copy() for name in core.reward_terms}}
        infos["_reward_terms"] = every
        if core.base_policy_failed.any():
            infos["base_policy_problem"] = np.array([problem or None for problem in core.base_policy_problem], object)
            infos["_base_policy_problem"] = core.base_policy_failed.copy()
        if done is not None and done.any():
            infos["failure"] = np.array(core.failure, object)
            infos["_failure"] = done.copy()
        return infos


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    value = mode.value if isinstance(mode, AutoresetMode) else mode
    return AutoresetMode(one_of("autoreset_mode", value, [m.value for m in AUTORESET_MODES]))
