"""Base and residual policies: chunks, pauses, files, and the references without learning."""

from __future__ import annotations

import hashlib
import json
import re

import gymnasium as gym
import numpy as np
import pytest
from policy_files import write_onnx, write_residual

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import RenderError
from oc_residual_gym.policies import load_base_policy
from oc_residual_gym.policies.versions import NEWEST, NEWEST_RESIDUALS, SHIPPED
from oc_residual_gym.residuals import load_residual, residual_policy, tasks_with_residual
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.opengl import gl_context


def counting_policy(view):
    """Chunks that tell which call and which entry a target is from: opening = entry / 100, x = call / 1000."""
    counting_policy.calls += 1
    chunk = np.repeat(view.previous_target[:, None], 16, axis=1)
    chunk[:, :, 0] = 0.42 + counting_policy.calls / 1000
    chunk[:, :, 7] = 0.6 + np.arange(16) / 100
    return chunk


def test_chunks_are_executed_open_loop_one_target_a_step():
    counting_policy.calls = 0
    worlds = ResidualWorlds("Lift", 1, base_policy=counting_policy, errors="clean")
    worlds.reset(np.array([0]), [0])
    for step in range(40):
        assert worlds.base_target[0, 7] == pytest.approx(0.6 + step % 16 / 100)
        assert worlds.base_target[0, 0] == pytest.approx(0.42 + (1 + step // 16) / 1000)
        named = worlds.observation_builder.as_dict(worlds.observation[0])
        assert named["chunk_phase"][0] == pytest.approx(step % 16 / 16)
        assert named["base_target_plus1_opening"][0] == pytest.approx(0.6 + step % 16 / 100)
        assert named["base_target_plus4_opening"][0] == pytest.approx(0.6 + min(step % 16 + 3, 15) / 100)
        assert named["base_target_end_opening"][0] == pytest.approx(0.75)
        worlds.step(np.zeros((1, 7)))


def test_twin_holds_the_last_target_while_the_base_policy_thinks():
    counting_policy.calls = 0
    worlds = ResidualWorlds("Lift", 1, base_policy=counting_policy, errors="clean", domain="twin")
    worlds.reset(np.array([0]), [0])
    openings = []
    for _ in range(38):
        openings.append(worlds.base_target[0, 7])
        worlds.step(np.zeros((1, 7)))
    one_chunk = [1.0] * 3 + [0.6 + i / 100 for i in range(16)]
    assert openings == pytest.approx(one_chunk * 2)


def test_callable_sees_what_it_asks_for_and_nothing_else():
    views = []

    def looks(view):
        views.append(view)
        return np.repeat(view.previous_target[:, None], 16, axis=1)

    ResidualWorlds("Stack", 2, base_policy=looks, errors="clean").reset(np.arange(2), [0, 1])
    assert set(views[-1].objects) == {"white", "green"}
    assert views[-1].objects["white"].shape == (2, 7)
    assert views[-1].truth is None
    assert views[-1].images is None
    assert views[-1].instruction == "stack the white cube on the green cube"


def test_residual_from_a_file_acts_on_the_observation(tmp_path):
    worlds = ResidualWorlds("Lift", 5, errors="paper")
    worlds.reset(np.arange(5), list(range(5)))
    layout = json.dumps([f.name for f in worlds.observation_layout])
    size = worlds.observation.shape[1]
    path = write_residual(tmp_path / "residual.onnx", size, 3.0, {"observation_layout": layout})
    policy = load_residual(path, "Lift", "bc")
    policy.reset(worlds, np.arange(5))
    expected = np.clip(3.0 * worlds.observation[:, :7], -1.0, 1.0)
    assert (np.abs(expected) == 1.0).any()
    np.testing.assert_allclose(policy.act(worlds), expected, atol=1e-6)
    assert len(policy.hash) == 64


def test_residual_made_for_another_observation_is_refused(tmp_path):
    worlds = ResidualWorlds("Lift", 1)
    worlds.reset(np.array([0]), [0])
    size = worlds.observation.shape[1]
    other_size = write_residual(tmp_path / "size.onnx", size + 1, 1.0)
    other_names = write_residual(tmp_path / "names.onnx", size, 1.0, {"observation_layout": '["something", "else"]'})
    for path in (other_size, other_names):
        with pytest.raises(ValueError, match="another observation"):
            load_residual(path, "Lift", "bc").reset(worlds, np.array([0]))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """Residual policies as the package ships them: Lift and Stack on "bc", Lift on "vla", told apart by their scale."""
    size = {task: gym.make(f"OCResidual-{task}-v0").observation_space.shape[0] for task in ("Lift", "Stack")}
    for scale, (base, task) in enumerate([("bc-v0", "Lift"), ("bc-v0", "Stack"), ("vla-v0", "Lift")], start=1):
        write_residual(tmp_path / "trained-v0" / base / f"{task}.onnx", size[task], 0.1 * scale)
    (tmp_path / "bc-v0").symlink_to(SHIPPED / "bc-v0")
    monkeypatch.setattr("oc_residual_gym.policies.versions.SHIPPED", tmp_path)
    return size


def test_shipped_residuals_are_chosen_by_task_and_base(shipped):
    for base, task, scale in [("bc", "Lift", 0.1), ("bc-v0", "Stack", 0.2), ("vla", "Lift", 0.3)]:
        observation = np.linspace(-1.0, 1.0, shipped[task], dtype=np.float32)
        np.testing.assert_allclose(residual_policy(task, base)(observation), scale * observation[:7], rtol=1e-5)
        for name in (*NEWEST_RESIDUALS, *NEWEST_RESIDUALS.values()):
            assert load_residual(name, task, base).hash == residual_policy(task, base).hash
    assert tasks_with_residual("trained", "bc") == ("Lift", "Stack")
    assert tasks_with_residual("trained", "vla") == ("Lift",)
    assert tasks_with_residual("trained", "hold") == ()


def test_a_missing_shipped_residual_is_answered_with_those_there_are(shipped):
    for load in (lambda: residual_policy("Stack", "vla"), lambda: load_residual("trained", "Stack", "vla")):
        with pytest.raises(
            ValueError, match=r"'trained-v0' for Stack on base policy 'vla'.*bc-v0 Lift, Stack; .*vla-v0 Lift"
        ):
            load()
    with pytest.raises(ValueError, match=r"unknown task 'Juggle'.*PegInsert"):
        residual_policy("Juggle")


def test_residual_acts_in_a_loop_of_ones_own(shipped):
    policy = residual_policy("Lift", "bc")
    one, many = gym.make("OCResidual-Lift-v0"), gym.make_vec("OCResidual-Lift-v0", num_envs=3)
    for env in (one, many):
        observation, _ = env.reset(seed=0)
        for _ in range(3):
            action = policy(observation)
            assert action.shape == env.action_space.shape
            assert action in env.action_space
            observation = env.step(action)[0]
    many.close()


def test_residual_acts_alike_in_any_batch(shipped):
    policy, batch = residual_policy("Lift"), np.random.default_rng(0).normal(size=(4, shipped["Lift"]))
    np.testing.assert_array_equal(policy(batch.astype(np.float32)), [policy(row) for row in batch])


def test_residual_refuses_observations_that_are_not_its_own(shipped):
    policy, size = residual_policy("Lift"), shipped["Lift"]
    for shape in ((), (size + 1,), (2, 2, size), (size, 1)):
        with pytest.raises(ValueError, match=rf"shape \({size},\) or \(n, {size}\)"):
            policy(np.zeros(shape, np.float32))
    env = gym.make("OCResidual-Lift-v0", obs_mode="dict")
    with pytest.raises(ValueError, match='obs_mode="flat"'):
        policy(env.reset(seed=0)[0])


def test_a_folder_has_a_residual_for_each_task(tmp_path):
    write_residual(tmp_path / "Lift.onnx", 10, 1.0)
    assert load_residual(str(tmp_path), "Lift", "hold").name == str(tmp_path / "Lift.onnx")
    assert tasks_with_residual(str(tmp_path), "hold") == ("Lift",)
    with pytest.raises(ValueError, match=r"has no Stack\.onnx; .*Lift\.onnx"):
        load_residual(str(tmp_path), "Stack", "hold")


def test_residual_files_take_batches_of_any_size(tmp_path):
    from onnx import helper

    path = write_onnx(tmp_path / "one.onnx", {"obs": [1, 7]}, [1, 7], [helper.make_node("Tanh", ["obs"], ["out"])])
    with pytest.raises(ValueError, match="variable size"):
        load_residual(path, "Lift", "bc")


def test_base_policy_from_a_file(tmp_path):
    """A file that repeats the last target 4 times and opens the hand half."""
    from onnx import TensorProto, helper

    repeats = helper.make_tensor("repeats", TensorProto.INT64, [3], [1, 4, 1])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("Constant", [], ["repeats"], value=repeats),
        helper.make_node("Constant", [], ["axis"], value=axis),
        helper.make_node("Unsqueeze", ["previous_target", "axis"], ["one"]),
        helper.make_node("Tile", ["one", "repeats"], ["out"]),
    ]
    path = write_onnx(tmp_path / "base.onnx", {"previous_target": ["n", 8]}, ["n", 4, 8], nodes)
    env = gym.make("OCResidual-Lift-v0", base_policy=path)
    env.reset(seed=0)
    for _ in range(10):
        info = env.step(np.zeros(7))[4]
    np.testing.assert_allclose(info["base_target"][:3], [0.42, 0.0, 0.28], atol=1e-3)
    assert env.unwrapped.core.base_policy.horizon == 4


def run_to_the_end(task: str, base: str, residual: str) -> np.ndarray:
    """(3,) success in three episodes."""
    worlds = ResidualWorlds(task, 3, base_policy=base, errors="clean", split="val", max_episode_steps=300)
    policy, every = load_residual(residual, task, base), np.arange(3)
    worlds.reset(every, [0, 1, 2])
    policy.reset(worlds, every)
    while not (worlds.terminated | worlds.truncated).all():
        worlds.step(policy.act(worlds), np.flatnonzero(~(worlds.terminated | worlds.truncated)))
    return worlds.success


def test_oracle_turns_the_still_base_into_the_expert():
    assert not run_to_the_end("Lift", "hold", "zero").any()
    assert run_to_the_end("Lift", "hold", "oracle").all()


def test_oracle_repairs_an_expert_that_is_10_mm_off():
    assert not run_to_the_end("PegInsert", "expert-offset", "zero").any()
    assert run_to_the_end("PegInsert", "expert-offset", "oracle").all()


def test_unknown_residuals_are_answered_with_the_valid_ones():
    for name in ("magic", ""):
        with pytest.raises(ValueError, match=r"zero, planner, oracle, trained, trained-v0, FILE\.onnx"):
            load_residual(name, "Lift", "bc")


@pytest.mark.parametrize("name", NEWEST)
def test_shipped_policies_give_targets_near_the_hand(name, task, monkeypatch):
    policy, chunks = load_base_policy(name, TASKS[task]), []
    if "images" in policy.needs:
        try:
            gl_context(8, 8).free()
        except RenderError as error:
            pytest.skip(str(error))
    predict = policy.predict
    monkeypatch.setattr(policy, "predict", lambda view: chunks.append((view, predict(view))) or chunks[-1][1])
    worlds = ResidualWorlds(task, 2, base_policy=policy, split="val")
    worlds.reset(np.arange(2), [0, 1])
    ((view, chunk),) = chunks
    worlds.close()
    assert chunk.shape == (2, 16, 8)
    assert np.isfinite(chunk).all()
    np.testing.assert_allclose(np.linalg.norm(chunk[:, :, 3:7], axis=-1), 1.0, atol=1e-4)
    assert ((chunk[:, :, 7] >= 0.0) & (chunk[:, :, 7] <= 1.0)).all()
    away = np.linalg.norm(chunk[:, :, :3] - view.tcp_pose[:, None, :3], axis=-1)
    assert away[:, 0].max() < 0.03
    assert away.max() < 0.3


@pytest.mark.parametrize("name", NEWEST.values())
def test_cards_lie_beside_the_shipped_files_and_name_their_hashes(name):
    """Either <name>.onnx with <name>.md, or a folder <name> of a file a task, with card.md."""
    files = [*SHIPPED.glob(f"{name}.onnx"), *SHIPPED.glob(f"{name}/*.onnx")]
    (card,) = [*SHIPPED.glob(f"{name}.md"), *SHIPPED.glob(f"{name}/card.md")]
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert set(re.findall(r"\.onnx `([0-9a-f]{64})`", card.read_text(encoding="utf-8"))) == hashes


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("base", NEWEST)
def test_shipped_residuals_fit_their_tasks_and_stand_in_their_card(base, name):
    if base == "vla" and name not in ("Lift", "PickPlace", "PegInsert"):
        with pytest.raises(ValueError, match="on vla-v0 Lift, PegInsert, PickPlace"):
            residual_policy(name, base)
        return
    policy = residual_policy(name, base)
    worlds = ResidualWorlds(name, 2, base_policy="hold")
    worlds.reset(np.arange(2), [0, 1])
    policy.check([field.name for field in worlds.observation_layout], worlds.observation.shape[1])
    actions = policy(worlds.observation)
    worlds.close()
    assert actions.any()
    assert np.abs(actions).max() <= 0.5  # what training bounded them to
    card = SHIPPED / NEWEST_RESIDUALS["trained"] / NEWEST[base] / "card.md"
    assert policy.hash in card.read_text(encoding="utf-8")


def test_a_missing_shipped_policy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("oc_residual_gym.policies.versions.SHIPPED", tmp_path)
    with pytest.raises(ValueError, match="'bc-v0' has no file for Lift"):
        load_base_policy("bc", TASKS["Lift"])
