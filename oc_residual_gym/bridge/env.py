"""``OCResidual``, the environment that this package registers with robosuite."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import SubElement

import mujoco
import numpy as np
from robosuite.controllers import load_composite_controller_config
from robosuite.environments.manipulation.manipulation_env import ManipulationEnv
from robosuite.utils.observables import Observable, sensor

from oc_residual_gym.bridge.scene import compose_around
from oc_residual_gym.envs.episodes import SPLITS, check_seed, draw_seed, start_of
from oc_residual_gym.errors import one_of
from oc_residual_gym.geometry import WXYZ_FROM_XYZW, XYZW_FROM_WXYZ
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.states import Array, BoolArray, TrueState
from oc_residual_gym.tasks import resolve_task
from oc_residual_gym.tasks.base import InitialState
from oc_residual_gym.worlds.scene import GRIPPER, HAND, PHYSICS_TIMESTEP, TCP_SITE, body_names

CONTROLLER_CONFIG = Path(__file__).parent / "fr3_controller.json"
"""Default controllers: robosuite's for its Panda, end-effector displacements by operational space control."""

# The model's numeric field that says which episode it is: the split's number, then the seed in parts of five
# digits, because MuJoCo saves six digits of a number.
_EPISODE = "episode"
_SEED_UNITS = 10 ** (5 * np.arange(4))


class OCResidual(ManipulationEnv):
    """The scene of one task under robosuite's controllers: FR3 at the world's origin, table top at z = 0.

    Objects, physics, start states, success and progress are those of ``OCResidual-<task>-v0``, and as there
    an episode is a seed of a split. robosuite's ``seed`` starts the generator that draws the episodes' seeds.
    ``env.get_ep_meta()`` returns task, split and seed of the current episode; ``env.set_ep_meta({"seed": 3})``
    makes every reset start that one, until ``env.unset_ep_meta()``. There is no base policy and no pose noise,
    and only the controller limits the action; the hand is driven by robosuite's gripper control.

    Reward: 1 while the task's success condition holds; otherwise 0 or, with ``reward_shaping``, the task's
    progress in [0, 1), which is the dense reward of ``OCResidual-<task>-v0`` plus 1. As always in robosuite,
    success does not end an episode.

    Observations besides the robot's, for each object that the task observes: ``<object>_pos`` and
    ``<object>_quat`` (xyzw) in the world, ``<object>_to_robot0_eef_pos`` and ``<object>_to_robot0_eef_quat``
    relative to the hand.

    Args:
        robots: "FR3".
        task: its name, "module:Class", a subclass of ``Task`` or an instance.
        split: seed stream of the start states, "train", "val" or "test".
        controller_configs: as robosuite has it; by default :data:`CONTROLLER_CONFIG`.
        gripper_types: "default" or "FR3Hand", which is the same.
        use_object_obs: whether to observe the objects.
        reward_scale: factor on the reward.
        reward_shaping: whether the reward is dense.
        render_camera: camera of the window: "frontview", "person", "shoulder", "robot0_wrist",
            "robot0_robotview", "robot0_eye_in_hand", or ``None`` for a free one.
        camera_names: cameras of the image observations, from the same ones.
        options: any other argument of robosuite's ``ManipulationEnv``: ``has_renderer``,
            ``has_offscreen_renderer``, ``use_camera_obs``, ``control_freq``, ``horizon``, ``seed``, ...

    Raises:
        ValueError: there is no such task, split, robot or gripper; the message lists the valid ones.
    """

    def __init__(
        self,
        robots: str | Sequence[str],
        task: Any,
        split: str = "train",
        controller_configs: Any = None,
        gripper_types: str | Sequence[str] = "default",
        use_object_obs: bool = True,
        reward_scale: float = 1.0,
        reward_shaping: bool = False,
        render_camera: str | Sequence[str] | None = "frontview",
        camera_names: str | Sequence[str] = "shoulder",
        **options: Any,
    ):
        one_of("split", split, SPLITS)
        for gripper in [gripper_types] if isinstance(gripper_types, str) else gripper_types:
            one_of("gripper", gripper, ("default", "FR3Hand"))
        self.task, self.split = resolve_task(task), split
        self.use_object_obs = use_object_obs
        self.reward_scale, self.reward_shaping = reward_scale, reward_shaping
        if controller_configs is None:
            controller_configs = load_composite_controller_config(controller=str(CONTROLLER_CONFIG))
        super().__init__(
            robots=robots,
            controller_configs=controller_configs,
            gripper_types=gripper_types,
            render_camera=render_camera,
            camera_names=camera_names,
            **options,
        )

    def reward(self, action: Array | None = None) -> float:
        """Reward of the present state, see the class."""
        state = self.true_state()
        if self.task.success(state)[0]:
            return self.reward_scale
        if not self.reward_shaping:
            return 0.0
        values = self.task.progress(state)
        return self.reward_scale * float(sum(w * values[name][0] for name, w in self.task.weights.items()))

    def true_state(self) -> TrueState:
        """The present state as the tasks see it, with N = 1.

        After ``step`` it is one physics step old, as all of robosuite's readings are.
        """
        model, data = self.sim.model._model, self.sim.data._data
        velocities, velocity = {}, np.empty(6)
        for name, body in self._bodies.items():
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, velocity, 0)
            velocities[name] = velocity[None, [3, 4, 5, 0, 1, 2]]
        poses = np.concatenate([data.xpos, data.xquat[:, XYZW_FROM_WXYZ]], axis=1)
        pairs = model.geom_bodyid[data.contact.geom]
        members = self._members
        contacts = {
            name: np.array([(members[a][pairs] & members[b][pairs[:, ::-1]]).any()])
            for name, (a, b) in self.task.contacts.items()
        }
        fingers = [data.joint(f"{GRIPPER}finger_joint{i}").qpos for i in (1, 2)]
        tcp = data.site(TCP_SITE)
        rotation = np.empty(4)
        mujoco.mju_mat2Quat(rotation, tcp.xmat)
        return TrueState(
            poses={name: poses[[body]] for name, body in self._bodies.items()},
            velocities=velocities,
            contacts=contacts,
            slides={
                name: np.concatenate([data.joint(slide).qpos, data.joint(slide).qvel])[None]
                for name, slide in self._slides.items()
            },
            parameters={name: np.array([value]) for name, value in self._start.parameters.items()},
            table_height=np.zeros(1),
            tcp_pose=np.concatenate([tcp.xpos, rotation[XYZW_FROM_WXYZ]])[None],
            gripper_width=fingers[0] - fingers[1],
        )

    def get_ep_meta(self) -> dict[str, Any]:
        """Which episode is running: task, split and seed, besides what was given to ``set_ep_meta``."""
        split, seed = self._read_episode()
        return {**super().get_ep_meta(), "task": self.task.name, "split": split, "seed": seed}

    def initialize_time(self, control_freq: float) -> None:
        """As robosuite, but in physics steps of the scene, whatever robosuite's macros say."""
        super().initialize_time(control_freq)
        self.model_timestep = PHYSICS_TIMESTEP

    def _check_success(self) -> bool:
        return bool(self.task.success(self.true_state())[0])

    def _check_robot_configuration(self, robots: str | Sequence[str]) -> None:
        if robots not in ("FR3", ["FR3"], ("FR3",)):
            raise ValueError(f"the scene is made for one FR3, not for {robots!r}: give robots='FR3'")

    def _load_model(self) -> None:
        super()._load_model()
        self.model = compose_around(self.robots[0].robot_model, self.task)
        # In the model, so that it is part of what is recorded.
        SubElement(SubElement(self.model.root, "custom"), "numeric", name=_EPISODE, size=str(1 + len(_SEED_UNITS)))

    def _setup_references(self) -> None:
        super()._setup_references()
        model, specs = self.sim.model._model, self.task.specs
        bodies = {name: model.body(body).id for name, body in body_names(self.task).items()}
        reported = [s.name for s in specs] + [d.name for s in specs for d in s.drawers]
        self._bodies = {name: bodies[name] for name in reported}
        self._slides = {d.name: f"{s.name}_{d.name}_slide" for s in specs for d in s.drawers}
        # (bodies,): what the names in the task's contacts stand for.
        numbers = np.arange(model.nbody)
        self._members: dict[str | None, BoolArray] = {name: numbers == body for name, body in bodies.items()}
        self._members["hand"] = _subtree(model, model.body(HAND).id)
        self._members[None] = numbers >= 0

    def _setup_observables(self) -> OrderedDict:
        observables = super()._setup_observables()
        if not self.use_object_obs:
            return observables
        for function in self._object_sensors():
            name = function.__name__
            observables[name] = Observable(name, function, sampling_rate=self.control_freq)
            # These only serve the sensors after them.
            observables[name].set_active(name not in ("object_poses", "world_pose_in_robot0_gripper"))
        return observables

    def _object_sensors(self) -> list[Any]:
        modality = "object"

        @sensor(modality=modality)
        def object_poses(cache: Mapping[str, Array]) -> Array:
            return np.concatenate(self.task.object_poses(self.true_state()))

        hand = self._get_world_pose_in_gripper_sensor("robot0_", "world_pose_in_robot0_gripper", modality)
        sensors = [object_poses, hand]
        for i, item in enumerate(self.task.objects):
            pair = f"{item.name}_to_robot0_eef"
            sensors += [
                _slice_sensor("object_poses", (i, slice(0, 3)), f"{item.name}_pos", modality),
                _slice_sensor("object_poses", (i, slice(3, 7)), f"{item.name}_quat", modality),
                self._get_rel_obj_eef_sensor("robot0_", item.name, f"{pair}_pos", "robot0_", modality),
                self._get_obj_eef_rel_quat_sensor("robot0_", item.name, f"{pair}_quat", modality),
            ]
        return sensors

    def _reset_internal(self) -> None:
        super()._reset_internal()
        if not self.deterministic_reset:
            self._write_episode(*self._next_episode())
        split, seed = self._read_episode()
        self._start = start_of(self.task, split, seed)
        if not self.deterministic_reset:
            self._place(self._start)
        # robosuite's gripper control moves its command in steps: let it start where the fingers are.
        opening = np.array([1.0, -1.0])
        self.robots[0].gripper["right"].current_action = -opening if self._start.gripper_closed else opening
        self.sim.forward()

    def _next_episode(self) -> tuple[str, int]:
        meta = self._ep_meta
        if meta.get("task", self.task.name) != self.task.name:
            raise ValueError(f"the episode is one of task {meta['task']!r}, this environment is {self.task.name!r}")
        split = meta.get("split", self.split)
        one_of("split", split, SPLITS)
        return split, check_seed(split, meta["seed"]) if "seed" in meta else draw_seed(split, self.rng)

    def _write_episode(self, split: str, seed: int) -> None:
        self._episode_field()[:] = [list(SPLITS).index(split), *(seed // _SEED_UNITS % 10**5)]

    def _read_episode(self) -> tuple[str, int]:
        split, *parts = self._episode_field().astype(int)
        return list(SPLITS)[split], int(_SEED_UNITS @ parts)

    def _episode_field(self) -> Array:
        model = self.sim.model._model
        field = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_NUMERIC, _EPISODE)
        if field < 0:
            raise ValueError(f"the model has no numeric field {_EPISODE!r}: it was not recorded from OCResidual")
        return model.numeric(_EPISODE).data

    def _place(self, start: InitialState) -> None:
        """Put fingers, objects and drawers where the episode starts."""
        model, data = self.sim.model, self.sim.data
        for i, sign in ((1, 1.0), (2, -1.0)):
            opening = 0.0 if start.gripper_closed else sign * MAX_OPENING / 2
            data.set_joint_qpos(f"{GRIPPER}finger_joint{i}", opening)
        for spec in self.task.specs:
            position, quat = start.poses[spec.name][:3], start.poses[spec.name][3:][WXYZ_FROM_XYZW]
            if spec.fixed:
                body = self._bodies[spec.name]
                model.body_pos[body], model.body_quat[body] = position, quat
            else:
                data.set_joint_qpos(f"{spec.name}_joint0", np.concatenate([position, quat]))
        for name, opening in start.slides.items():
            data.set_joint_qpos(self._slides[name], opening)


def _slice_sensor(source: str, part: tuple[int, slice], name: str, modality: str) -> Any:
    """robosuite sensor of a part of what an earlier sensor read."""

    @sensor(modality=modality)
    def reading(cache: Mapping[str, Array]) -> Array:
        # robosuite tries each sensor once without a cache.
        return cache[source][part] if source in cache else np.zeros(part[1].stop - part[1].start)

    reading.__name__ = name
    return reading


def _subtree(model: mujoco.MjModel, root: int) -> BoolArray:
    """(bodies,): which ones are the body ``root`` or attached to it?"""
    member = np.zeros(model.nbody, bool)
    member[root] = True
    for body in range(root + 1, model.nbody):  # parents come before their children
        member[body] = member[model.body_parentid[body]]
    return member
