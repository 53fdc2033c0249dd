"""Residual policies that remember: from step to step, per world, until the next episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from policy_files import write_onnx, write_remembering

pytest.importorskip("onnx", reason="needs the extra [train]")

from onnx import helper

from oc_residual_gym.evaluation.rollout import run_rows
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.residuals.onnx import OnnxResidual

SIZE = 78
"""Entries of the observation of a task with one object."""


@pytest.fixture
def policy(tmp_path: Path) -> OnnxResidual:
    return OnnxResidual(write_remembering(tmp_path / "policy.onnx", SIZE))


def seen(rows: int, value: float) -> np.ndarray:
    return np.full((rows, SIZE), value, np.float32)


def test_a_policy_adds_up_what_it_sees_until_it_is_reset(policy: OnnxResidual) -> None:
    for step in range(1, 4):
        np.testing.assert_allclose(policy(seen(1, 1.0)[0]), np.full(7, 0.1 * step), rtol=1e-6)
    policy.reset()
    np.testing.assert_allclose(policy(seen(3, 1.0)), np.full((3, 7), 0.1), rtol=1e-6)


@pytest.mark.parametrize("ended", [np.array([1]), np.array([False, True, False])])
def test_one_world_forgets_when_its_episode_ends_and_the_others_do_not(policy: OnnxResidual, ended: np.ndarray) -> None:
    policy(seen(3, 1.0))
    policy.reset(ended)
    np.testing.assert_allclose(policy(seen(3, 1.0))[:, 0], [0.2, 0.1, 0.2], rtol=1e-6)


def test_another_number_of_worlds_needs_a_reset(policy: OnnxResidual) -> None:
    policy(seen(3, 1.0))
    with pytest.raises(ValueError, match=r"remembers 3 worlds and got observations of 2: call reset\(\)"):
        policy(seen(2, 1.0))


def test_an_episode_does_not_depend_on_the_worlds_beside_it(tmp_path: Path) -> None:
    """Nor on the episode before it in the same world: the memory would bring it along."""
    path = write_remembering(tmp_path / "policy.onnx", SIZE)
    settings = EvaluationSettings(("Lift",), base="hold", residual=path, episodes=5)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("oc_residual_gym.tasks.lift.Lift.max_episode_steps", 30)
        together = sorted(run_rows(settings, settings.rows, 5), key=lambda row: row["seed"])
        two = sorted(run_rows(settings, settings.rows, 2), key=lambda row: row["seed"])
    assert together == two
    assert all(row["correction_change_mm"] > 0.0 for row in together)  # what it remembers changes its actions


@pytest.mark.parametrize(
    ("returned", "shape", "reason"),
    [
        ("other", ("n", 7), "it must also return 'new_memory'"),
        ("new_memory", ("n", "m"), r"a memory of shape \('n', 'm'\); expected \(batch of variable size, 1 to 65536\)"),
        ("new_memory", (7, 7), "'memory' of type .* and shape"),
    ],
)
def test_a_memory_that_cannot_be_carried_on_is_refused(
    tmp_path: Path, returned: str, shape: tuple[object, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        OnnxResidual(write_remembering(tmp_path / "policy.onnx", SIZE, returned, shape))


def test_a_memory_of_another_size_than_the_new_one_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["memory", "memory"], ["new_memory"], axis=1),
        helper.make_node("Identity", ["memory"], ["out"]),
    ]
    path = write_onnx(
        tmp_path / "policy.onnx",
        {"obs": ["n", SIZE], "memory": ["n", 7]},
        ["n", 7],
        nodes,
        more_outputs={"new_memory": ["n", 14]},
    )
    with pytest.raises(ValueError, match=r"'new_memory' .*shape \('n', 14\); expected .* 7\)"):
        OnnxResidual(path)
