"""The options of an environment: what each one means, and which values it accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Self

from oc_residual_gym.envs.actions import ResidualScales
from oc_residual_gym.envs.episodes import SPLITS, integer
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.perception.errors import PoseErrorModel, error_model_of
from oc_residual_gym.tasks.base import Task
from oc_residual_gym.worlds.base import World
from oc_residual_gym.worlds.domains import Domain, domain_of
from oc_residual_gym.worlds.render import CAMERAS

REWARDS = ("dense", "sparse")
OBS_MODES = ("flat", "dict")
RENDER_MODES = ("rgb_array", "human")


@dataclass(frozen=True)
class EnvOptions:
    """Options of the single and the vector environment.

    Raises:
        SettingsError: an option has an invalid value; the message lists the valid ones.
    """

    base_policy: Any = None
    """Name, file, server, callable or object: see :func:`oc_residual_gym.policies.load_base_policy`. ``None`` is the
    task's default: "bc" for the tasks of this package, "hold" for others."""
    domain: str | Domain = "nominal"
    """Physics: "nominal"; "twin", held-out test physics; or your own :class:`Domain`, for training."""
    errors: str | PoseErrorModel = "paper"
    """Pose noise: "clean", "paper", "tracker", or your own :class:`PoseErrorModel`."""
    split: str = "train"
    """Seed stream of the initial states: "train", "val" or "test"."""
    reward: str = "dense"
    """Reward: "dense" (progress - 1) or "sparse" (-1 until success)."""
    obs_mode: str = "flat"
    """Observation format: "flat" or "dict"."""
    position_scale: float = ResidualScales.position
    """Metres per axis that an action of 1 adds to the base policy's target position."""
    rotation_scale: float = ResidualScales.rotation
    """Radians per axis of the rotation vector, for an action of 1."""
    gripper_scale: float = ResidualScales.gripper
    """Gripper opening that an action of 1 adds; the full range is 1."""
    render_mode: str | None = None
    """How to render: "rgb_array", "human" or ``None``."""
    camera: str = "person"
    """View for "rgb_array": "person", "shoulder" or "wrist"."""
    render_size: tuple[int, int] = (480, 640)
    """Image height and width in pixels for "rgb_array"."""
    max_episode_steps: int | None = None
    """Control steps after which an episode is truncated; ``None`` means the task's limit, and -1 means none, as for
    ``gym.make``, whose ``TimeLimit`` wrapper counts the steps itself."""
    threads: int | None = None
    """Number of threads that step the worlds; by default one per core."""
    world: World | None = None
    """Your own simulation or a real cell, used instead of the MuJoCo simulation."""

    def __post_init__(self) -> None:
        domain_of(self.domain)
        error_model_of(self.errors)
        one_of("split", self.split, SPLITS)
        one_of("reward", self.reward, REWARDS)
        one_of("obs_mode", self.obs_mode, OBS_MODES)
        one_of("camera", self.camera, CAMERAS)
        if self.render_mode is not None:
            one_of("render_mode", self.render_mode, RENDER_MODES)
        if len(self.render_size) != 2 or min(self.render_size) < 1:
            raise SettingsError(f"render_size is {self.render_size!r}: give height and width in pixels")
        steps = self.max_episode_steps
        if steps is not None and not _is_limit(steps):
            raise SettingsError(
                f"max_episode_steps is {steps!r}: give at least 1, None for the task's limit, or -1 for no limit"
            )
        _ = self.scales  # checks them

    @classmethod
    def of(cls, owner: str, keywords: Mapping[str, Any], options: Self | None = None) -> Self:
        """Build the options from the keyword arguments of ``owner``, or take ``options`` where there are no keywords.

        Raises:
            TypeError: an option is unknown; the message lists the valid ones. Or both are given.
            SettingsError: an option has an invalid value.
        """
        names = [field.name for field in fields(cls)]
        for keyword in keywords:
            if keyword not in names:
                similar = "".join(f" (did you mean {name}?)" for name in get_close_matches(keyword, names, 1))
                # torchrl looks for the words "unexpected keyword argument".
                raise TypeError(
                    f"{owner} got an unexpected keyword argument {keyword!r}{similar}: its options are "
                    f"{', '.join(names)}"
                )
        if options is not None and keywords:
            raise TypeError(f"{owner} got options and keywords: put {', '.join(keywords)} into the options")
        return cls(**keywords) if options is None else options

    def step_limit(self, task: Task) -> int:
        """Control steps after which an episode of ``task`` is truncated; 0 for no limit."""
        if self.max_episode_steps is None:
            return task.max_episode_steps
        return max(0, int(self.max_episode_steps))

    @property
    def scales(self) -> ResidualScales:
        """Corrections for a residual action of 1."""
        return ResidualScales(self.position_scale, self.rotation_scale, self.gripper_scale)


def _is_limit(steps: Any) -> bool:
    """Whether ``steps`` is a number of control steps, or -1."""
    number = integer(steps)
    return number is not None and (number > 0 or number == -1)
