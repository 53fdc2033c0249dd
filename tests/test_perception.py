"""Pose errors follow their stated laws, worlds do not share luck, and the filter does what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from oc_residual_gym.perception import PoseErrors, PoseFilter
from oc_residual_gym.perception.errors import MODELS, PoseErrorModel
from oc_residual_gym.perception.filter import NEVER
from oc_residual_gym.tasks.symmetry import SYMMETRIES, Symmetry, angle_between

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

REST = np.array([0.5, -0.1, 0.02, *Rotation.from_euler("xyz", [0.3, -0.4, 1.1]).as_quat()])
NOISY = [name for name in MODELS if name != "clean"]


def generators(num_worlds: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(num_worlds)]


def started(name: str, num_worlds: int, num_objects: int, seed: int = 0) -> PoseErrors:
    errors = PoseErrors(name, num_worlds, num_objects)
    errors.reset(np.arange(num_worlds), generators(num_worlds, seed))
    return errors


def watch(errors: PoseErrors, true_poses: Array, near: bool = False) -> tuple[Array, BoolArray]:
    """Observe true poses ``(T, N, K, 7)`` step by step."""
    hidden = np.full(true_poses.shape[1:3], near)
    steps = [errors.observe(pose, hidden) for pose in true_poses]
    return np.array([poses for poses, _ in steps]), np.array([valid for _, valid in steps])


def at_rest(steps: int, num_worlds: int, num_objects: int) -> Array:
    return np.broadcast_to(REST, (steps, num_worlds, num_objects, 7))


def moving(steps: int, num_worlds: int, num_objects: int, seed: int = 0) -> Array:
    """A smooth random motion of every object, ``(T, N, K, 7)``."""
    shape = (steps, num_worlds, num_objects)
    path = np.cumsum(np.random.default_rng(seed).normal(scale=0.02, size=(*shape, 6)), axis=0)
    quats = Rotation.from_rotvec(path[..., 3:].reshape(-1, 3)).as_quat().reshape(*shape, 4)
    return np.concatenate([path[..., :3], quats], axis=-1)


def rotation_errors(poses: Array, truth: Array = REST) -> Array:
    """Rotation vectors in the true object frames, rad."""
    errors = Rotation.from_quat(truth[3:]).inv() * Rotation.from_quat(poses[..., 3:].reshape(-1, 4))
    return errors.as_rotvec().reshape(*poses.shape[:-1], 3)


# --- Error models: their laws ---


def test_unknown_model_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="unknown pose error model 'real': choose one of clean, paper, tracker"):
        PoseErrors("real", 1, 1)


def test_observing_before_the_first_reset_is_an_error() -> None:
    errors = PoseErrors("paper", 2, 1)
    errors.reset(np.array([0]), generators(1))
    with pytest.raises(RuntimeError, match="world 1 was observed before its first reset"):
        errors.observe(np.zeros((2, 1, 7)), np.zeros((2, 1), dtype=bool))


def test_clean_is_the_truth() -> None:
    truth = moving(300, 3, 2)
    errors = started("clean", 3, 2)
    poses, valid = watch(errors, truth)
    np.testing.assert_array_equal(poses, truth)
    assert valid.all()
    np.testing.assert_array_equal(errors.wrench_noise(), np.zeros((3, 6)))


def test_paper_errors_are_uniform_within_uniform_half_widths() -> None:
    poses, valid = watch(started("paper", 20, 2), at_rest(1000, 20, 2))
    position = (poses - REST)[valid][:, :3]
    rotation = rotation_errors(poses[valid])
    for errors, largest in ((position, 0.005), (rotation, np.deg2rad(3.0))):
        assert np.abs(errors).max() <= largest
        assert np.abs(errors).max() > 0.98 * largest
        # Uniform within +-s has the variance s^2 / 3, and s ~ U(0, largest) has E[s^2] = largest^2 / 3.
        np.testing.assert_allclose(errors.std(axis=0), largest / 3.0, rtol=0.03)
        np.testing.assert_allclose(errors.mean(axis=0), 0.0, atol=0.02 * largest)
        # Axes share the half-width of the step, and are otherwise independent.
        assert np.corrcoef(np.abs(errors).T)[0, 1] > 0.3
        assert abs(np.corrcoef(errors.T)[0, 1]) < 0.03
    assert abs(np.corrcoef(np.abs(position[:, 0]), np.abs(rotation[:, 0]))[0, 1]) < 0.03


def test_paper_drops_one_step_in_ten_independently() -> None:
    poses, valid = watch(started("paper", 20, 2), at_rest(1000, 20, 2), near=True)
    lost = ~valid
    assert lost.mean() == pytest.approx(0.1, abs=0.006)
    assert lost[1:][lost[:-1]].mean() == pytest.approx(0.1, abs=0.015)
    assert lost[..., 1][lost[..., 0]].mean() == pytest.approx(0.1, abs=0.02)
    assert np.isnan(poses[lost]).all()
    assert np.isfinite(poses[valid]).all()


def test_tracker_bias_stays_for_an_episode_and_jitter_does_not() -> None:
    poses, _ = watch(started("tracker", 400, 2), at_rest(200, 400, 2))
    position = poses[..., :3] - REST[:3]
    seen = np.isfinite(position[..., 0])
    rotation = np.full_like(position, np.nan)
    rotation[seen] = rotation_errors(poses[seen])
    for errors, bias, jitter in ((position, 0.002, 0.001), (rotation, np.deg2rad(1.0), np.deg2rad(0.5))):
        means = np.nanmean(errors, axis=0)
        np.testing.assert_allclose(means.std(axis=(0, 1)), bias, rtol=0.08)
        np.testing.assert_allclose(np.nanstd(errors - means, axis=(0, 1, 2)), jitter, rtol=0.02)
        assert abs(np.corrcoef(means[:, 0, 0], means[:, 1, 0])[0, 1]) < 0.15


def test_tracker_is_one_or_two_steps_late() -> None:
    num_worlds, steps = 200, 40
    truth = np.array(at_rest(steps, num_worlds, 1))
    truth[..., 0] = np.arange(steps)[:, None, None]  # one metre a step, so that noise does not matter
    poses, valid = watch(started("tracker", num_worlds, 1), truth)
    delay = np.where(valid, np.arange(steps)[:, None, None] - np.round(poses[..., 0]), np.nan)[..., 0]
    assert np.isfinite(delay[0]).all()
    np.testing.assert_array_equal(delay[0], 0.0)  # the first pose repeats until there is an older one
    settled = delay[2:]
    per_world = np.nanmin(settled, axis=0)
    np.testing.assert_array_equal(np.nanmax(settled, axis=0), per_world)
    assert set(per_world) == {1.0, 2.0}
    assert (per_world == 1.0).mean() == pytest.approx(0.5, abs=0.12)
    assert set(delay[1][np.isfinite(delay[1])]) == {1.0}


def test_latency_keeps_counting_over_long_episodes() -> None:
    steps = 600
    truth = np.array(at_rest(steps, 8, 1))
    truth[..., 0] = np.arange(steps)[:, None, None]
    poses, valid = watch(started("tracker", 8, 1), truth)
    delay = np.where(valid, np.arange(steps)[:, None, None] - np.round(poses[..., 0]), np.nan)[2:]
    np.testing.assert_array_equal(np.nanmax(delay, axis=0), np.nanmin(delay, axis=0))


def test_tracker_drops_in_bursts() -> None:
    def share_and_lengths(near: bool) -> tuple[float, IntArray, float]:
        _, valid = watch(started("tracker", 60, 2), at_rest(4000, 60, 2), near=near)
        lost = ~valid[100:].reshape(-1, 120)
        change = np.diff(lost.astype(int), axis=0)
        lengths = []
        for column in change.T:
            starts, ends = np.flatnonzero(column == 1), np.flatnonzero(column == -1)
            ends = ends[ends > starts[0]]
            lengths.append(ends - starts[: len(ends)])
        start_rate = (change == 1).sum() / (~lost[:-1]).sum()
        return float(lost.mean()), np.concatenate(lengths), float(start_rate)

    share, lengths, start_rate = share_and_lengths(near=False)
    share_near, lengths_near, start_rate_near = share_and_lengths(near=True)
    assert share == pytest.approx(0.05, rel=0.1)
    assert lengths.mean() == pytest.approx(6.0, rel=0.05)
    assert lengths_near.mean() == pytest.approx(6.0, rel=0.05)
    assert start_rate_near / start_rate == pytest.approx(3.0, rel=0.08)
    assert share_near == pytest.approx(3 / 22, rel=0.06)


@pytest.mark.parametrize("name", MODELS)
def test_first_observation_is_never_lost(name: str) -> None:
    errors = PoseErrors(name, 200, 2)
    for episode in range(3):
        errors.reset(np.arange(200), generators(200, episode))
        _, valid = watch(errors, at_rest(30, 200, 2), near=True)
        assert valid[0].all()


@pytest.mark.parametrize("name", NOISY)
def test_wrench_noise(name: str) -> None:
    errors = started(name, 50, 1)
    hidden = np.zeros((50, 1), dtype=bool)
    noise = []
    for poses in at_rest(400, 50, 1):
        errors.observe(poses, hidden)
        noise.append(errors.wrench_noise())
        np.testing.assert_array_equal(errors.wrench_noise(), noise[-1])
    np.testing.assert_allclose(np.std(noise, axis=(0, 1)), np.repeat(MODELS[name].wrench, 3), rtol=0.03)
    assert abs(np.corrcoef(np.ravel(noise[:-1]), np.ravel(noise[1:]))[0, 1]) < 0.02


# --- Error models: whose luck it is ---


@pytest.mark.parametrize("name", MODELS)
def test_same_generators_same_errors(name: str) -> None:
    truth = moving(300, 4, 2)
    first, second = (watch(started(name, 4, 2), truth) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    if name != "clean":
        other = watch(started(name, 4, 2, seed=1), truth)
        assert not np.array_equal(first[0], other[0], equal_nan=True)


@pytest.mark.parametrize("num_objects", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_a_world_does_not_depend_on_its_neighbours(name: str, num_objects: int) -> None:
    """Bit for bit, errors and filter, for N = 1 and N = 64, with neighbours starting at other times."""
    symmetries = ["yaw_90", "axis_z"][:num_objects]
    truth = moving(400, 64, num_objects)
    near = np.random.default_rng(2).random((400, 64, num_objects)) < 0.5
    restarts = {0: np.arange(64), 57: np.arange(0, 64, 3), 190: np.arange(1, 64, 3), 300: np.arange(64)}

    def play(worlds: IntArray) -> list[tuple[Array | BoolArray | IntArray, ...]]:
        errors, pose_filter = PoseErrors(name, len(worlds), num_objects), PoseFilter(symmetries, len(worlds))
        history: list[tuple[Array | BoolArray | IntArray, ...]] = []
        for step in range(len(truth)):
            restarted = np.flatnonzero(np.isin(worlds, restarts.get(step, [])))
            errors.reset(restarted, [np.random.default_rng([step, world]) for world in worlds[restarted]])
            pose_filter.reset(restarted)
            poses, valid = errors.observe(truth[step, worlds], near[step, worlds])
            pose_filter.update(poses, valid)
            history.append((poses, valid, errors.wrench_noise(), pose_filter.poses, pose_filter.age))
        return history

    together = play(np.arange(64))
    for world in (0, 1, 2, 63):
        for step, alone in enumerate(play(np.array([world]))):
            for a, b in zip(alone, together[step], strict=True):
                np.testing.assert_array_equal(a[0], b[world])


@pytest.mark.parametrize("name", MODELS)
def test_worlds_that_do_not_advance_lose_nothing(name: str) -> None:
    """However its steps lie between those of others, a world sees the same, errors and filter alike."""
    truth = moving(300, 3, 2)
    near = np.zeros((3, 2), dtype=bool)

    reference = started(name, 3, 2)
    reference_filter = PoseFilter(["none", "yaw_180"], 3)
    expected = []
    for poses in truth:
        observed, valid = reference.observe(poses, near)
        reference_filter.update(observed, valid)
        expected.append((observed, valid, reference.wrench_noise(), reference_filter.poses, reference_filter.age))

    errors = started(name, 3, 2)
    pose_filter = PoseFilter(["none", "yaw_180"], 3)
    random = np.random.default_rng(5)
    clock = np.zeros(3, dtype=int)
    while clock.min() < len(truth):
        worlds = np.flatnonzero((random.random(3) < [0.9, 0.5, 0.2]) & (clock < len(truth)))
        before = [a.copy() for a in (errors.wrench_noise(), pose_filter.poses, pose_filter.age, pose_filter.valid)]
        now = np.array([truth[min(clock[world], len(truth) - 1), world] for world in range(3)])
        observed, valid = errors.observe(now, near, worlds)
        pose_filter.update(observed, valid, worlds)
        results = observed, valid, errors.wrench_noise(), pose_filter.poses, pose_filter.age
        for world in worlds:
            for result, wanted in zip(results, expected[clock[world]], strict=True):
                np.testing.assert_array_equal(result[world], wanted[world])
        paused = np.setdiff1d(np.arange(3), worlds)
        after = errors.wrench_noise(), pose_filter.poses, pose_filter.age, pose_filter.valid
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old[paused], new[paused])
        clock[worlds] += 1


@pytest.mark.parametrize("name", MODELS)
def test_a_reset_leaves_nothing_of_the_episode_before(name: str) -> None:
    """At any step of it, also in the middle of a burst and in a later block of noise."""
    truth = moving(20, 1, 1, seed=1)
    fresh, fresh_filter = started(name, 1, 1), PoseFilter(["yaw_90"], 1)
    expected = []
    for observed, seen in zip(*watch(fresh, truth), strict=True):
        fresh_filter.update(observed, seen)
        expected.append(fresh_filter.poses)

    used, used_filter = started(name, 1, 1, seed=1), PoseFilter(["yaw_90"], 1)
    for length in (1, 10, 128, 129, 200, 301):
        for observed, seen in zip(*watch(used, moving(length, 1, 1), near=True), strict=True):
            used_filter.update(observed, seen)
        used.reset(np.array([0]), generators(1))
        used_filter.reset(np.array([0]))
        for observed, seen, wanted in zip(*watch(used, truth), expected, strict=True):
            used_filter.update(observed, seen)
            np.testing.assert_array_equal(used_filter.poses, wanted)


def test_a_world_that_was_reset_is_not_seen_before_it_is_observed() -> None:
    errors = started("paper", 2, 1)
    watch(errors, at_rest(5, 2, 1))
    errors.reset(np.array([1]), generators(1))
    poses, valid = errors.observe(at_rest(1, 2, 1)[0], np.zeros((2, 1), dtype=bool), np.array([0]))
    assert np.isnan(poses[1]).all()
    assert not valid[1].any()


def test_results_are_not_overwritten_by_later_steps() -> None:
    errors, pose_filter = started("paper", 2, 1), PoseFilter(["none"], 2)
    near = np.zeros((2, 1), dtype=bool)
    truth = moving(2, 2, 1)
    poses, valid = errors.observe(truth[0], near)
    pose_filter.update(poses, valid)
    kept = poses, valid, errors.wrench_noise(), pose_filter.poses, pose_filter.valid, pose_filter.age
    copies = [a.copy() for a in kept]
    poses, valid = errors.observe(truth[1], near, np.array([0]))
    pose_filter.update(poses, valid, np.array([0]))
    for a, b in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(a, b)


# --- Filter ---


def pose(rotation: Rotation, position: tuple[float, float, float] = (0.4, 0.1, 0.02)) -> Array:
    return np.array([*position, *rotation.as_quat()]).reshape(1, 1, 7)


def yaw(degrees: float) -> Rotation:
    return Rotation.from_euler("z", degrees, degrees=True)


def filtered_rotation(pose_filter: PoseFilter) -> Rotation:
    return Rotation.from_quat(pose_filter.poses[0, 0, 3:])


SEEN = np.ones((1, 1), dtype=bool)
LOST = np.zeros((1, 1), dtype=bool)


def test_unknown_symmetry_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'round'.*none, yaw_180, yaw_90, axis_z"):
        PoseFilter(["none", "round"], 1)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("tilt", [[0.2, 0.1], [1.5, 0.0], [-0.7, 1.2]])
def test_poses_that_look_alike_start_with_the_same_observation(symmetry: str, tilt: list[float]) -> None:
    body = Rotation.from_euler("xy", tilt) * yaw(20.0)
    alike = body * Rotation.from_quat(SYMMETRIES[symmetry].members(360))
    results = []
    for orientation in alike[:: max(len(alike) // 24, 1)]:
        for sign in (1.0, -1.0):
            pose_filter = PoseFilter([symmetry], 1)
            measured = pose(orientation)
            measured[..., 3:] *= sign
            pose_filter.update(measured, SEEN)
            results.append(pose_filter.poses)
    np.testing.assert_allclose(results, np.broadcast_to(results[0], np.shape(results)), atol=1e-9)
    # It is one of the poses that look alike, and none of them is nearer to the identity rotation.
    first = Rotation.from_quat(results[0][0, 0, 3:])
    assert min((first.inv() * other).magnitude() for other in alike) < np.deg2rad(0.51)
    assert first.magnitude() <= min(other.magnitude() for other in alike) + 1e-9
    np.testing.assert_allclose(results[0][0, 0, :3], (0.4, 0.1, 0.02), atol=1e-15)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_filtered_rotation_is_the_same_whatever_equivalent_the_tracker_reports(symmetry: str) -> None:
    """A body turns through 400 degrees while the tracker hops between the poses that look alike, or does not."""
    members = SYMMETRIES[symmetry].members(360)
    random = np.random.default_rng(0)
    hopping, steady = PoseFilter([symmetry], 1), PoseFilter([symmetry], 1)
    tilt = Rotation.from_euler("x", 40.0, degrees=True)
    last: Rotation | None = None
    for degrees in np.arange(0.0, 400.0, 1.0):
        body = yaw(degrees) * tilt * yaw(degrees)
        hop = Rotation.from_quat(members[random.integers(len(members))])
        if random.random() < 0.9:  # with dropouts
            hopping.update(pose(body * hop), SEEN)
            steady.update(pose(body), SEEN)
        np.testing.assert_allclose(hopping.poses, steady.poses, atol=1e-9)
        now = filtered_rotation(hopping)
        if last is not None:
            assert np.rad2deg((last.inv() * now).magnitude()) < 9.0
        last = now
        assert np.rad2deg(angle_between(now.as_quat(), body.as_quat(), symmetry)) < 8.0


def test_a_group_of_ones_own_is_filtered_too() -> None:
    prism = Symmetry(tuple(map(tuple, Rotation.create_group("D6", "X").as_quat())))
    pose_filter = PoseFilter(["none", prism], 1)
    turned = pose(Rotation.from_euler("x", 57.0, degrees=True))
    pose_filter.update(np.concatenate([turned, turned], axis=1), np.ones((1, 2), dtype=bool))
    angles = Rotation.from_quat(pose_filter.poses[0, :, 3:]).as_euler("xyz", degrees=True)
    np.testing.assert_allclose(angles, [[57.0, 0.0, 0.0], [-3.0, 0.0, 0.0]], atol=1e-9)


def test_a_cube_turned_through_90_degrees_ends_90_degrees_further() -> None:
    pose_filter = PoseFilter(["cube"], 1)
    for degrees in np.concatenate([np.arange(0.0, 90.0, 1.5), np.full(40, 90.0)]):
        reported = (degrees + 45.0) % 90.0 - 45.0  # a tracker that keeps the yaw within +-45 degrees
        pose_filter.update(pose(yaw(reported)), SEEN)
    assert filtered_rotation(pose_filter).as_euler("zyx", degrees=True)[0] == pytest.approx(90.0, abs=0.5)


def test_a_lost_object_is_held_and_ages() -> None:
    pose_filter = PoseFilter(["none"], 1)
    assert not pose_filter.valid.any()
    assert (pose_filter.age >= NEVER).all()
    assert np.isnan(pose_filter.poses).all()

    missing = np.full((1, 1, 7), np.nan)
    pose_filter.update(missing, LOST)
    assert np.isnan(pose_filter.poses).all()
    assert (pose_filter.age >= NEVER).all()

    seen = pose(yaw(30.0))
    pose_filter.update(seen, SEEN)
    np.testing.assert_allclose(pose_filter.poses, seen, atol=1e-15)
    for age in range(1, 6):
        held = pose_filter.poses
        pose_filter.update(missing, LOST)
        np.testing.assert_array_equal(pose_filter.poses, held)
        assert pose_filter.age[0, 0] == age
        assert not pose_filter.valid[0, 0]
    pose_filter.update(seen, SEEN)
    assert pose_filter.age[0, 0] == 0
    assert pose_filter.valid[0, 0]
    assert np.isfinite(pose_filter.poses).all()

    pose_filter.reset(np.array([0]))
    assert not pose_filter.valid.any()
    assert np.isnan(pose_filter.poses).all()


def test_a_lost_object_leaves_the_others_alone() -> None:
    poses, valid = watch(started("tracker", 4, 2), moving(200, 4, 2))
    both, only_second = PoseFilter(["yaw_90", "none"], 4), PoseFilter(["none"], 4)
    for observed, seen in zip(poses, valid, strict=True):
        both.update(observed, seen)
        only_second.update(observed[:, 1:], seen[:, 1:])
        np.testing.assert_array_equal(both.poses[:, 1:], only_second.poses)
    assert (~valid[:, :, 0]).any()


def test_what_is_not_valid_never_enters() -> None:
    truth = moving(200, 4, 2)
    poses, valid = watch(started("paper", 4, 2), truth)
    with_nan, with_garbage = PoseFilter(["axis_z", "none"], 4), PoseFilter(["axis_z", "none"], 4)
    for observed, seen in zip(poses, valid, strict=True):
        with_nan.update(observed, seen)
        with_garbage.update(np.where(seen[..., None], observed, 1e6), seen)
        assert np.isfinite(with_nan.poses).all()
        np.testing.assert_array_equal(with_nan.poses, with_garbage.poses)


def test_a_longer_gap_lets_more_of_the_new_pose_in() -> None:
    moved = []
    for gap in (0, 3, 10, 60):
        pose_filter = PoseFilter(["none"], 1)
        pose_filter.update(pose(yaw(0.0), (0.4, 0.0, 0.0)), SEEN)
        for _ in range(gap):
            pose_filter.update(np.full((1, 1, 7), np.nan), LOST)
        pose_filter.update(pose(yaw(0.0), (0.41, 0.0, 0.0)), SEEN)
        moved.append((pose_filter.poses[0, 0, 0] - 0.4) / 0.01)
    assert moved == sorted(moved)
    assert moved[-1] > 0.9


@pytest.mark.parametrize(("name", "position", "rotation"), [("paper", 2.0, 1.7), ("tracker", 2.0, 1.7)])
def test_noise_at_rest_is_reduced(name: str, position: float, rotation: float) -> None:
    """Standard deviation about the episode's mean, relative to that of the tracked poses."""
    poses, valid = watch(started(name, 50, 1), at_rest(300, 50, 1))
    pose_filter = PoseFilter(["none"], 50)
    filtered = []
    for observed, seen in zip(poses, valid, strict=True):
        pose_filter.update(observed, seen)
        filtered.append(pose_filter.poses)
    smooth, raw = np.array(filtered)[50:], poses[50:]

    def deviation(errors: Array) -> float:
        return float(np.nanstd(errors - np.nanmean(errors, axis=0)))

    raw_rotation = np.full((*raw.shape[:-1], 3), np.nan)
    raw_rotation[valid[50:]] = rotation_errors(raw[valid[50:]])
    assert deviation(raw[..., :3]) / deviation(smooth[..., :3]) > position
    assert deviation(raw_rotation) / deviation(rotation_errors(smooth)) > rotation


def test_lag_behind_a_motion_stays_small() -> None:
    """At 0.2 m/s and 0.6 rad/s, from standing still."""
    pose_filter = PoseFilter(["none"], 1)
    position, angle = [], []
    for step in np.concatenate([np.zeros(5), np.arange(40)]):
        body = Rotation.from_rotvec([0.0, 0.03 * step, 0.0])
        pose_filter.update(pose(body, (0.3 + 0.01 * step, 0.0, 0.1)), SEEN)
        position.append(0.3 + 0.01 * step - pose_filter.poses[0, 0, 0])
        angle.append((filtered_rotation(pose_filter).inv() * body).magnitude())
    assert max(position) < 0.008
    assert position[-1] < 0.006
    assert max(angle) < np.deg2rad(1.8)
    assert angle[-1] < np.deg2rad(1.5)


def test_smoothing_does_not_depend_on_the_frame() -> None:
    """Filtering in another base frame gives the same poses, seen from there."""
    rng = np.random.default_rng(0)
    other = Rotation.random(random_state=1)
    here, there = PoseFilter(["none"], 1), PoseFilter(["none"], 1)
    for _ in range(30):
        position, body = rng.normal(scale=0.01, size=3), Rotation.from_rotvec(rng.normal(scale=0.1, size=3))
        here.update(pose(body, tuple(position)), SEEN)
        there.update(pose(other * body, tuple(other.apply(position))), SEEN)
    np.testing.assert_allclose(there.poses[0, 0, :3], other.apply(here.poses[0, 0, :3]), atol=1e-12)
    assert (filtered_rotation(there).inv() * other * filtered_rotation(here)).magnitude() < 1e-9


def test_quaternions_stay_unit_over_long_runs() -> None:
    pose_filter = PoseFilter(["yaw_90", "axis_z"], 2)
    for observed in moving(3000, 2, 2):
        pose_filter.update(observed, np.ones((2, 2), dtype=bool))
    np.testing.assert_allclose(np.linalg.norm(pose_filter.poses[..., 3:], axis=-1), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"latency": (4, 2)}, "latency .* goes from 4 to 2"),
        ({"loss": 2.0}, "loss .* is 2.0: a probability is at most 1"),
        ({"jitter": (-0.1, 0.0)}, "jitter .*: it cannot be negative"),
    ],
)
def test_an_error_model_that_cannot_be_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        PoseErrorModel(**wrong)
