"""PegInsert: the hole is what it claims to be, near misses do not count, and finishing pays."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import SUCCESS_STEPS, InitialState, axis_z, pose
from oc_residual_gym.tasks.peg_insert import BLOCK_HEIGHT, HOLDER_FLOOR, HOLE_DEPTH, PEG_LENGTH
from oc_residual_gym.tasks.moves import above
from oc_residual_gym.worlds.base import Array, TrueState
from oc_residual_gym.worlds.domains import EpisodePhysics
from oc_residual_gym.worlds.scene import build_scene
from oc_residual_gym.worlds.sim import SimWorld

TASK = TASKS["PegInsert"]
HOLE = np.array([0.48, 0.05])
HOLDER = np.array([0.48, -0.15])
STILL = np.zeros(6)


def peg_pose(offset: tuple[float, float], depth: float, tilt: float = 0.0) -> Array:
    """Pose (7,) of a peg, tilted by ``tilt`` radians about y: its lower end is ``offset`` metres beside the hole's
    axis and ``depth`` metres below its mouth.
    """
    half = PEG_LENGTH / 2
    x, y = HOLE + offset
    z = BLOCK_HEIGHT - depth
    tilted = [0.0, np.sin(tilt / 2), 0.0, np.cos(tilt / 2)]
    return np.array([x + half * np.sin(tilt), y, z + half * np.cos(tilt), *tilted])


def state_with(peg: Array, velocity: Array = STILL, held: bool = True) -> TrueState:
    """True state of one world with the peg at ``peg`` (7,), moving at ``velocity`` (6,)."""
    still = np.zeros((1, 6))
    tcp = above(peg, 0.015)
    poses = {"peg": peg[None], "hole": pose(*HOLE, BLOCK_HEIGHT)[None], "holder": pose(*HOLDER, 0.0)[None]}
    return TrueState(
        poses=poses,
        velocities={"peg": velocity[None], "hole": still, "holder": still},
        contacts={"left": np.array([held]), "right": np.array([held])},
        slides={},
        parameters={},
        table_height=np.zeros(1),
        tcp_pose=tcp[None],
        gripper_width=np.full(1, 0.016 if held else 0.08),
    )


def test_inserted_counts_held_or_not() -> None:
    for held in (True, False):
        assert TASK.success(state_with(peg_pose((0.0, 0.0), 0.0255), held=held))
        assert TASK.success(state_with(peg_pose((0.0005, 0.0), HOLE_DEPTH), held=held))


def test_either_end_of_the_peg_counts() -> None:
    peg = peg_pose((0.0, 0.0), 0.027)
    peg[3:] = [1.0, 0.0, 0.0, 0.0]
    assert TASK.success(state_with(peg))


NEAR_MISSES = {
    "half inserted": (peg_pose((0.0, 0.0), 0.020), STILL),
    "a millimetre short": (peg_pose((0.0, 0.0), 0.024), STILL),
    "on the rim": (peg_pose((0.003, 0.0), 0.0), STILL),
    "standing beside the block": (peg_pose((0.04, 0.0), BLOCK_HEIGHT), STILL),
    "hanging beside the block at the right depth": (peg_pose((0.04, 0.0), 0.027), STILL),
    "lying across the hole": (
        np.array([*HOLE, BLOCK_HEIGHT + 0.008, 0.0, np.sqrt(0.5), 0.0, np.sqrt(0.5)]),
        STILL,
    ),
    "tilted": (peg_pose((0.0, 0.0), 0.027, np.radians(6.0)), STILL),
    "moving": (peg_pose((0.0, 0.0), 0.027), np.array([0.0, 0.0, -0.06, 0.0, 0.0, 0.0])),
    "turning": (peg_pose((0.0, 0.0), 0.027), np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.6])),
    "in its holder": (pose(*HOLDER, HOLDER_FLOOR + PEG_LENGTH / 2), STILL),
}


@pytest.mark.parametrize("miss", NEAR_MISSES)
def test_near_miss_does_not_count(miss: str) -> None:
    state = state_with(*NEAR_MISSES[miss])
    assert not TASK.success(state)
    terms = TASK.progress(state)
    progress = sum(weight * terms[name][0] for name, weight in TASK.weights.items())
    assert 0.0 <= progress < 1.0


def test_progress_grows_on_the_way_and_stays_below_one() -> None:
    way = [pose(*HOLDER, HOLDER_FLOOR + PEG_LENGTH / 2 + lift) for lift in (0.0, 0.02, 0.05)]
    way += [peg_pose((0.0, offset), -0.015) for offset in (-0.15, -0.05, -0.01, -0.002, 0.0)]
    way += [
        peg_pose((0.0, 0.0), depth) for depth in (-0.01, -0.004, 0.0, 0.002, 0.01, 0.013, 0.02, 0.025, 0.03)
    ]
    totals = []
    for peg in way:
        terms = TASK.progress(state_with(peg))
        assert all(0.0 <= value[0] <= 1.0 for value in terms.values())
        totals.append(sum(weight * terms[name][0] for name, weight in TASK.weights.items()))
    assert np.all(np.diff(totals) >= -1e-9)
    assert totals[-1] > 0.94
    assert sum(TASK.weights.values()) < 1.0


# The hole


class Probe:
    """A peg held anywhere at the hole; tells how it touches the block."""

    def __init__(self) -> None:
        scene = build_scene(TASK)
        self.model = scene.model
        self.data = mujoco.MjData(scene.model)
        self.data.qpos[:] = scene.home
        self._address = scene.free_qpos["peg"]
        for name, place in (("hole", [*HOLE, BLOCK_HEIGHT]), ("holder", [*HOLDER, 0.0])):
            self.data.mocap_pos[self.model.body(f"{name}_main").mocapid[0]] = place
        self._pair = {self.model.body("peg_main").id, self.model.body("hole_main").id}

    def touching(self, radius: float, angle: float, depth: float, tilt: float = 0.0) -> list[Array]:
        """Contact normals (3,), from block to peg, of a peg ``radius`` metres off the axis at ``angle``."""
        peg = peg_pose((radius * np.cos(angle), radius * np.sin(angle)), depth, tilt)
        self.data.qpos[self._address : self._address + 7] = peg[[0, 1, 2, 6, 3, 4, 5]]
        mujoco.mj_forward(self.model, self.data)
        normals = []
        for contact in self.data.contact:
            bodies = self.model.geom_bodyid[contact.geom]
            if set(bodies.tolist()) == self._pair:
                sign = 1.0 if bodies[1] == self.model.body("peg_main").id else -1.0
                normals.append(sign * contact.frame[:3])
        return normals


@pytest.fixture(scope="module")
def probe() -> Probe:
    return Probe()


ANGLES = np.linspace(0.0, 2 * np.pi, 25)[:-1] + 0.01


def test_the_peg_has_half_a_millimetre_of_play_all_round(probe: Probe) -> None:
    for angle in ANGLES:
        for depth in (0.003, 0.015, 0.029):
            assert not probe.touching(0.00049, angle, depth)
            assert probe.touching(0.00053, angle, depth)


def test_the_hole_is_30_mm_deep_and_flat_at_the_bottom(probe: Probe) -> None:
    assert not probe.touching(0.0, 0.0, HOLE_DEPTH - 1e-5)
    for normal in probe.touching(0.0, 0.0, HOLE_DEPTH + 2e-5):
        assert normal[2] > 0.999


def test_the_chamfer_guides_at_45_degrees(probe: Probe) -> None:
    for angle in ANGLES:
        # The mouth is 1.5 mm wider than the hole: a peg 1.2 mm off has 0.8 mm to sink before it touches.
        assert not probe.touching(0.0012, angle, 0.00075)
        normals = probe.touching(0.0012, angle, 0.0009)
        assert normals
        outward = np.array([np.cos(angle), np.sin(angle), 0.0])
        for normal in normals:
            assert normal[2] == pytest.approx(np.sqrt(0.5), abs=0.02)
            assert -normal @ outward == pytest.approx(np.sqrt(0.5), abs=0.05)


def test_a_peg_3_mm_off_does_not_pass(probe: Probe) -> None:
    for angle in ANGLES:
        assert not probe.touching(0.003, angle, -1e-5)
        assert probe.touching(0.003, angle, 1e-4)


def test_a_peg_tilted_by_5_degrees_does_not_fit(probe: Probe) -> None:
    assert probe.touching(0.0, 0.0, 0.02, np.radians(5.0))
    assert not probe.touching(0.0, 0.0, 0.02, np.radians(1.0))


def drop(offset: float, angle: float, steps: int = 30) -> SimWorld:
    """A world in which a free peg was let go just above the hole's mouth, that much off its axis."""
    world = SimWorld(TASK, 1)
    poses = {
        "peg": peg_pose((offset * np.cos(angle), offset * np.sin(angle)), -0.0005),
        "hole": pose(*HOLE, BLOCK_HEIGHT),
        "holder": pose(*HOLDER, 0.0),
    }
    world.reset(np.array([0]), [InitialState(poses)], [EpisodePhysics()])
    target = np.concatenate([world.robot.tcp_pose, np.ones((1, 1))], axis=1)
    for _ in range(steps):
        world.step(target)
    return world


@pytest.mark.parametrize("angle", [0.1, 2.2, 4.3])
def test_a_free_peg_falls_into_the_hole_and_rests_there(angle: float) -> None:
    world = drop(0.0004, angle)
    assert TASK.success(world.true)
    depth = BLOCK_HEIGHT - world.true.poses["peg"][0, 2] + PEG_LENGTH / 2
    assert depth == pytest.approx(HOLE_DEPTH, abs=2e-4)


def test_a_free_peg_3_mm_off_does_not_fall_in() -> None:
    assert not TASK.success(drop(0.003, 0.7).true)


def test_the_peg_stands_still_in_its_holder() -> None:
    core = ResidualWorlds("PegInsert", 4, base_policy="hold", errors="clean")
    core.reset(np.arange(4), range(4))
    start = core.world.true.poses["peg"].copy()
    for _ in range(40):
        core.step(np.zeros((4, 7)))
        assert np.abs(core.world.true.velocities["peg"][:, :3]).max() < 0.005
    assert np.abs(core.world.true.poses["peg"][:, :3] - start[:, :3]).max() < 2e-4
    core.close()


# Episodes


def lower_end(core: ResidualWorlds) -> Array:
    """(N,) metres from the hole's mouth down to the peg's lower end."""
    peg, hole = core.world.true.poses["peg"], core.world.true.poses["hole"]
    return hole[:, 2] - peg[:, 2] + PEG_LENGTH / 2 * axis_z(peg[:, 3:])[:, 2]


def to_depth(core: ResidualWorlds, wanted: Array) -> Array:
    """Actions (N, 7) on the expert that bring a held peg, in the hole, to ``wanted`` (N,) metres of depth."""
    actions = np.zeros((core.num_worlds, 7))
    height = core.world.true.tcp_pose[:, 2] + lower_end(core) - wanted
    actions[:, 2] = (height - core.base_target[:, 2]) / core.scales.position
    return np.clip(actions, -1.0, 1.0)


@pytest.mark.parametrize("domain", ["nominal", "twin"])
def test_the_expert_inserts_the_peg(domain: str) -> None:
    count = 4
    core = ResidualWorlds(
        "PegInsert",
        count,
        base_policy="expert",
        domain=domain,
        errors="clean",
        split="val",
        max_episode_steps=500,
    )
    core.reset(np.arange(count), range(count))
    active = np.arange(count)
    while len(active):
        core.step(np.zeros((count, 7)), active)
        active = active[~(core.terminated | core.truncated)[active]]
    assert core.success.all()
    core.close()


def test_success_broken_within_half_a_second_does_not_count() -> None:
    core = ResidualWorlds("PegInsert", 1, base_policy="expert", errors="clean", max_episode_steps=500)
    core.reset(np.array([0]), [0])
    stay = np.zeros((1, 7))
    while not TASK.success(core.world.true)[0]:
        core.step(stay)
    for _ in range(SUCCESS_STEPS - 4):
        core.step(stay)
    while TASK.success(core.world.true)[0]:
        core.step(to_depth(core, np.array([0.015])))
        assert not core.terminated[0]
    count = 0
    while not core.terminated[0]:
        core.step(stay)
        count = count + 1 if TASK.success(core.world.true)[0] else 0
    assert count == SUCCESS_STEPS
    core.close()


def test_finishing_beats_stalling_and_flickering() -> None:
    finish, stall, flicker = range(3)
    core = ResidualWorlds("PegInsert", 3, base_policy="expert", errors="clean", max_episode_steps=500)
    core.reset(np.arange(3), [0, 0, 0])
    while core.reward_terms["insert"][finish] == 0.0:
        core.step(np.zeros((3, 7)))
    gammas = np.array([0.95, 0.99])
    returns, discount = np.zeros((2, 3)), np.ones(2)
    flickered, active = 0, np.arange(3)
    while len(active):
        # 25 mm count; the flickering one never stays there for half a second.
        edge = 0.028 if core.steps[flicker] % 14 < 7 else 0.022
        actions = to_depth(core, np.array([0.0, 0.0235, edge]))
        actions[finish] = 0.0
        core.step(actions, active)
        returns[:, active] += discount[:, None] * core.reward[active]
        discount *= gammas
        flickered += int(TASK.success(core.world.true)[flicker])
        active = active[~(core.terminated | core.truncated)[active]]
    assert core.success.tolist() == [True, False, False]
    assert flickered > 30
    assert (returns[:, finish] > returns[:, stall]).all()
    assert (returns[:, finish] > returns[:, flicker]).all()
    core.close()
