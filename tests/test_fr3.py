"""The FR3 model: published kinematics, inertias and limits, shapes that never touch each other, robosuite."""

from __future__ import annotations

import json
from importlib import resources
from importlib.util import find_spec
from typing import Any

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.robots.constants import (
    ARM_JOINTS,
    ARM_LINKS,
    HOME_JOINT_POSITIONS,
    JOINT_LOWER,
    JOINT_TORQUE_LIMIT,
    JOINT_UPPER,
    JOINT_VELOCITY_LIMIT,
    MAX_OPENING,
)
from oc_residual_gym.robots.fr3 import add_bare_arm, add_gravity_compensation, add_motors, add_robot, empty_arm_model
from oc_residual_gym.robots.mjcf import write_mjcf
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.scene import build_scene

# Read from the file itself and chained below, independently of the package's own constants.
DESCRIPTION = json.loads(resources.files("oc_residual_gym.robots").joinpath("fr3.json").read_text())
FINGERS = ("gripper0_right_finger_joint1", "gripper0_right_finger_joint2")
TCP = "gripper0_right_tcp"
TCP_FROM_FLANGE = 0.1034


def robot() -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    add_robot(spec)
    return spec


def robosuite_model() -> mujoco.MjModel:
    """Our robot as robosuite composes it, with its meshes."""
    from robosuite.models.bases import NullMount

    from oc_residual_gym.bridge import FR3, FR3Hand

    model = FR3()
    model.add_base(NullMount())
    model.add_gripper(FR3Hand(idn="0_right"))
    return model.get_model()


@pytest.fixture(scope="module")
def models() -> dict[str, mujoco.MjModel]:
    """ "light": our own; "full": robosuite's, where that is installed."""
    models = {"light": robot().compile()}
    return models | ({"full": robosuite_model()} if find_spec("robosuite") else {})


@pytest.fixture
def full(models: dict[str, mujoco.MjModel]) -> mujoco.MjModel:
    pytest.importorskip("robosuite", reason="needs the extra [robosuite]")
    return models["full"]


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> mujoco.MjModel:
    path = tmp_path_factory.mktemp("arm") / "fr3.xml"
    spec = empty_arm_model()
    add_bare_arm(spec, "fr3_")
    add_motors(spec, "fr3_", "joint{}")
    write_mjcf(spec, path)
    assert [p.name for p in path.parent.iterdir()] == ["fr3.xml"]  # no temporary file is left
    return mujoco.MjModel.from_xml_path(str(path))


def flange_pose(joint_positions: np.ndarray) -> tuple[np.ndarray, Rotation]:
    """Pose of link 8 by chaining the origins in fr3.json."""
    position, rotation = np.zeros(3), Rotation.identity()
    for i in range(8):
        joint = DESCRIPTION["joints"][f"joint{i + 1}"]
        position = position + rotation.apply(np.array(joint["xyz"].split(), float))
        rotation = rotation * Rotation.from_euler("xyz", np.array(joint["rpy"].split(), float))
        if i < 7:
            rotation = rotation * Rotation.from_euler("z", joint_positions[i])
    return position, rotation


def random_joint_positions(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(JOINT_LOWER, JOINT_UPPER, (n, 7))


def site_pose(data: mujoco.MjData, site: str) -> tuple[np.ndarray, np.ndarray]:
    return data.site(site).xpos, data.site(site).xmat.reshape(3, 3)


def test_forward_kinematics_match_the_robot_description(models, arm):
    for q in random_joint_positions(100, seed=0):
        flange, flange_rotation = flange_pose(q)
        hand_rotation = flange_rotation * Rotation.from_euler("z", -np.pi / 4)
        tcp = flange + hand_rotation.apply([0.0, 0.0, TCP_FROM_FLANGE])
        for model, site, position, rotation in (
            *((model, TCP, tcp, hand_rotation) for model in models.values()),
            (arm, "attachment_site", flange, flange_rotation),
        ):
            data = mujoco.MjData(model)
            data.qpos[:7] = q
            mujoco.mj_kinematics(model, data)
            xpos, xmat = site_pose(data, site)
            np.testing.assert_allclose(xpos, position, atol=1e-6)
            np.testing.assert_allclose(xmat, rotation.as_matrix(), atol=1e-6)


def test_robosuite_reference_site_is_at_the_tcp(models):
    data = mujoco.MjData(models["light"])
    mujoco.mj_kinematics(models["light"], data)
    np.testing.assert_allclose(data.site("gripper0_right_grip_site").xpos, data.site(TCP).xpos, atol=1e-9)


def test_home_pose(models):
    data = mujoco.MjData(models["light"])
    data.qpos[:7] = HOME_JOINT_POSITIONS
    mujoco.mj_kinematics(models["light"], data)
    position, rotation = site_pose(data, TCP)
    np.testing.assert_allclose(position, [0.42, 0.0, 0.28], atol=1e-9)
    np.testing.assert_allclose(rotation, np.diag([1.0, -1.0, -1.0]), atol=1e-9)
    margin = np.minimum(HOME_JOINT_POSITIONS - JOINT_LOWER, JOINT_UPPER - HOME_JOINT_POSITIONS)
    assert (margin > 0.4).all()
    assert data.body("robot0_link4").xpos[2] > data.body("robot0_link2").xpos[2]  # elbow up


def test_inertias_match_the_robot_description(models, arm):
    for model, prefix in (*((model, "robot0_") for model in models.values()), (arm, "fr3_")):
        for link in ARM_LINKS:
            expected = DESCRIPTION["links"][link]
            body = model.body(prefix + link)
            assert body.mass[0] == pytest.approx(expected["mass"])
            np.testing.assert_allclose(body.ipos, expected["com"], atol=1e-9)
            principal = Rotation.from_quat(np.roll(body.iquat, -1)).as_matrix()
            inertia = principal @ np.diag(body.inertia) @ principal.T
            i = expected["inertia"]
            full = [
                [i["ixx"], i["ixy"], i["ixz"]],
                [i["ixy"], i["iyy"], i["iyz"]],
                [i["ixz"], i["iyz"], i["izz"]],
            ]
            np.testing.assert_allclose(inertia, full, atol=1e-7)


def test_mass_beyond_the_flange_is_the_franka_hand(models):
    for model in models.values():
        hand = model.body("robot0_right_hand").id
        assert model.body_subtreemass[hand] == pytest.approx(0.73 + 2 * 0.015)
        data = mujoco.MjData(model)
        mujoco.mj_fwdPosition(model, data)
        com = data.subtree_com[hand] - data.xpos[hand]
        com = data.xmat[hand].reshape(3, 3).T @ com
        fingers = 2 * 0.015 * 0.0584
        np.testing.assert_allclose(com * 0.76, [-0.01 * 0.73, 0.0, 0.03 * 0.73 + fingers], atol=1e-9)


def test_limits(models, arm):
    for i, joint in enumerate(ARM_JOINTS):
        limit = DESCRIPTION["joints"][joint]["limit"]
        assert float(limit["lower"]) <= JOINT_LOWER[i] < float(limit["lower"]) + 0.01
        assert float(limit["upper"]) >= JOINT_UPPER[i] > float(limit["upper"]) - 0.01
        assert JOINT_VELOCITY_LIMIT[i] == float(limit["velocity"])
        assert JOINT_TORQUE_LIMIT[i] == float(limit["effort"])
        for model, name in ((models["light"], f"robot0_{joint}"), (arm, f"fr3_{joint}")):
            assert model.joint(name).range == pytest.approx([JOINT_LOWER[i], JOINT_UPPER[i]])
            torque_range = model.jnt_actfrcrange[model.joint(name).id]
            assert torque_range == pytest.approx(JOINT_TORQUE_LIMIT[i] * np.array([-1, 1]))
            assert model.joint(name).limited[0]
            assert model.actuator_ctrlrange[i] == pytest.approx(JOINT_TORQUE_LIMIT[i] * np.array([-1, 1]))
    with pytest.raises(ValueError, match="read-only"):
        JOINT_LOWER[0] = 0.0


@pytest.mark.parametrize("name", ["light", "arm"])
def test_no_self_contact(name, models, arm):
    model = arm if name == "arm" else models[name]
    data = mujoco.MjData(model)
    opening = np.random.default_rng(1).uniform(0.0, MAX_OPENING / 2, 10_000)
    for q, finger in zip(random_joint_positions(10_000, seed=2), opening, strict=True):
        data.qpos[:7] = q
        data.qpos[7:] = [finger, -finger][: model.nq - 7]
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        assert data.ncon == 0


def test_contact_shapes_are_primitives_that_cover_the_meshes(full):
    collision = np.flatnonzero(full.geom_group == 0)
    assert not np.isin(full.geom_type[collision], mujoco.mjtGeom.mjGEOM_MESH).any()
    for link in ARM_LINKS[1:]:
        body = full.body(f"robot0_{link}").id
        shapes = [g for g in collision if full.geom_bodyid[g] == body]
        meshes = [
            g for g in np.flatnonzero(full.geom_type == mujoco.mjtGeom.mjGEOM_MESH) if full.geom_bodyid[g] == body
        ]
        points = np.concatenate([mesh_vertices(full, g) for g in meshes])
        outside = np.min([distance(full, g, points) for g in shapes], axis=0)
        assert outside.max() < 0.0101, link


def mesh_vertices(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Vertices of a mesh geom in its body's frame."""
    mesh = model.geom_dataid[geom]
    start = model.mesh_vertadr[mesh]
    vertices = model.mesh_vert[start : start + model.mesh_vertnum[mesh]]
    rotation = Rotation.from_quat(np.roll(model.geom_quat[geom], -1))
    return rotation.apply(vertices) + model.geom_pos[geom]


def distance(model: mujoco.MjModel, geom: int, points: np.ndarray) -> np.ndarray:
    """Distance of points in the body's frame from a capsule or box, negative inside."""
    rotation = Rotation.from_quat(np.roll(model.geom_quat[geom], -1))
    local = np.abs(rotation.inv().apply(points - model.geom_pos[geom]))
    size = model.geom_size[geom]
    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE:
        local[:, 2] = np.maximum(local[:, 2] - size[1], 0.0)
        return np.linalg.norm(local, axis=1) - size[0]
    assert model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX
    beyond = local - size
    return np.linalg.norm(np.maximum(beyond, 0.0), axis=1) + np.minimum(beyond.max(axis=1), 0.0)


def test_light_visuals_carry_no_assets(models):
    light = models["light"]
    assert light.nmesh == light.ntex == light.nmat == 0
    assert light.nbuffer < 200_000
    assert (light.geom_group == 1).sum() <= 26


def test_robosuite_has_the_same_physics(models, full):
    light = models["light"]
    assert full.nmesh > 50
    assert [light.joint(i).name for i in range(light.njnt)] == [full.joint(i).name for i in range(full.njnt)]
    assert [light.body(i).name for i in range(light.nbody)] == [full.body(i).name for i in range(full.nbody)]
    for name in ("body_mass", "body_inertia", "dof_armature", "dof_damping", "jnt_range", "body_pos"):
        np.testing.assert_array_equal(getattr(light, name), getattr(full, name), err_msg=name)
    for model in models.values():
        visual = model.geom_group == 1
        assert not (model.geom_contype[visual] | model.geom_conaffinity[visual]).any()


def test_unknown_visuals_are_refused():
    with pytest.raises(ValueError, match=r"'pretty': choose one of light, full"):
        build_scene(TASKS["Lift"], "pretty")


def test_fingers_are_coupled_and_close_on_each_other(models):
    """Pushing one finger moves both; closed, the pads meet at the centre, 8.8 mm beyond the TCP at most."""
    model = models["light"]
    data = mujoco.MjData(model)
    data.qpos[:7] = HOME_JOINT_POSITIONS
    data.qpos[7:] = [0.04, -0.04]
    model.opt.gravity[:] = 0.0
    dof = model.joint(FINGERS[0]).dofadr[0]
    for _ in range(500):
        data.qfrc_applied[dof] = -5.0
        mujoco.mj_step(model, data)
        assert data.qpos[7] + data.qpos[8] == pytest.approx(0.0, abs=1e-3)
    assert data.qpos[7] == pytest.approx(0.0, abs=1e-3)
    for pad, side in (
        ("gripper0_right_finger1_pad_collision", -1),
        ("gripper0_right_finger2_pad_collision", 1),
    ):
        geom = data.geom(pad)
        half = model.geom(pad).size
        rotation = data.site(TCP).xmat.reshape(3, 3)
        center = rotation.T @ (geom.xpos - data.site(TCP).xpos)
        assert center[1] + side * half[1] == pytest.approx(0.0, abs=1.1e-3)
        assert center[2] + half[2] == pytest.approx(0.0088, abs=1e-4)
        assert model.geom(pad).friction[0] <= 1.5


@pytest.mark.parametrize(
    "geom",
    [
        {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": [0.02, 0.02, 0.02]},
        {"type": mujoco.mjtGeom.mjGEOM_CYLINDER, "size": [0.008, 0.03, 0.0]},
    ],
)
def test_a_grasp_of_40_newtons_neither_slips_nor_sinks_in(geom: dict[str, Any]):
    spec = robot()
    block = spec.worldbody.add_body(name="block", pos=[0.42, 0.0, 0.28])
    block.add_freejoint()
    block.add_geom(mass=0.06, friction=[0.6, 0.005, 0.0001], contype=2, conaffinity=3, **geom)
    model = spec.compile()
    model.opt.timestep = 0.002
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model.opt.impratio = 10.0
    model.dof_damping[:7] = 1e4  # the arm is not the subject here
    data = mujoco.MjData(model)
    data.qpos[:9] = [*HOME_JOINT_POSITIONS, 0.021, -0.021]
    for step in range(600):
        data.qfrc_applied[7:9] = [-40.0, 40.0]
        mujoco.mj_step(model, data)
        if step == 100:
            held_at = data.body("block").xpos - data.site(TCP).xpos
    assert data.ncon >= 4
    assert data.contact.dist.min() > -1e-4
    moved = data.body("block").xpos - data.site(TCP).xpos - held_at
    assert np.linalg.norm(moved) < 2e-4


def test_wrist_camera_sees_the_tcp_and_the_table_below(models):
    data = mujoco.MjData(models["light"])
    data.qpos[:7] = HOME_JOINT_POSITIONS
    mujoco.mj_forward(models["light"], data)
    camera = data.camera("robot0_wrist")
    axes = camera.xmat.reshape(3, 3)
    half_angle = np.radians(models["light"].camera("robot0_wrist").fovy[0] / 2)
    tcp, tcp_axes = site_pose(data, TCP)
    for below in (0.0, 0.05, 0.10, 0.15, 0.28):
        x, y, z = axes.T @ (tcp + tcp_axes[:, 2] * below - camera.xpos)
        assert z < 0.0
        assert max(abs(x), abs(y)) < -z * np.tan(half_angle), f"{below} m below the TCP"


def test_gravity_compensation_holds_the_arm_without_control():
    spec = robot()
    add_gravity_compensation(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:7] = HOME_JOINT_POSITIONS
    for _ in range(500):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos[:7], HOME_JOINT_POSITIONS, atol=1e-6)
    # The weight counts within the joints' torque limits.
    assert abs(data.qfrc_actuator[1]) > 5.0


def test_gravity_compensation_needs_a_robot():
    with pytest.raises(ValueError, match="FR3"):
        add_gravity_compensation(mujoco.MjSpec())


@pytest.fixture(scope="module")
def lift():
    robosuite = pytest.importorskip("robosuite", reason="needs the extra [robosuite]")
    import oc_residual_gym.bridge  # noqa: F401

    env = robosuite.make(
        "Lift",
        robots="FR3",
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        control_freq=20,
        seed=0,
    )
    yield env
    env.close()


def test_robosuite_runs_the_fr3_and_it_holds_still(lift):
    before = lift.reset()
    action = np.zeros(lift.action_dim)
    for _ in range(40):
        after = lift.step(action)[0]
    np.testing.assert_allclose(after["robot0_eef_pos"], before["robot0_eef_pos"], atol=1e-3)
    assert np.abs(after["robot0_joint_vel"]).max() < 1e-2
    noise = after["robot0_joint_pos"] - HOME_JOINT_POSITIONS  # robosuite's own, sigma 0.02 rad
    assert np.abs(noise).max() < 0.1
    assert type(lift.robots[0].gripper["right"]).__name__ == "FR3Hand"


def test_robosuite_opens_and_closes_the_hand_at_its_real_speed(lift):
    lift.reset()
    action = np.zeros(lift.action_dim)
    for command, width in ((-1.0, MAX_OPENING), (1.0, 0.0)):
        action[-1] = command
        widths = []
        for _ in range(25):
            fingers = lift.step(action)[0]["robot0_gripper_qpos"]
            widths.append(fingers[0] - fingers[1])
        assert widths[-1] == pytest.approx(width, abs=1e-3)
        assert np.abs(np.diff(widths)).max() <= 0.1 * 0.05 * 1.2
