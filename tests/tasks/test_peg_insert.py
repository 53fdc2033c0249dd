"""PegInsert: what counts as inserted, what does not, the hole itself, and that finishing pays."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.states import Array
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import SUCCESS_STEPS, Snapshot, TrueState, Waypoint, axis_z, pose
from oc_residual_gym.tasks.peg_insert import (
    BLOCK_HEIGHT,
    GRASP,
    HOLDER_FLOOR,
    HOLE_DEPTH,
    INSERTED_DEPTH,
    PEG_LENGTH,
)
from oc_residual_gym.worlds.scene import build_scene

TASK = TASKS["PegInsert"]


def peg_at(hole: Array, depth: float, offset: Array | float = 0.0, tilt: float = 0.0) -> Array:
    """Pose (7,) of a peg, tilted by ``tilt`` radians about y: the centre of its lower end is ``depth`` metres
    below the mouth of the hole at ``hole`` (7,), and ``offset`` metres (2,) beside its axis.
    """
    reach = PEG_LENGTH / 2
    x, y = hole[:2] + offset
    height = hole[2] - depth + reach * np.cos(tilt)
    return np.array([x + reach * np.sin(tilt), y, height, 0.0, np.sin(tilt / 2), 0.0, np.cos(tilt / 2)])


def depth_of(state: Snapshot) -> float:
    """Metres from the hole's mouth down to the lower end of a peg over or in the hole; below 0 elsewhere."""
    peg, hole = state.poses["peg"], state.poses["hole"]
    if np.hypot(*(peg[:2] - hole[:2])) > 0.005:
        return -1.0
    return float(hole[2] - peg[2] + PEG_LENGTH / 2 * axis_z(peg[3:])[2])


# What counts


def test_the_expert_inserts_the_peg(stage):
    world = stage("PegInsert", "expert")
    met = world.run_to_the_end()
    assert world.succeeded
    assert met[-SUCCESS_STEPS:].all()
    assert world.greatest_fall() < 0.1, "milestones stay reached on the way to success"


def test_the_expert_copes_with_the_shifted_domain():
    worlds = np.arange(4)
    core = ResidualWorlds("PegInsert", len(worlds), base_policy="expert", domain="twin", errors="clean")
    core.reset(worlds, worlds.tolist())
    while len(worlds):
        core.step(np.zeros((core.num_worlds, 7)), worlds)
        worlds = worlds[~core.terminated[worlds]]
        assert core.steps.max() < TASK.max_episode_steps
    assert core.success.all()
    core.close()


def test_a_peg_in_the_hole_counts_after_half_a_second(stage):
    world = stage("PegInsert")
    world.put(peg=peg_at(world.state.poses["hole"][0], HOLE_DEPTH))
    assert world.run(SUCCESS_STEPS - 1).all()
    assert not world.succeeded
    assert world.run(1).all()
    assert world.succeeded
    assert world.rewards == [0.0] * SUCCESS_STEPS


def test_either_end_counts(stage):
    world = stage("PegInsert")
    peg = peg_at(world.state.poses["hole"][0], HOLE_DEPTH)
    world.put(peg=np.array([*peg[:3], 1.0, 0.0, 0.0, 0.0]))
    assert world.run(SUCCESS_STEPS).all()


def test_success_must_hold_without_a_break(stage):
    world = stage("PegInsert")
    inside = peg_at(world.state.poses["hole"][0], HOLE_DEPTH)
    above = peg_at(world.state.poses["hole"][0], -0.02)
    for _ in range(3):
        for _ in range(SUCCESS_STEPS - 1):
            world.put(peg=inside)
            assert world.run(1).all()
        world.put(peg=above)
        assert not world.run(1).any()
        assert not world.succeeded
    assert not world.core.terminated[0]


# Near misses


def at_depth(state: Snapshot, depth: float, wait: int = 15, speed: float = 0.001) -> Waypoint:
    """Bring a peg that is held in the hole to that depth, in metres."""
    height = state.tcp_pose[2] + depth_of(state) - depth
    return Waypoint(np.concatenate([state.target[:2], [height], state.target[3:7]]), True, wait, speed)


def test_held_half_inserted_does_not_count(stopped):
    world = stopped("PegInsert", lambda state: depth_of(state) > 0.01, lambda state: [at_depth(state, 0.02)])
    assert not world.run(80).any()
    peg, hole = world.state.poses["peg"][0], world.state.poses["hole"][0]
    assert hole[2] - peg[2] + PEG_LENGTH / 2 == pytest.approx(0.02, abs=1e-3)


def test_standing_in_its_holder_does_not_count(stage):
    world = stage("PegInsert")
    start = world.state.poses["peg"][0].copy()
    assert not world.run(40).any()
    assert np.abs(world.state.poses["peg"][0, :3] - start[:3]).max() < 2e-4, "it stands still"


def test_standing_beside_the_block_does_not_count(stage):
    world = stage("PegInsert")
    hole = world.state.poses["hole"][0]
    world.put(peg=peg_at(hole, BLOCK_HEIGHT, offset=np.array([0.04, 0.0])))
    assert not world.run(20).any()
    peg = world.state.poses["peg"][0]
    assert peg[2] == pytest.approx(PEG_LENGTH / 2, abs=1e-3), "lower than a peg in the hole"


def test_lying_across_the_hole_does_not_count(stage):
    world = stage("PegInsert")
    x, y, z = world.state.poses["hole"][0, :3]
    world.put(peg=np.array([x, y, z + 0.008, 0.0, np.sqrt(0.5), 0.0, np.sqrt(0.5)]))
    assert not world.run(20).any()
    assert world.state.poses["peg"][0, 2] > BLOCK_HEIGHT


@pytest.mark.parametrize(("depth", "counts"), [(0.024, False), (0.026, True)])
def test_25_mm_are_needed(stage, depth, counts):
    state = stage("PegInsert").state
    assert judge(state, peg_at(state.poses["hole"][0], depth)) == counts


@pytest.mark.parametrize(("tilt", "counts"), [(6.0, False), (4.0, True), (-6.0, False)])
def test_a_tilted_peg_does_not_count(stage, tilt, counts):
    state = stage("PegInsert").state
    assert judge(state, peg_at(state.poses["hole"][0], 0.027, tilt=np.radians(tilt))) == counts


@pytest.mark.parametrize("motion", [[0, 0, -0.06, 0, 0, 0], [0, 0, 0, 0, 0, 0.6]])
def test_a_moving_peg_does_not_count(stage, motion):
    state = stage("PegInsert").state
    inside = peg_at(state.poses["hole"][0], 0.027)
    assert judge(state, inside)
    assert not judge(state, inside, motion)


def judge(state: TrueState, peg: Array, motion: list[float] | None = None) -> bool:
    """Would it count if the peg of ``state`` were at ``peg`` (7,), with this velocity (6,)?"""
    velocity = np.zeros((1, 6)) if motion is None else np.array([motion], np.float64)
    poses = {**state.poses, "peg": peg[None]}
    now = replace(state, poses=poses, velocities={**state.velocities, "peg": velocity})
    return bool(TASK.success(now)[0])


# Rewards


def test_progress_grows_on_the_way_and_stays_below_one(stage):
    state = stage("PegInsert").state
    hole, holder = state.poses["hole"][0], state.poses["holder"][0]
    way = [pose(*holder[:2], HOLDER_FLOOR + PEG_LENGTH / 2 + lift) for lift in (0.0, 0.02, 0.05)]
    way += [peg_at(hole, -0.015, offset=np.array([0.0, aside])) for aside in (0.1, 0.05, 0.01, 0.002, 0.0)]
    way += [peg_at(hole, depth) for depth in (-0.01, 0.0, 0.002, 0.01, 0.02, INSERTED_DEPTH, HOLE_DEPTH)]
    totals = []
    for peg in way:
        held = {"left": np.array([True]), "right": np.array([True])}
        tcp = np.concatenate([peg[:3] + GRASP, peg[3:]])
        now = replace(state, poses={**state.poses, "peg": peg[None]}, contacts=held, tcp_pose=tcp[None])
        values = TASK.progress(now)
        assert all(0.0 <= value[0] <= 1.0 for value in values.values())
        totals.append(sum(TASK.weights[name] * value[0] for name, value in values.items()))
    assert np.all(np.diff(totals) > -1e-9)
    assert 0.9 < totals[-1] < 1.0


def stalling(state: Snapshot) -> list[Waypoint]:
    return [at_depth(state, 0.022)]


def flickering(state: Snapshot) -> list[Waypoint]:
    return [at_depth(state, depth, wait=3, speed=0.002) for _ in range(40) for depth in (0.027, 0.021)]


@pytest.mark.parametrize(("then", "margin"), [(stalling, 0.5), (flickering, 0.2)])
def test_finishing_pays_more(stopped, expert_beats, then, margin):
    world = stopped("PegInsert", lambda state: depth_of(state) > 0.01, then)
    met = world.run_to_the_end()
    made = int(np.sum(np.diff(met.astype(int)) == 1))
    assert made == 0 if then is stalling else made >= 10
    assert max(world.rewards[:-1]) > -0.1
    expert_beats(world, margin)


# The hole


class Probe:
    """A peg held anywhere at the hole; tells how it touches the block."""

    hole = pose(0.48, 0.05, BLOCK_HEIGHT)

    def __init__(self):
        scene = build_scene(TASK)
        self.model, self.data = scene.model, mujoco.MjData(scene.model)
        self.data.qpos[:] = scene.home
        self.data.mocap_pos[self.model.body("hole_main").mocapid[0]] = self.hole[:3]
        self._address = scene.free_qpos["peg"]
        self._peg, self._block = scene.body_ids["peg"], scene.body_ids["hole"]

    def touch(self, depth: float, aside: float = 0.0, angle: float = 0.0, tilt: float = 0.0) -> list[Array]:
        """Contact normals (3,), from block to peg, of a peg ``aside`` metres off the axis at ``angle``."""
        peg = peg_at(self.hole, depth, aside * np.array([np.cos(angle), np.sin(angle)]), tilt)
        self.data.qpos[self._address : self._address + 7] = peg[[0, 1, 2, 6, 3, 4, 5]]
        mujoco.mj_forward(self.model, self.data)
        normals = []
        for contact in self.data.contact:
            bodies = self.model.geom_bodyid[contact.geom].tolist()
            if sorted(bodies) == sorted([self._peg, self._block]):
                normals.append(contact.frame[:3] * (1.0 if bodies[1] == self._peg else -1.0))
        return normals


@pytest.fixture(scope="module")
def probe():
    return Probe()


ANGLES = np.linspace(0.0, 2 * np.pi, 24, endpoint=False) + 0.01


def test_the_peg_has_half_a_millimetre_of_play_all_round(probe):
    for angle in ANGLES:
        for depth in (0.003, 0.015, 0.029):
            assert not probe.touch(depth, 0.00049, angle)
            assert probe.touch(depth, 0.00053, angle)


def test_the_hole_is_30_mm_deep_with_a_flat_bottom(probe):
    assert not probe.touch(HOLE_DEPTH - 1e-5)
    normals = probe.touch(HOLE_DEPTH + 2e-5)
    assert normals
    assert min(normal[2] for normal in normals) > 0.999


def test_the_chamfer_guides_at_45_degrees(probe):
    for angle in ANGLES:
        # At its mouth the hole is 1.5 mm wider: a peg 1.2 mm off sinks in by 0.8 mm before it touches.
        assert not probe.touch(0.00075, 0.0012, angle)
        normals = probe.touch(0.0009, 0.0012, angle)
        assert normals
        for normal in normals:
            assert normal[2] == pytest.approx(np.sqrt(0.5), abs=0.02)
            assert normal[:2] @ [np.cos(angle), np.sin(angle)] == pytest.approx(-np.sqrt(0.5), abs=0.05)


def test_a_peg_3_mm_off_stands_on_the_rim(probe):
    for angle in ANGLES:
        assert not probe.touch(-1e-5, 0.003, angle)
        assert probe.touch(1e-4, 0.003, angle)


def test_a_tilted_peg_does_not_fit(probe):
    assert not probe.touch(0.02, tilt=np.radians(1.0))
    assert probe.touch(0.02, tilt=np.radians(5.0))


@pytest.mark.parametrize("angle", [0.1, 2.2, 4.3])
@pytest.mark.parametrize(("aside", "falls"), [(0.0004, True), (0.003, False)])
def test_a_free_peg_falls_in_only_if_it_is_over_the_hole(stage, aside, angle, falls):
    world = stage("PegInsert")
    hole = world.state.poses["hole"][0]
    world.put(peg=peg_at(hole, -0.0005, aside * np.array([np.cos(angle), np.sin(angle)])))
    met = world.run(40)
    assert met.any() == world.succeeded == falls
    if falls:
        assert world.state.poses["peg"][0, 2] == pytest.approx(peg_at(hole, HOLE_DEPTH)[2], abs=2e-4)
