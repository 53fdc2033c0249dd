"""The vector environment: N residual environments that are stepped together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from oc_residual_gym.envs.actions import checked
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.episodes import draw_seed, episode_seeds, given_seeds
from oc_residual_gym.envs.observation import Field
from oc_residual_gym.envs.options import EnvOptions
from oc_residual_gym.envs.residual_env import check_options
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.states import CONTROL_FREQUENCY, Array, BoolArray, IntArray

MADE_ONCE = frozenset(field.name for field in fields(EnvOptions)) - {"render_mode"} | {
    "options",
    "core",
    "num_envs",
    "autoreset_mode",
    "metadata",
}
"""Attributes that other parts of the environment were made from: setting them would change nothing."""


class ResidualVectorEnv(VectorEnv, EzPickle):
    """N worlds of one task. Each gives the same episodes as a :class:`ResidualEnv` with its seeds, bit for bit.

    Args:
        num_envs: N.
        task: task name, "module:Class", a subclass of ``Task`` or an instance.
        autoreset_mode: ``AutoresetMode.NEXT_STEP`` (the next step resets a finished world and ignores its action),
            ``SAME_STEP`` (the world is reset at once; ``infos["final_obs"]`` and ``infos["final_info"]`` hold the
            last observation and info) or ``DISABLED`` (call ``reset(options={"reset_mask": ...})``).
        options: as for :class:`ResidualEnv`.

    Raises:
        SettingsError: an option has an invalid value; the message lists the valid ones.
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
        mode = autoreset_mode.value if isinstance(autoreset_mode, AutoresetMode) else autoreset_mode
        self.autoreset_mode = AutoresetMode(one_of("autoreset_mode", mode, [m.value for m in AutoresetMode]))
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": int(CONTROL_FREQUENCY),
            "autoreset_mode": self.autoreset_mode,
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

        With ``options={"reset_mask": mask}``, (N,) of bool, only the worlds in the mask start one, and only they have
        infos. If the base policy fails to return a world's first targets, the first step truncates that world.

        Raises:
            SettingsError: the split does not have a seed, their number is not N, or the mask is not (N,) of bool with
                at least one true entry.
            ValueError: there are other options.
        """
        given = {**(options or {})}
        mask = self._mask(given.pop("reset_mask")) if "reset_mask" in given else np.ones(self.num_envs, bool)
        check_options(given)
        told = given_seeds(seed, self.num_envs)
        seeds = episode_seeds(self.core.split, told)
        worlds = np.flatnonzero(mask)
        for world in worlds:
            if told[world] is not None:
                self._rngs[world] = np.random.default_rng(told[world])
        self._start(worlds, [seeds[world] for world in worlds])
        self._finished[worlds] = False
        return self._observation(), self._infos(mask)

    def step(self, actions: Array) -> tuple[Any, Array, BoolArray, BoolArray, dict[str, Any]]:
        """Execute one control step with residual actions (N, 7).

        Raises:
            ValueError: the actions have the wrong shape or a non-finite entry; nothing has moved.
            gymnasium.error.ResetNeeded: with ``DISABLED``, a world has finished and was not reset; nothing has moved.
        """
        core = self.core
        actions = checked(actions, self.num_envs)
        waiting = np.flatnonzero(self._finished)
        if len(waiting) and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded(
                f"the episodes of worlds {waiting.tolist()} have ended: reset them with "
                'reset(options={"reset_mask": terminated | truncated})'
            )
        if len(waiting):
            running = np.flatnonzero(~self._finished)
            self._start(waiting)
            self._finished[waiting] = False
            core.step(actions, running)
        else:
            core.step(actions)
        rewards, terminated, truncated = core.reward.copy(), core.terminated.copy(), core.truncated.copy()
        done = terminated | truncated
        infos = self._infos(done=done)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
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

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Value of the attribute ``name`` in each of the N worlds, or what the method ``name`` returns there.

        Spaces are those of one world. Of the methods, only ``render`` can be called per world.

        Raises:
            AttributeError: there is no such attribute.
            NotImplementedError: it is another method.
        """
        if name == "render":
            return self.render(*args, **kwargs) or (None,) * self.num_envs
        value = getattr(self, f"single_{name}" if name in ("observation_space", "action_space") else name)
        if callable(value):
            raise NotImplementedError(f"the worlds are stepped together: call {name}() of the vector environment")
        return (value,) * self.num_envs

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Value of the attribute ``name`` in each of the N worlds. Raises ``AttributeError`` if there is none."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute in all worlds, to one value or to a list or tuple of N equal ones.

        Raises:
            SettingsError: the values differ, their number is not N, or the attribute cannot change any more.
        """
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise SettingsError(f"got {len(values)} values for {self.num_envs} worlds")
        if any(not np.array_equal(value, values[0]) for value in values):
            raise SettingsError(f"worlds share one implementation: {name} cannot differ between them")
        if name in MADE_ONCE:
            raise SettingsError(f"{name} is fixed when an environment is made: make another one")
        setattr(self, name, values[0])

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

    def _mask(self, mask: Any) -> BoolArray:
        array = np.asarray(mask)
        if array.dtype != bool or array.shape != (self.num_envs,) or not array.any():
            raise SettingsError(f"reset_mask is {mask!r}: give {self.num_envs} bools, with at least one True")
        return array

    def _infos(self, every: BoolArray | None = None, done: np.ndarray | None = None) -> dict[str, Any]:
        """Infos of the worlds in the mask ``every``, by default of all; "failure" of those in ``done``."""
        core = self.core
        every = np.ones(self.num_envs, bool) if every is None else every
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
        infos["_reward_terms"] = every.copy()
        if core.base_policy_failed.any():
            infos["base_policy_problem"] = np.array([problem or None for problem in core.base_policy_problem], object)
            infos["_base_policy_problem"] = core.base_policy_failed & every
        if done is not None and done.any():
            infos["failure"] = np.array(core.failure, object)
            infos["_failure"] = done.copy()
        return infos
