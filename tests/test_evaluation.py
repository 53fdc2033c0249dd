"""The evaluator runs exactly its rows, counts all of them, and gives the same bytes however it is run."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oc_residual_gym.engines.local import LocalEngine
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.comparison import compare
from oc_residual_gym.evaluation.episodes import cells
from oc_residual_gym.evaluation.evaluator import evaluate
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.evaluation.statistics import stratified_bootstrap, wilson
from oc_residual_gym.perception.errors import MODELS, PoseErrorModel
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.domains import DOMAINS, Domain

SETTINGS = EvaluationSettings(tasks=("Lift", "CloseDrawer"), base="expert", episodes=4)


def episodes_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of ``SETTINGS``."""
    folder = tmp_path_factory.mktemp("evaluation") / "expert"
    evaluate(SETTINGS, folder, worlds=3, command="a command")
    return folder


def test_every_row_is_run_once_and_sorted(finished: Path) -> None:
    rows = [(episode["task"], episode["seed"]) for episode in episodes_of(finished)]
    assert rows == [(task, seed) for task in ("CloseDrawer", "Lift") for seed in range(4)]


def test_episodes_say_what_was_run_and_how_it_went(finished: Path) -> None:
    for episode in episodes_of(finished):
        assert (episode["base"], episode["residual"], episode["split"]) == ("expert", "zero", "val")
        assert 0 < episode["steps"] <= TASKS[episode["task"]].max_episode_steps
        assert episode["success"] == (episode["failure"] is None)
        assert -episode["steps"] <= episode["return"] <= 0.0
        assert episode["correction_mm"] == episode["correction_change_rad"] == 0.0


@pytest.mark.parametrize("worlds", [1, 16])
def test_results_do_not_depend_on_the_number_of_worlds(finished: Path, tmp_path: Path, worlds: int) -> None:
    evaluate(SETTINGS, tmp_path, worlds=worlds)
    assert (tmp_path / "episodes.jsonl").read_bytes() == (finished / "episodes.jsonl").read_bytes()


def test_an_interrupted_run_goes_on_where_it_stopped(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    # As a kill leaves it: some episodes, in any order, the last one cut off.
    whole = (finished / "episodes.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "episodes.jsonl").write_bytes(b"".join([lines[5], lines[0], lines[3]]) + lines[2][:40])
    (tmp_path / "summary.json").unlink()
    evaluate(SETTINGS, tmp_path, worlds=3)
    assert (tmp_path / "episodes.jsonl").read_bytes() == whole
    assert (tmp_path / "summary.json").exists()


def test_a_finished_run_is_not_run_again(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("oc_residual_gym.evaluation.rollout.ResidualWorlds", None)
    evaluate(SETTINGS, tmp_path)
    assert (tmp_path / "episodes.jsonl").read_bytes() == (finished / "episodes.jsonl").read_bytes()


def test_a_sample_of_the_rows_can_be_completed(finished: Path, tmp_path: Path) -> None:
    def counted() -> dict[str, int]:
        return {cell["task"]: cell["episodes"] for cell in json.loads((tmp_path / "summary.json").read_text())["cells"]}

    sample = [("CloseDrawer", 3), ("Lift", 1), ("CloseDrawer", 0)]
    evaluate(SETTINGS, tmp_path, rows=sample)
    assert [(episode["task"], episode["seed"]) for episode in episodes_of(tmp_path)] == sorted(sample)
    assert counted() == {"CloseDrawer": 2, "Lift": 1}
    evaluate(SETTINGS, tmp_path, rows=[("Lift", 1), ("Lift", 2)])
    assert counted() == {"CloseDrawer": 2, "Lift": 2}
    evaluate(SETTINGS, tmp_path)
    assert counted() == {"CloseDrawer": 4, "Lift": 4}
    assert (tmp_path / "episodes.jsonl").read_bytes() == (finished / "episodes.jsonl").read_bytes()


@pytest.mark.parametrize("row", [("Lift", 4), ("Stack", 0)])
def test_rows_of_another_evaluation_are_refused(row: tuple[str, int], tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=f"such as {row[0]} with seed {row[1]}, .*Lift, CloseDrawer with seeds 0 to 3"
    ):
        evaluate(SETTINGS, tmp_path / "out", rows=[("Lift", 0), row])
    assert not (tmp_path / "out").exists()


class OddResidual:
    """Corrects nothing, but for one world."""

    name, hash = "odd", None

    def __init__(self, odd: Callable[[np.ndarray, ResidualWorlds], np.ndarray]):
        self._odd = odd

    def reset(self, core: ResidualWorlds, worlds: np.ndarray) -> None:
        """Nothing to forget."""

    def act(self, core: ResidualWorlds) -> np.ndarray:
        return self._odd(np.zeros((core.num_worlds, 7)), core)


def nan_in_one_episode(actions: np.ndarray, core: ResidualWorlds) -> np.ndarray:
    actions[core.seeds == 2, 4] = np.nan
    return actions


def too_narrow(actions: np.ndarray, core: ResidualWorlds) -> np.ndarray:
    return actions[:, :6]


def failing(actions: np.ndarray, core: ResidualWorlds) -> np.ndarray:
    raise RuntimeError("no such axis")


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (nan_in_one_episode, "returned nan as entry 4 of its action: in Lift, seed 2"),
        (too_narrow, "returned actions of shape (3, 6) for 3 worlds of 7 each: in Lift, seed 0"),
        (failing, "failed (no such axis): in Lift, seed 0"),
    ],
)
def test_a_residual_that_returns_no_action_is_named_with_its_episode(
    odd: Callable, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oc_residual_gym.evaluation.rollout.load_residual", lambda *_: OddResidual(odd))
    with pytest.raises(SettingsError) as error:
        evaluate(SETTINGS, tmp_path, worlds=3)
    assert str(error.value) == f"residual policy 'odd' {told}"


def test_what_a_residual_says_of_an_episode_that_is_over_does_not_matter(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan_where_it_is_over(actions: np.ndarray, core: ResidualWorlds) -> np.ndarray:
        actions[core.terminated] = np.nan
        return actions

    monkeypatch.setattr(
        "oc_residual_gym.evaluation.rollout.load_residual", lambda *_: OddResidual(nan_where_it_is_over)
    )
    evaluate(SETTINGS, tmp_path, worlds=3)
    wanted = [episode["steps"] for episode in episodes_of(finished)]
    assert [episode["steps"] for episode in episodes_of(tmp_path)] == wanted


def test_other_settings_do_not_mix_into_a_folder(finished: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?s)other settings.*domain: nominal there, twin now"):
        evaluate(EvaluationSettings(SETTINGS.tasks, base="expert", domain="twin", episodes=4), finished)


class Nudge:
    """A residual policy with a setting and a memory, and neither name nor hash."""

    def __init__(self, size: float):
        self.action = np.full(7, size)
        self.steps = 0

    def reset(self, core: ResidualWorlds, worlds: np.ndarray) -> None:
        """Nothing to forget."""

    def act(self, core: ResidualWorlds) -> np.ndarray:
        self.steps += 1
        return np.tile(self.action, (core.num_worlds, 1))


class Push(Nudge):
    """The same, but for its code."""

    def act(self, core: ResidualWorlds) -> np.ndarray:
        return np.abs(super().act(core))


def wait(view: PolicyView) -> np.ndarray:
    return np.repeat(view.previous_target[:, None], 16, axis=1)


def wait_and_open(view: PolicyView) -> np.ndarray:
    return np.concatenate([wait(view)[..., :7], np.ones((len(view.worlds), 16, 1))], axis=-1)


HEAVY = Domain(object_mass=(1.0, 3.0), latency=(0, 4), inference_pause=(0, 2))
BLIND = PoseErrorModel(loss=0.5, stay_lost=0.5)
OBJECTS = {
    "base": (wait, wait_and_open),
    "residual": (Nudge(0.2), Nudge(0.3), Push(0.2)),
    "domain": (HEAVY, replace(HEAVY, object_mass=(1.0, 2.0)), "twin"),
    "errors": (BLIND, replace(BLIND, loss=0.4), "paper"),
}


def test_objects_are_evaluated_in_place_of_names(tmp_path: Path) -> None:
    settings = EvaluationSettings(("Lift",), episodes=4, **{kind: objects[0] for kind, objects in OBJECTS.items()})
    identity = settings.identity
    evaluate(settings, tmp_path, worlds=2)
    assert settings.identity == identity  # nothing that the policies remember is a part of it
    for record in (*episodes_of(tmp_path), json.loads((tmp_path / "settings.json").read_text())):
        assert (record["base"], record["residual"]) == ("wait", "Nudge")
        assert re.fullmatch("domain-[0-9a-f]{8}", record["domain"]) and re.fullmatch(
            "errors-[0-9a-f]{8}", record["errors"]
        )
    assert json.loads((tmp_path / "settings.json").read_text()) == json.loads(json.dumps(identity))

    whole = (tmp_path / "episodes.jsonl").read_bytes()
    (tmp_path / "episodes.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    (tmp_path / "summary.json").unlink()
    evaluate(copy.deepcopy(settings), tmp_path, engine=None)
    assert (tmp_path / "episodes.jsonl").read_bytes() == whole

    for kind, (_, *others) in OBJECTS.items():
        for other in others:
            with pytest.raises(SettingsError, match="other settings"):
                evaluate(replace(settings, **{kind: other}), tmp_path)


def test_workers_run_the_same_objects(tmp_path: Path) -> None:
    settings = EvaluationSettings(("Lift",), wait, Nudge(0.2), HEAVY, BLIND, episodes=4)
    evaluate(settings, tmp_path / "here")
    with LocalEngine(2) as engine:
        evaluate(settings, tmp_path / "there", engine=engine)
    assert (tmp_path / "there" / "episodes.jsonl").read_bytes() == (tmp_path / "here" / "episodes.jsonl").read_bytes()


def test_an_object_with_a_shipped_content_has_the_shipped_name() -> None:
    settings = EvaluationSettings(
        ("Lift",), "expert", domain=replace(DOMAINS["twin"]), errors=replace(MODELS["tracker"])
    )
    assert settings.identity == EvaluationSettings(("Lift",), "expert", domain="twin", errors="tracker").identity


def test_a_policy_whose_content_cannot_be_told_needs_a_hash(tmp_path: Path) -> None:
    nudge = Nudge(0.2)
    nudge.file = open(__file__)  # noqa: SIM115
    with (
        nudge.file,
        pytest.raises(SettingsError, match=r"what 'Nudge' is \(cannot pickle.*give it an attribute `hash`"),
    ):
        evaluate(EvaluationSettings(("Lift",), "hold", nudge, episodes=1), tmp_path)
    nudge.hash = "version 1"
    assert EvaluationSettings(("Lift",), "hold", nudge).hashes["residual"] == {"Lift": "version 1"}


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    settings = EvaluationSettings(("Lift",), episodes=2)
    evaluate(settings, tmp_path)
    lines = (tmp_path / "episodes.jsonl").read_text().splitlines()
    (tmp_path / "episodes.jsonl").write_text("\n".join(["nonsense", lines[1]]) + "\n")
    with pytest.raises(SettingsError, match="line 1"):
        evaluate(settings, tmp_path)


def test_summary_counts_the_episodes(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [cell["task"] for cell in summary["cells"]] == ["CloseDrawer", "Lift"]
    for cell in summary["cells"]:
        own = [episode for episode in episodes_of(finished) if episode["task"] == cell["task"]]
        successes = [episode for episode in own if episode["success"]]
        assert (cell["episodes"], cell["successes"]) == (4, len(successes))
        assert cell["success_rate"] == len(successes) / 4
        assert cell["ci_low"] <= cell["success_rate"] <= cell["ci_high"]
        assert sum(cell["failures"].values()) == 4 - len(successes)
        if successes:
            assert cell["mean_steps"] == np.mean([episode["steps"] for episode in successes])
    assert summary["command"] == "a command"
    assert set(summary["versions"]) == {"python", "mujoco", "numba", "numpy", "onnxruntime", "scipy"}
    assert set(summary["hashes"]) == {"base", "residual", "simulation"}
    assert summary["hashes"]["base"] == summary["hashes"]["residual"] == {"CloseDrawer": None, "Lift": None}
    assert summary["machine"]["cores"] >= 1


def test_failures_are_counted_by_kind() -> None:
    common = dict.fromkeys(("base", "residual", "domain", "errors", "split"), "x") | {"task": "Lift"}
    measures = dict.fromkeys(
        (
            "return",
            "peak_contact_force",
            "correction_mm",
            "correction_rad",
            "correction_change_mm",
            "correction_change_rad",
        ),
        0.0,
    )
    kinds = ["no_grasp", None, "no_grasp", "diverged"]
    (cell,) = cells(
        common | measures | {"seed": i, "steps": 100 + i, "success": kind is None, "failure": kind}
        for i, kind in enumerate(kinds)
    )
    assert cell["failures"] == {"diverged": 1, "no_grasp": 2}
    assert cell["mean_steps"] == 101


def test_the_oracle_corrects_the_base(tmp_path: Path) -> None:
    evaluate(EvaluationSettings(("Lift",), residual="oracle", episodes=2), tmp_path)
    for episode in episodes_of(tmp_path):
        assert 0.0 < episode["correction_mm"] <= 20.0 * np.sqrt(3)
        assert episode["correction_change_mm"] > 0.0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"tasks": ("Juggle",)}, "PegInsert"),
        ({"domain": "mars"}, "twin"),
        ({"errors": "none"}, "tracker"),
        ({"split": "holdout"}, "train"),
        ({"base": "wish"}, "expert"),
        ({"residual": "wish"}, "oracle"),
        ({"residual": "missing.onnx"}, "missing.onnx"),
        ({"residual": object()}, "no methods reset and act"),
        ({"residual": "trained", "base": "hold"}, "no residual 'trained-v0' for Lift on base policy 'hold'"),
        ({"episodes": 501, "split": "test"}, "500"),
        ({"episodes": 0}, "at least 1|1 to 500"),
    ],
)
def test_unknown_names_are_answered_with_the_valid_ones(wrong: dict, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        EvaluationSettings(**({"tasks": ("Lift",)} | wrong))


def test_compare_pairs_the_episodes(finished: Path, tmp_path: Path) -> None:
    evaluate(EvaluationSettings(SETTINGS.tasks, base="hold", episodes=4), tmp_path / "hold")
    summary, table = compare(tmp_path / "hold", finished, tmp_path)
    assert len(summary["cells"]) == 4
    assert [row["task"] for row in summary["differences"]] == ["Lift", "CloseDrawer", "these 2 tasks"]
    for row in summary["differences"]:
        difference = row["difference"]
        assert difference["mean"] == pytest.approx(row["candidate"]["mean"] - row["reference"]["mean"])
        assert difference["low"] <= difference["mean"] <= difference["high"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (tmp_path / "compare.md").read_text() == table
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "expert" in table
    assert "hold" in table


def test_compare_refuses_what_cannot_be_paired(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no finished evaluation"):
        compare(tmp_path / "nothing", finished, tmp_path / "out")
    evaluate(EvaluationSettings(("Lift",), episodes=2), tmp_path / "other")
    with pytest.raises(SettingsError, match="different episodes"):
        compare(tmp_path / "other", finished, tmp_path / "out")


def test_wilson_interval() -> None:
    # Reference values: Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    assert wilson(81, 263).low == pytest.approx(0.2553, abs=5e-5)
    assert wilson(81, 263).high == pytest.approx(0.3662, abs=5e-5)
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=5e-5)
    assert wilson(1, 29).low == pytest.approx(0.0061, abs=5e-5)


def test_bootstrap_is_stratified_and_paired() -> None:
    rng = np.random.default_rng(0)
    many, few = rng.integers(0, 2, 2000), rng.integers(0, 2, 50)
    estimate = stratified_bootstrap({"many": many, "few": few}, (0.0, 1.0))
    assert estimate.mean == pytest.approx((many.mean() + few.mean()) / 2)  # each task has the same weight
    error = 0.5 * np.sqrt(0.25 / 2000 + 0.25 / 50)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    # What both policies share in an episode cancels: pairs differ by less than their outcomes do.
    assert stratified_bootstrap({"same": many}, (0.0, 1.0)) == stratified_bootstrap({"same": many}, (0.0, 1.0))


def test_bootstrap_does_not_claim_certainty_where_all_episodes_agree() -> None:
    estimate = stratified_bootstrap({"all": np.ones(50)}, (-1.0, 1.0))
    # Bonett and Price's interval for 50 of 50 pairs in favour: 0.96 -+ 1.96 * 0.038.
    assert estimate.mean == estimate.high == 1.0
    assert estimate.low == pytest.approx(0.885, abs=0.02)
    many = stratified_bootstrap({str(task): np.ones(50) for task in range(6)}, (0.0, 1.0))
    assert many.low < 0.98 < many.mean == many.high == 1.0


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(SettingsError, match="out is a file; give a folder as --out"):
        evaluate(EvaluationSettings(("Lift",), "hold", episodes=1), tmp_path / "out")


class FailsIn:
    """A base policy that holds still, and fails in the episodes of some seeds; seeds are told by order of resets."""

    name, horizon, needs = "fails", 16, frozenset()

    def __init__(self, error: Exception | None, episodes: Callable[[int], bool]):
        self.error, self.episodes, self.hash = error, episodes, "the same"
        self.started, self.failing = 0, False

    def reset(self, worlds: np.ndarray, generators: object) -> None:
        self.failing = self.episodes(self.started)
        self.started += 1

    def predict(self, view: PolicyView) -> np.ndarray:
        if self.failing and self.error is not None:
            raise self.error
        chunk = wait(view)
        chunk[..., :3] *= 1000.0 if self.failing else 1.0
        return chunk


@pytest.mark.parametrize("error", [OSError("all is lost"), ValueError("no such axis")])
def test_a_base_policy_that_raises_stops_the_evaluation_and_finished_episodes_stay(
    error: Exception, tmp_path: Path
) -> None:
    def settings(failing: Callable[[int], bool]) -> EvaluationSettings:
        return EvaluationSettings(("CloseDrawer",), FailsIn(error, failing), episodes=4)

    with pytest.raises(SettingsError, match=f"'fails' failed: .*{error}: in CloseDrawer, seed 2; mend that, and run"):
        evaluate(settings(lambda episode: episode == 2), tmp_path, worlds=1)
    assert [episode["seed"] for episode in episodes_of(tmp_path)] == [0, 1]
    assert not (tmp_path / "summary.json").exists()
    summary = evaluate(settings(lambda episode: False), tmp_path, worlds=1)
    assert summary["cells"][0]["episodes"] == 4
    assert "base_policy_failed" not in summary["cells"][0]["failures"]


def test_targets_of_another_convention_are_failures_and_no_result_if_they_are_all(tmp_path: Path) -> None:
    def settings(failing: Callable[[int], bool]) -> EvaluationSettings:
        return EvaluationSettings(("CloseDrawer", "Lift"), FailsIn(None, failing), episodes=2)

    summary = evaluate(settings(lambda episode: episode % 2 == 0), tmp_path / "some", worlds=1)
    assert [cell["failures"]["base_policy_failed"] for cell in summary["cells"]] == [1, 1]
    assert "problem" not in episodes_of(tmp_path / "some")[0]
    out = tmp_path / "all"
    with pytest.raises(SettingsError, match=r"every episode of CloseDrawer, which is not a result.*millimetres\?"):
        evaluate(EvaluationSettings(("CloseDrawer",), FailsIn(None, lambda episode: True), episodes=2), out)
    assert episodes_of(out) == [] and not (out / "summary.json").exists()


def test_a_base_policy_that_fails_in_the_midst_of_every_episode_has_run(tmp_path: Path) -> None:
    def later(view: PolicyView) -> np.ndarray:
        chunks = np.repeat(view.previous_target[:, None], 16, axis=1)
        later.calls += 1  # type: ignore[attr-defined]
        return chunks * 1000.0 if later.calls > 1 else chunks  # type: ignore[attr-defined]

    later.calls = 0  # type: ignore[attr-defined]
    summary = evaluate(EvaluationSettings(("Lift",), later, episodes=1), tmp_path)
    assert summary["cells"][0]["failures"] == {"base_policy_failed": 1}
