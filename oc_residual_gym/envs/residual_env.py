"""The Gymnasium environment: a frozen base policy acts, and your action corrects it."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import EzPickle

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.envs.episodes import draw_seed, episode_seed
from oc_residual_gym.envs.observation import Field
from oc_residual_gym.envs.options import RENDER_MODES, EnvOptions
from oc_residual_gym.errors import BasePolicyError
from oc_residual_gym.states import CONTROL_FREQUENCY
from oc_residual_gym.worlds.base import Simulation


class ResidualEnv(gym.Env, EzPickle):
    """One cell with an FR3 arm. A frozen base policy controls the arm; the agent's action corrects it at 20 Hz.

    ## Action Space
    `Box(-1, 1, (7,), float32)`. The zero action executes the base policy alone. Values outside [-1, 1] are clipped.

    | entries | meaning | an action of 1 |
    |---|---|---|
    | 0-2 | offset added to the base policy's target position, base frame | 20 mm |
    | 3-5 | rotation vector in the tool frame, multiplied on the right of the base target's rotation | 0.1 rad |
    | 6 | offset added to the base target's gripper opening (0 closed, 1 open) | 0.6 |

    The corrected target is then limited, in this order, by a workspace box, a rate of 10 mm and 0.03 rad per step, a
    leash of 40 mm and 0.2 rad around the measured TCP pose, and the gripper latch.

    ## Observation Space
    `Box(-10, 10, (58 + 20 K,), float32)` for K observed objects, or a `Dict` of its named parts with
    `obs_mode="dict"`. It holds only what a real cell can measure: TCP pose and velocity, gripper, wrench estimate,
    previous executed target, upcoming base targets and chunk phase, and each object's filtered pose, validity and age.
    Rotations are 6D or rotation vectors. `env.unwrapped.observation_layout` gives the name, slice, unit, frame and
    scale of every part.

    ## Rewards
    "dense": 0 while the success condition holds, otherwise progress - 1, with progress in [0, 1) from the task's
    milestones. "sparse": -1 until success, then 0. Rewards are never positive, so finishing early never costs return.

    ## Episode End
    The episode terminates only on success: the success condition has held for 0.5 s. It is truncated at the time limit
    (with `gym.make`, by Gymnasium's `TimeLimit`) or by a fault.

    ## Info
    | key | meaning |
    |---|---|
    | `success`, `is_success` | whether the episode has succeeded |
    | `executed_target`, `base_target` | (8,) last executed target; base policy's target for the next step |
    | `reward_terms` | milestone name to its weighted value |
    | `seed` | seed of the episode |
    | `critic_state` | (C,) privileged true state, in simulation only |
    | `failure` | from `step` only: why the episode failed if it ends here, `None` after success |
    | `base_policy_problem` | only if the base policy failed: how, and what to do |

    A target is position (m, base frame), quaternion xyzw and gripper opening. `failure` is a fault ("robot_reflex",
    "diverged", "base_policy_failed", ...), the first milestone missed ("no_grasp", ...), or "not_held".

    ## Arguments
    | argument | default | meaning |
    |---|---|---|
    | `base_policy` | `None` | "bc", "vla", "hold", "expert", "expert-offset", a server, a file, a callable |
    | `domain` | `"nominal"` | physics: "nominal", "twin" (held-out test physics), or your own `Domain` |
    | `errors` | `"paper"` | pose noise: "clean", "paper", "tracker", or your own `PoseErrorModel` |
    | `split` | `"train"` | seed stream of start states: "train", "val" or "test" (the last two have 500 seeds each) |
    | `reward` | `"dense"` | "dense" or "sparse" |
    | `obs_mode` | `"flat"` | "flat" or "dict" |
    | `position_scale`, `rotation_scale`, `gripper_scale` | 0.02, 0.1, 0.6 | correction for an action of 1 (m, rad, -) |
    | `render_mode` | `None` | "rgb_array" or "human" |
    | `camera`, `render_size` | `"person"`, `(480, 640)` | view and (height, width) in pixels for "rgb_array" |
    | `max_episode_steps` | `None` | time limit in control steps; `None` is the task's limit, -1 is none |
    | `world` | `None` | world to use instead of MuJoCo's: your own simulation, or a real cell (`real.world.FR3World`) |

    The default `base_policy` is "bc" for the tasks of this package. For other tasks it is "hold", with a warning.

    Raises:
        ValueError: an argument has an invalid value; the message lists the valid ones.
        TypeError: an argument is unknown.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": int(CONTROL_FREQUENCY)}

    def __init__(self, task: Any, **options: Any):
        EzPickle.__init__(self, task, **options)
        self.options = EnvOptions.of(type(self).__name__, options)
        self.core = ResidualWorlds(task, 1, self.options)
        self.__doc__ = f"{inspect.getdoc(type(self.core.task))}\n\n{inspect.getdoc(type(self))}"
        self.render_mode = self.options.render_mode
        self._as_dict = self.options.obs_mode == "dict"
        self._viewer: Any = None
        self._world = np.zeros(1, np.int64)
        self._simulated = isinstance(self.core.world, Simulation)
        builder = self.core.observation_builder
        self.observation_space = builder.dict_space() if self._as_dict else builder.space()
        self.action_space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)

    @property
    def observation_layout(self) -> tuple[Field, ...]:
        """Name, slice, unit, frame and scale of every part of the flat observation."""
        return self.core.observation_layout

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. ``seed`` determines it completely; without one, a seed is drawn from the split.

        Raises:
            SettingsError: the split does not have the seed, or it is not an integer. A seed of 10,000 or more, as tools
                draw it where their user gave none, draws one of the seeds of "val" or "test"; ``info["seed"]`` has it.
            ValueError: ``options`` is not empty (no options exist).
            BasePolicyError: the base policy failed to return its first targets.
        """
        check_options(options)
        episode = None if seed is None else episode_seed(self.core.split, seed)
        super().reset(seed=None if seed is None else operator.index(seed))
        if episode is None:
            episode = draw_seed(self.core.split, self.np_random)
        self.core.reset(self._world, [episode])
        if self.core.base_policy_failed[0]:
            raise BasePolicyError(self.core.base_policy_problem[0])
        self._show()
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute one control step with a residual action (7,).

        Raises:
            ValueError: the action has the wrong shape or a non-finite entry; nothing has moved.
        """
        action = np.asarray(action, np.float64)
        if action.shape != (7,):
            raise ValueError(f"the action has shape {action.shape}; expected (7,): position, rotation vector, gripper")
        core = self.core
        core.step(action[None])
        self._show()
        info = self._info()
        # Only Gymnasium's TimeLimit wrapper knows which step is the last, so every step names a failure.
        info["failure"] = None if core.success[0] else core.name_failure(0)
        if core.base_policy_failed[0]:
            info["base_policy_problem"] = core.base_policy_problem[0]
        return self._observation(), float(core.reward[0]), bool(core.terminated[0]), bool(core.truncated[0]), info

    def render(self) -> np.ndarray | None:
        """Return a (height, width, 3) uint8 image with ``render_mode="rgb_array"``; "human" draws at every step."""
        if self.render_mode is None:
            gym.logger.warn("render() needs a render_mode: gym.make(..., render_mode='rgb_array')")
        if self.render_mode != "rgb_array":
            return None
        return self.core.simulation.render(0, self.options.camera, self.options.render_size, "full")

    def close(self) -> None:
        """Stop the threads and close the window."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None
        self.core.close()

    def _show(self) -> None:
        if self.render_mode == "human":
            if self._viewer is None:
                from oc_residual_gym.worlds.render import HumanViewer

                self._viewer = HumanViewer(self.core.task)
            self._viewer.show(self.core.mujoco, 0)

    def _observation(self) -> Any:
        flat = self.core.observation[0].copy()
        return self.core.observation_builder.as_dict(flat) if self._as_dict else flat

    def _info(self) -> dict[str, Any]:
        core = self.core
        success = bool(core.success[0])
        return {
            "success": success,
            "is_success": success,
            "executed_target": core.executed_target[0].copy(),
            "base_target": core.base_target[0].copy(),
            "reward_terms": {name: float(value[0]) for name, value in core.reward_terms.items()},
            "seed": int(core.seeds[0]),
            **({"critic_state": core.simulation.critic_state[0]} if self._simulated else {}),
        }


def make_env(task: Any, **options: Any) -> ResidualEnv:
    """Entry point of ``gym.make``: a :class:`ResidualEnv` without a limit of its own, for ``TimeLimit`` sets one."""
    return ResidualEnv(task, max_episode_steps=-1, **options)


make_env.metadata = ResidualEnv.metadata  # type: ignore[attr-defined] # gym.make looks for render modes there


def check_options(options: dict[str, Any] | None) -> None:
    """Raise ``ValueError`` if reset options are given: the environments have none."""
    if options:
        raise ValueError(f"unknown reset options {', '.join(map(repr, options))}: this environment has none")
