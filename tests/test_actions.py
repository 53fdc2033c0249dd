"""compose and limit: what an action does, and what it can never do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from oc_residual_gym.envs.actions import (
    LATCH_STEPS,
    LEASH_POSITION,
    LEASH_ROTATION,
    RATE_POSITION,
    RATE_ROTATION,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    Latch,
    ResidualScales,
    compose,
    limit,
    residual_between,
)

DOWN = np.array([1.0, 0.0, 0.0, 0.0])
SCALES = ResidualScales()


def target(x=0.45, y=0.0, z=0.2, quat=DOWN, opening=1.0) -> np.ndarray:
    return np.array([[x, y, z, *quat, opening]])


def open_latch() -> Latch:
    return Latch(np.array([False]), np.array([LATCH_STEPS]))


def random_targets(count: int, rng: np.random.Generator) -> np.ndarray:
    quats = Rotation.random(count, random_state=rng.integers(2**31)).as_quat()
    return np.concatenate([rng.uniform([-1, -1, -1], [2, 1, 1], (count, 3)), quats, rng.random((count, 1))], axis=1)


def test_residual_adds_position_in_the_base_frame_and_rotation_in_the_tool_frame():
    base = target(quat=Rotation.from_euler("xyz", [170, 10, 40], degrees=True).as_quat(), opening=0.2)
    action = np.array([[1.0, -0.5, 0.25, 0.0, 0.0, 1.0, 0.5]])
    composed = compose(base, action, SCALES)[0]
    np.testing.assert_allclose(composed[:3] - base[0, :3], [0.02, -0.01, 0.005])
    turned = Rotation.from_quat(base[0, 3:7]).inv() * Rotation.from_quat(composed[3:7])
    np.testing.assert_allclose(turned.as_rotvec(), [0.0, 0.0, 0.1], atol=1e-12)
    assert composed[7] == pytest.approx(0.5)


def test_gripper_residual_overrules_the_base_at_either_end():
    for opening, push in ((0.0, 1.0), (1.0, -1.0)):
        composed = compose(target(opening=opening), np.array([[0, 0, 0, 0, 0, 0, push]]), SCALES)
        _, latch = limit(composed, target(), target()[:, :7], Latch(np.array([push > 0]), np.array([LATCH_STEPS])))
        assert latch.closed[0] == (push < 0)


def test_residual_between_inverts_compose():
    rng = np.random.default_rng(0)
    base, action = random_targets(50, rng), rng.uniform(-1, 1, (50, 7))
    base[:, 7], action[:, 6] = 0.5, action[:, 6] * 0.5
    np.testing.assert_allclose(residual_between(base, compose(base, action, SCALES), SCALES), action, atol=1e-9)
    far = residual_between(base, random_targets(50, rng), SCALES)
    assert np.abs(far).max() == 1.0


def test_executed_targets_never_break_a_limit():
    """Whatever is asked for: inside the box, near the previous target, near the TCP, the hand above the table."""
    rng = np.random.default_rng(1)
    count = 500
    executed = np.repeat(target(), count, axis=0)
    latch = Latch(np.zeros(count, bool), np.full(count, LATCH_STEPS))
    for _ in range(100):
        tcp = executed[:, :7].copy()
        tcp[:, :3] += rng.uniform(-0.01, 0.01, (count, 3))
        previous, wanted = executed, random_targets(count, rng)
        executed, latch = limit(wanted, previous, tcp, latch)
        step = np.linalg.norm(executed[:, :3] - previous[:, :3], axis=1)
        assert step.max() <= RATE_POSITION + 1e-12
        turn = (Rotation.from_quat(previous[:, 3:7]).inv() * Rotation.from_quat(executed[:, 3:7])).magnitude()
        assert turn.max() <= RATE_ROTATION + 1e-9
        assert (executed[:, :3] >= WORKSPACE_LOW - 1e-12).all() and (executed[:, :3] <= WORKSPACE_HIGH + 1e-12).all()
        assert set(np.unique(executed[:, 7])) <= {0.0, 1.0}
        # Corners of the hand's body, in the TCP frame.
        corners = np.stack(np.meshgrid([-0.0316, 0.0316], [-0.1025, 0.1025], [-0.1037, -0.0371]), -1).reshape(-1, 3)
        heights = [Rotation.from_quat(executed[:, 3:7]).apply(c)[:, 2] + executed[:, 2] for c in corners]
        assert np.min(heights) >= -0.004  # what one step's turn may add before the rate-limited height follows


def test_leash_holds_the_target_near_a_blocked_tcp():
    tcp, executed, latch = target()[:, :7], target(), open_latch()
    away = target(x=0.7, quat=Rotation.from_euler("x", 100, degrees=True).as_quat())
    for _ in range(200):
        executed, latch = limit(away, executed, tcp, latch)
    assert np.linalg.norm(executed[0, :3] - tcp[0, :3]) == pytest.approx(LEASH_POSITION)
    turn = Rotation.from_quat(tcp[0, 3:]).inv() * Rotation.from_quat(executed[0, 3:7])
    assert turn.magnitude() == pytest.approx(LEASH_ROTATION)


def test_gripper_latch_has_hysteresis_and_cannot_be_reversed_at_once():
    executed, latch = target(), open_latch()

    def command(opening):
        nonlocal executed, latch
        executed, latch = limit(target(opening=opening), executed, executed[:, :7], latch)
        return executed[0, 7]

    assert [command(o) for o in (0.6, 0.5, 0.46)] == [1.0, 1.0, 1.0]
    assert command(0.44) == 0.0
    # Reversed commands wait for 0.3 s in all.
    assert [command(1.0) for _ in range(LATCH_STEPS)] == [0.0] * (LATCH_STEPS - 1) + [1.0]
    assert [command(0.5) for _ in range(10)] == [1.0] * 10


def test_negative_scales_are_refused():
    with pytest.raises(ValueError, match="position"):
        ResidualScales(position=-0.01)
    with pytest.raises(ValueError, match="rotation"):
        ResidualScales(rotation=float("nan"))
