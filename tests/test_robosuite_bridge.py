"""The tasks in robosuite: the same scenes, physics, episodes and success rules as everywhere else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import h5py
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.geometry import WXYZ_FROM_XYZW
from oc_residual_gym.policies.expert import follow
from oc_residual_gym.robots.constants import HOME_JOINT_POSITIONS
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import Snapshot
from oc_residual_gym.tasks.pick_place import HALF_SIZE, PLATE_HEIGHT
from oc_residual_gym.worlds.scene import Scene, build_scene

pytest.importorskip("robosuite", reason="needs the extra [robosuite]")
from oc_residual_gym.bridge import OCResidual  # isort: skip  # before robosuite, whose import it keeps quiet
import robosuite
from robosuite.scripts.collect_human_demonstrations import (
    collect_human_trajectory,
    gather_demonstrations_as_hdf5,
)
from robosuite.wrappers import DataCollectionWrapper, GymWrapper

Poses = Mapping[str, np.ndarray]
OPEN, CLOSE = -1.0, 1.0
"""The last entry of an action."""


def make(task: str, **options) -> OCResidual:
    silent = {"has_renderer": False, "has_offscreen_renderer": False, "use_camera_obs": False}
    return robosuite.make("OCResidual", task=task, robots="FR3", **{**silent, **options})


@pytest.fixture
def env(task: str) -> Iterator[OCResidual]:
    env = make(task, seed=0, reward_shaping=True)
    env.reset()
    yield env
    env.close()


def action(*displacement: float, gripper: float) -> np.ndarray:
    """(7,): displacement of the end effector as a fraction of the greatest one, and the gripper's command."""
    return np.array([*displacement, *np.zeros(6 - len(displacement)), gripper])


def stay(env: OCResidual, steps: int) -> None:
    gripper = CLOSE if env.true_state().gripper_width[0] < 0.04 else OPEN
    for _ in range(steps):
        env.step(action(gripper=gripper))


def move_object(env: OCResidual, name: str, pose: np.ndarray) -> None:
    env.sim.data.set_joint_qpos(f"{name}_joint0", np.concatenate([pose[:3], pose[3:][WXYZ_FROM_XYZW]]))
    env.sim.data.set_joint_qvel(f"{name}_joint0", np.zeros(6))
    env.sim.forward()


def test_every_task_runs_without_warnings(task, caplog):
    logger = logging.getLogger("robosuite_logs")
    logger.addHandler(caplog.handler)
    try:
        env = make(task, seed=0)
        observation = env.reset()
    finally:
        logger.removeHandler(caplog.handler)
    assert not [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    low, high = env.action_spec
    rng = np.random.default_rng(0)
    for _ in range(20):
        observation, reward, _, _ = env.step(rng.uniform(low, high))
        assert reward in (0.0, 1.0)
        for name, value in observation.items():
            assert np.isfinite(value).all(), name
    for item in env.task.objects:
        for name, size in (("pos", 3), ("quat", 4), ("to_robot0_eef_pos", 3), ("to_robot0_eef_quat", 4)):
            assert observation[f"{item.name}_{name}"].shape == (size,)
    assert observation["object-state"].shape == (14 * len(env.task.objects),)
    env.close()


def test_robot_stands_at_the_origin_in_its_home_pose(task, env):
    model, data = env.sim.model._model, env.sim.data._data
    np.testing.assert_array_equal(data.body("robot0_base").xpos, np.zeros(3))
    joints = [data.joint(f"robot0_joint{i}").qpos[0] for i in range(1, 8)]
    np.testing.assert_array_equal(joints, HOME_JOINT_POSITIONS)
    np.testing.assert_allclose(env.true_state().tcp_pose, [[0.42, 0, 0.28, 1, 0, 0, 0]], atol=1e-6)
    table = model.geom("table_collision")
    assert data.geom("table_collision").xpos[2] + table.size[2] == pytest.approx(0.0, abs=1e-9)


def test_episodes_are_those_of_the_gymnasium_environment(task, env):
    worlds = ResidualWorlds(task, 1, split="val")
    for seed in (3, 17):
        worlds.reset(np.zeros(1, int), [seed])
        env.set_ep_meta({"split": "val", "seed": seed})
        env.reset()
        ours, theirs = env.true_state(), worlds.world.true
        for name, pose in theirs.poses.items():
            np.testing.assert_allclose(ours.poses[name], pose, atol=1e-9)
        for name, slide in theirs.slides.items():
            np.testing.assert_allclose(ours.slides[name], slide, atol=1e-9)
        assert ours.parameters == theirs.parameters
        np.testing.assert_allclose(ours.gripper_width, theirs.gripper_width, atol=1e-9)
        assert env.reward() == pytest.approx(sum(term[0] for term in worlds.reward_terms.values()))
    worlds.close()


def test_observed_objects_are_where_the_task_sees_them(task, env):
    observation = env.reset()
    hand = np.eye(4)
    hand[:3, :3] = env.sim.data.get_body_xmat("robot0_right_hand")
    hand[:3, 3] = observation["robot0_eef_pos"]
    for item, pose in zip(env.task.objects, env.task.object_poses(env.true_state()), strict=True):
        np.testing.assert_allclose(observation[f"{item.name}_pos"], pose[0, :3])
        np.testing.assert_allclose(observation[f"{item.name}_quat"], pose[0, 3:])
        relative = np.linalg.inv(hand) @ [*pose[0, :3], 1.0]
        np.testing.assert_allclose(observation[f"{item.name}_to_robot0_eef_pos"], relative[:3], atol=1e-6)


def test_physics_is_that_of_the_simulated_world(task, env):
    """Everything that decides on forces, but for the actuators, which are the controllers' business."""
    expected, model = build_scene(TASKS[task]).model, env.sim.model._model
    for option in ("timestep", "integrator", "cone", "impratio", "density", "viscosity", "disableflags"):
        assert getattr(model.opt, option) == getattr(expected.opt, option), option
    np.testing.assert_array_equal(model.opt.gravity, expected.opt.gravity)
    for i in range(expected.nbody):
        body = expected.body(i)
        if body.name != "target":
            for key in ("mass", "inertia", "ipos", "iquat"):
                np.testing.assert_allclose(getattr(model.body(body.name), key), getattr(body, key), atol=1e-12)
    for i in range(expected.njnt):
        joint = expected.joint(i)
        for key in ("range", "damping", "armature", "frictionloss", "solref", "solimp"):
            np.testing.assert_array_equal(getattr(model.joint(joint.name), key), getattr(joint, key))
    colliding = [i for i in range(expected.ngeom) if expected.geom_contype[i] or expected.geom_conaffinity[i]]
    for i in colliding:
        geom, ours = expected.geom(i), model.geom(expected.geom(i).name)
        for key in ("type", "contype", "conaffinity", "condim", "priority", "friction", "solref", "solimp"):
            np.testing.assert_array_equal(getattr(ours, key), getattr(geom, key))
        np.testing.assert_allclose([*ours.size, *ours.pos, *ours.quat], [*geom.size, *geom.pos, *geom.quat])
    assert np.count_nonzero(model.geom_contype | model.geom_conaffinity) == len(colliding)


def test_true_state_is_what_the_simulated_world_reads(task, env):
    """In a state with contact at the fingers and everything in motion."""
    movable = [spec.name for spec in env.task.specs if not spec.fixed]
    for name in movable[:1]:
        move_object(env, name, env.true_state().tcp_pose[0])
    for i, position in ((1, 0.007), (2, -0.0075)):
        env.sim.data.set_joint_qpos(f"gripper0_right_finger_joint{i}", position)
    env.sim.data.qvel[:] = np.random.default_rng(0).uniform(-1, 1, env.sim.model.nv)
    env.sim.forward()
    ours, scene = env.true_state(), build_scene(env.task)
    readings = _readings(scene, env)
    for i, name in enumerate(scene.bodies):
        np.testing.assert_allclose(ours.poses[name][0][[0, 1, 2, 6, 3, 4, 5]], readings["poses"][7 * i :][:7])
        np.testing.assert_allclose(ours.velocities[name][0], readings["velocities"][6 * i :][:6], atol=1e-9)
    for i, name in enumerate(scene.drawers):
        np.testing.assert_allclose(ours.slides[name][0], readings["slides"][2 * i :][:2])
    for i, name in enumerate(env.task.contacts):
        assert ours.contacts[name][0] == (readings["contacts"][i] > 0), name
    assert not movable or any(contact[0] for contact in ours.contacts.values())
    np.testing.assert_allclose(ours.tcp_pose[0][:3], readings["tcp_pose"][:3])
    np.testing.assert_allclose(ours.gripper_width, readings["gripper_width"])


def _readings(scene: Scene, env: OCResidual) -> dict[str, np.ndarray]:
    """Sensors of SimWorld's model in the present state of ``env``."""
    model, data, theirs = scene.model, mujoco.MjData(scene.model), env.sim.data._data
    for i in range(model.njnt):
        name = model.joint(i).name
        data.joint(name).qpos[:] = theirs.joint(name).qpos
        data.joint(name).qvel[:] = theirs.joint(name).qvel
    for name in scene.fixtures:
        mocap = model.body(f"{name}_main").mocapid[0]
        data.mocap_pos[mocap] = theirs.body(f"{name}_main").xpos
        data.mocap_quat[mocap] = theirs.body(f"{name}_main").xquat
    mujoco.mj_forward(model, data)
    return {group: data.sensordata[columns] for group, columns in scene.sensors.items()}


UPRIGHT = [0.0, 0.0, 0.0, 1.0]
DONE: dict[str, Callable[[Poses], Poses]] = {
    "Lift": lambda poses: {"block": poses["block"][0] + [0, 0, 0.1, 0, 0, 0, 0]},
    "PickPlace": lambda poses: {"block": np.array([*poses["plate"][0, :2], PLATE_HEIGHT + HALF_SIZE[2], *UPRIGHT])},
    "Stack": lambda poses: {"white": poses["green"][0] + [0, 0, 0.04, 0, 0, 0, 0]},
    "CloseDrawer": lambda poses: {},
    "StandCup": lambda poses: {"cup": np.array([*poses["cup"][0, :2], 0.05, *UPRIGHT])},
    "PegInsert": lambda poses: {"peg": poses["hole"][0] + [0, 0, 0.011, 0, 0, 0, 0]},
}
"""Where the objects are once the task is done, from where they are now."""


def test_success_and_reward_follow_the_task(task, env):
    assert not env._check_success()
    assert 0.0 <= env.reward() < 1.0
    for name, pose in DONE[task](env.true_state().poses).items():
        move_object(env, name, pose)
    for slide in [f"cabinet_drawer{i}_slide" for i in range(5)] if task == "CloseDrawer" else []:
        env.sim.data.set_joint_qpos(slide, 0.0)
    env.sim.forward()
    if task != "Lift":
        stay(env, steps=10)
    assert env._check_success()
    assert env.reward() == 1.0


def test_the_controller_moves_the_tool_along_the_base_axes():
    env = make("Lift", seed=0)
    env.reset()
    start = env.true_state().tcp_pose[0]
    stay(env, steps=20)
    np.testing.assert_allclose(env.true_state().tcp_pose[0, :3], start[:3], atol=0.001)
    for axis in range(3):
        before = env.true_state().tcp_pose[0, :3]
        for _ in range(10):
            env.step(action(*(0.3 * np.eye(3)[axis]), gripper=OPEN))
        stay(env, steps=10)
        moved = env.true_state().tcp_pose[0, :3] - before
        assert moved[axis] > 0.03
        assert np.abs(np.delete(moved, axis)).max() < 0.01
    assert env.true_state().gripper_width[0] > 0.079
    for _ in range(20):
        env.step(action(gripper=CLOSE))
    assert env.true_state().gripper_width[0] < 0.001
    env.close()


def test_seed_and_episode_information_choose_the_episodes():
    def seeds(env: OCResidual) -> list[int]:
        return [env.reset() and env.get_ep_meta()["seed"] for _ in range(3)]

    first, second, other = make("Stack", seed=1), make("Stack", seed=1), make("Stack", seed=2)
    drawn = seeds(first)
    assert drawn == seeds(second) != seeds(other)
    assert len(set(drawn)) == 3
    first.set_ep_meta({"split": "train", "seed": 4_000_000_007})
    assert seeds(first) == [4_000_000_007] * 3
    first.unset_ep_meta()
    assert 4_000_000_007 not in seeds(first)
    first.set_ep_meta({"split": "test", "seed": 500})
    with pytest.raises(ValueError, match="the seeds 0 to 499"):
        first.reset()
    first.set_ep_meta({"task": "Lift", "seed": 1})
    with pytest.raises(ValueError, match=r"'Lift'.*'Stack'"):
        first.reset()


def test_soft_resets_start_the_same_episodes():
    """``hard_reset=False`` keeps the compiled model, in which the fixtures must still move."""
    hard, soft = make("PegInsert", seed=5), make("PegInsert", seed=5, hard_reset=False)
    for _ in range(2):
        hard.reset()
        soft.reset()
        soft.step(action(1.0, 1.0, gripper=OPEN))
    hard.reset()
    soft.reset()
    for name, pose in hard.true_state().poses.items():
        np.testing.assert_array_equal(soft.true_state().poses[name], pose)


class ExpertDevice:
    """Stands where robosuite's scripts have a keyboard, with the scripted expert at the keys."""

    active_robot = 0

    def __init__(self, env: OCResidual, steps: int):
        self.env, self.steps = env, steps

    def start_control(self) -> None:
        state = self.env.true_state()
        self.target = np.append(state.tcp_pose[0], float(state.gripper_width[0] > 0.04))
        self.chunk: list[np.ndarray] = []

    def input2action(self, goal_update_mode: str) -> dict[str, np.ndarray] | None:
        """Towards the expert's next target; ``None``, which gives up, after so many steps."""
        self.steps -= 1
        if self.steps < 0:
            return None
        if not self.chunk:
            self.chunk = list(follow(self.target, self.env.task.expert(self.snapshot()), 16))
        self.target = self.chunk.pop(0)
        tcp = self.env.true_state().tcp_pose[0]
        # The controller's goals start from the measured pose: aim ahead to make up for its lag.
        turn = (Rotation.from_quat(self.target[3:7]) * Rotation.from_quat(tcp[3:]).inv()).as_rotvec()
        delta = 3.0 * np.concatenate([(self.target[:3] - tcp[:3]) / 0.05, turn / 0.5])
        gripper = np.array([CLOSE if self.target[7] < 0.5 else OPEN])
        return {"right_delta": np.clip(delta, -1.0, 1.0), "right_abs": np.zeros(6), "right_gripper": gripper}

    def snapshot(self) -> Snapshot:
        state = self.env.true_state()
        return Snapshot(
            **{
                field: {name: value[0] for name, value in getattr(state, field).items()}
                for field in ("poses", "velocities", "contacts", "slides", "parameters")
            },
            table_height=0.0,
            tcp_pose=state.tcp_pose[0],
            gripper_width=float(state.gripper_width[0]),
            gripper_closed=bool(self.target[7] < 0.5),
            target=self.target,
        )


@pytest.fixture(scope="module", params=["Lift", "CloseDrawer"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demonstration file that robosuite's own collection script has made."""
    folder = tmp_path_factory.mktemp("recording")
    config = {"env_name": "OCResidual", "task": request.param, "robots": "FR3"}
    env = make(request.param, seed=3, ignore_done=True)
    env.render = lambda: None  # no window here
    wrapped = DataCollectionWrapper(env, str(folder / "episodes"))
    collect_human_trajectory(wrapped, ExpertDevice(env, 300), "right", None, "target")
    gather_demonstrations_as_hdf5(str(folder / "episodes"), str(folder), json.dumps(config))
    return folder


def test_recorded_demonstrations_play_back_exactly(recording):
    (meta,) = recording.glob("episodes/*/ep_meta.json")
    with h5py.File(recording / "demo.hdf5") as file:
        options = json.loads(file["data"].attrs["env_info"])
        demo = file["data/demo_1"]  # there only if the demonstration was successful
        model, states, actions = demo.attrs["model_file"], demo["states"][:], demo["actions"][:]
    options.pop("env_name")
    env = make(options.pop("task"), **{k: v for k, v in options.items() if k != "robots"}, seed=99)
    env.reset()
    env.reset_from_xml_string(env.edit_model_xml(model))
    env.sim.reset()
    env.sim.set_state_from_flattened(states[0])
    env.sim.forward()
    assert env.get_ep_meta() == json.loads(meta.read_text())
    assert not env._check_success()
    for state, command in zip(states, actions, strict=True):
        np.testing.assert_array_equal(env.sim.get_state().flatten(), state)
        env.step(command)
    assert env._check_success()
    env.sim.set_state_from_flattened(states[0])
    env.sim.forward()
    assert not env._check_success()
    env.close()


def test_a_foreign_model_is_refused():
    env = make("Lift")
    model = env.sim.model.get_xml().replace('name="episode"', 'name="something"')
    with pytest.raises(ValueError, match="not recorded from OCResidual"):
        env.reset_from_xml_string(model)


@pytest.mark.filterwarnings("ignore:.*precision lowered")  # robosuite's
def test_gymnasium_wrapper_of_robosuite_works():
    env = GymWrapper(make("StandCup", seed=0), keys=["object-state", "robot0_proprio-state"])
    observation, _ = env.reset()
    assert env.observation_space.shape == observation.shape
    observation, *_ = env.step(env.action_space.sample())
    assert np.isfinite(observation).all()
    env.close()


def test_cameras_see_the_scene():
    cameras = ["shoulder", "person", "frontview", "robot0_wrist"]
    env = make(
        "PickPlace",
        seed=0,
        has_offscreen_renderer=True,
        use_camera_obs=True,
        camera_names=cameras,
        camera_heights=48,
        camera_widths=64,
    )
    observation = env.reset()
    for camera in cameras:
        image = observation[f"{camera}_image"]
        assert image.shape == (48, 64, 3)
        assert image.std() > 5
    env.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "Juggle"}, "unknown task 'Juggle': choose one of Lift, PickPlace, Stack, CloseDrawer"),
        ({"split": "dev"}, "unknown split 'dev': choose one of train, val, test"),
        ({"robots": "Panda"}, "robots='FR3'"),
        ({"gripper_types": "RethinkGripper"}, "choose one of default, FR3Hand"),
    ],
)
def test_errors_name_what_is_valid(options, message):
    with pytest.raises(ValueError, match=message):
        robosuite.make("OCResidual", **{"task": "Lift", "robots": "FR3", **options})
