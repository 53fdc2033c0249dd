"""An entry is made from finished evaluations that are consistent with each other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the extra [train]")
pytest.importorskip("jsonschema", reason="needs the extra [leaderboard]")

from policy_files import write_residual
from run_entries import ABOUT, SIZE, TASK, run, small_board

from leaderboard import LeaderboardError, cli
from leaderboard.about import EXAMPLE
from leaderboard.entry import Entry
from leaderboard.submit import SubmitRequest, submit
from leaderboard.tracks import BoardCell
from leaderboard.validate import check_files
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.evaluation.episodes import SUMMARY_FILE, read_episodes
from oc_residual_gym.files import sha256, write_json
from oc_residual_gym.parsing import read_json
from oc_residual_gym.policies import versions
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.run import SETTINGS_FILE, TRIALS
from oc_residual_gym.real.settings import TrialSettings
from oc_residual_gym.real.trials import TrialRecorder, Verdict, trial_name

WITH_TRAININGS = ABOUT.partition("[training]")[0] + '[training]\nseed_named = "in this file"\ndata = "nothing"\n'


@pytest.fixture(scope="module", autouse=True)
def board() -> Iterator[None]:
    with small_board("nominal", "twin"):
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of the base alone, with a custom residual, and with the package's, in both domains."""
    root = tmp_path_factory.mktemp("runs")
    write_residual(root / "mine" / f"{TASK}.onnx", SIZE, 0.1)
    for name, residual in {"zero": "zero", "mine": str(root / "mine"), "trained": "trained"}.items():
        for domain in ("nominal", "twin"):
            run(root / f"{name}-{domain}", residual, domain)
    return root


@pytest.fixture
def wanted(tmp_path: Path, runs: Path) -> SubmitRequest:
    """A valid request, which tests spoil."""
    (tmp_path / "about.toml").write_text(ABOUT)
    evaluations = (runs / "mine-nominal", runs / "mine-twin")
    return SubmitRequest("mine", tmp_path / "about.toml", evaluations, out=tmp_path / "entries")


def test_an_entry_holds_what_was_run(wanted: SubmitRequest, runs: Path) -> None:
    entry, left_out = submit(wanted)
    assert left_out == [] and check_files(entry) == []
    for domain in ("nominal", "twin"):
        names = {"base": "bc-v0", "residual": "my-residual"}
        run_rows = [episode | names for episode in read_episodes(runs / f"mine-{domain}" / "episodes.jsonl")]
        assert entry.rows_of(BoardCell(TASK, domain)) == run_rows
    content = entry.content
    assert entry.policy_file("residual", TASK).read_bytes() == (runs / "mine" / f"{TASK}.onnx").read_bytes()
    assert content["base"] == {"name": "bc-v0", "files": False, "sha256": content["base"]["sha256"]}
    assert content["training"]["tasks"] == {TASK: {"steps": 0, "minutes": 0.0, "curve": [[0, 0.5]]}}
    assert content["evaluation"]["commands"] == ["oc-residual evaluate ..."]
    assert [path for path in entry.folder.parent.iterdir()] == [entry.folder]


def test_a_comparison_gives_the_residual_that_is_chosen(wanted: SubmitRequest, runs: Path, tmp_path: Path) -> None:
    for name in ("zero", "mine", "trained"):
        for domain in ("nominal", "twin"):
            shutil.copytree(runs / f"{name}-{domain}", tmp_path / "compare" / "runs" / f"{name}-{domain}")
    with pytest.raises(SettingsError, match="holds no finished evaluation; run `python -m baselines compare"):
        submit(replace(wanted, evaluations=(tmp_path / "compare",)))
    hashes = read_json(runs / "trained-twin" / "settings.json")["hashes"]
    write_json(tmp_path / "compare" / SUMMARY_FILE, {"hashes": hashes})
    request = replace(wanted, evaluations=(tmp_path / "compare",))
    with pytest.raises(LeaderboardError, match=r"several residual policies \(.*\): choose one with --residual, or"):
        submit(request)
    with pytest.raises(LeaderboardError, match="no evaluation of the residual 'nobody': there are trained, zero"):
        submit(replace(request, residual="nobody"))
    alone, _ = submit(replace(request, residual="zero"))
    assert (alone.content["residual"]["name"], alone.content["training"]) == ("zero", None)
    assert check_files(alone) == []
    trained, _ = submit(replace(request, id="trained", residual="trained"))
    shipped = versions.residual_file("trained", TASK, "bc")
    assert sha256(trained.policy_file("residual", TASK)) == sha256(shipped)
    assert trained.content["residual"]["name"] == "my-residual"


def test_missing_rows_are_named(wanted: SubmitRequest, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(LeaderboardError, match="no track is complete:\nPrecision: Lift in twin lacks 3 of 3 rows"):
        submit(replace(wanted, evaluations=(runs / "mine-nominal",)))
    part = run(tmp_path / "part", str(runs / "mine"), "twin", episodes=2)
    with pytest.raises(LeaderboardError, match="Lift in twin lacks 1 of 3 rows: seeds 2"):
        submit(replace(wanted, evaluations=(runs / "mine-nominal", part)))


def test_evaluations_that_are_not_the_board_s_are_refused(wanted: SubmitRequest, runs: Path, tmp_path: Path) -> None:
    for key, value, said in (("split", "val", "ran the split 'val'"), ("errors", "clean", "under 'clean' errors")):
        other = shutil.copytree(runs / "mine-twin", tmp_path / key)
        write_json(other / "settings.json", read_json(other / "settings.json") | {key: value})
        with pytest.raises(LeaderboardError, match=said):
            submit(replace(wanted, evaluations=(runs / "mine-nominal", other)))
    for content in ('{"task": "Lift"}', "[]", "{"):
        (other / "settings.json").write_text(content)
        with pytest.raises(LeaderboardError, match="holds no evaluation of `oc-residual evaluate` in this version"):
            submit(replace(wanted, evaluations=(other,)))
    (other / SUMMARY_FILE).unlink()
    with pytest.raises(SettingsError, match="holds no finished evaluation"):
        submit(replace(wanted, evaluations=(other,)))


def test_one_entry_is_run_with_one_version(wanted: SubmitRequest, runs: Path, tmp_path: Path) -> None:
    other = shutil.copytree(runs / "mine-twin", tmp_path / "other")
    settings = read_json(other / "settings.json")
    settings["versions"]["mujoco"] = "2.0"
    write_json(other / "settings.json", settings)
    with pytest.raises(LeaderboardError, match="differ in mujoco"):
        submit(replace(wanted, evaluations=(runs / "mine-nominal", other)))
    with pytest.raises(LeaderboardError, match="Lift was run with several residual policies"):
        submit(replace(wanted, evaluations=(runs / "mine-nominal", runs / "zero-twin")))


def test_the_policy_must_be_the_one_that_was_run(wanted: SubmitRequest, runs: Path) -> None:
    policy = runs / "mine" / f"{TASK}.onnx"
    kept = policy.read_bytes()
    try:
        write_residual(policy, SIZE, 0.2)
        with pytest.raises(LeaderboardError, match="is not the residual policy that was run in Lift any more"):
            submit(wanted)
        policy.unlink()
        with pytest.raises(LeaderboardError, match=r"there is no .*Lift\.onnx.*run `submit` where"):
            submit(wanted)
    finally:
        policy.write_bytes(kept)
    assert not any(wanted.out.glob("*"))


def test_an_entry_is_not_overwritten_by_mistake(wanted: SubmitRequest) -> None:
    submit(wanted)
    with pytest.raises(LeaderboardError, match="--replace"):
        submit(wanted)
    wanted.about.write_text(ABOUT.replace("A method", "A better method"))
    entry, _ = submit(replace(wanted, replace=True))
    assert entry.content["name"] == "A better method"
    assert list(wanted.out.iterdir()) == [entry.folder]
    with pytest.raises(LeaderboardError, match=r"--id is '\.\./up'"):
        submit(replace(wanted, id="../up"))


def training(folder: Path, policy: Path, **values: object) -> Path:
    """A finished training of ``policy``."""
    curve = [{"steps": 0, "success_rate": 0.5}, {"steps": 1000, "success_rate": 0.75}]
    report = {
        "task": TASK,
        "seed": 7,
        "sha256": sha256(policy),
        "base_sha256": sha256(versions.base_file("bc", TASK)),
        "steps": 1000,
        "minutes": 1.5,
        "curve": curve,
        "machine": {"system": "Linux", "processor": "a processor", "cores": 2},
    }
    write_json(folder / "report.json", report | values)
    return folder


def test_trainings_say_how_the_policies_were_made(wanted: SubmitRequest, runs: Path, tmp_path: Path) -> None:
    policy = runs / "mine" / f"{TASK}.onnx"
    wanted.about.write_text(WITH_TRAININGS)
    entry, _ = submit(replace(wanted, trainings=(training(tmp_path / "training", policy),)))
    found = entry.content["training"]
    assert (found["seed"], found["checkpoint"], found["hardware"]) == (7, "last", "a processor, 2 cores")
    assert found["tasks"][TASK] == {"steps": 1000, "minutes": 1.5, "curve": [[0, 0.5], [1000, 0.75]]}
    assert check_files(entry) == []

    again = replace(wanted, id="again")
    for values, said in (
        ({"sha256": "0" * 64}, "its residual policy for Lift has the SHA-256 000"),
        ({"base_sha256": "0" * 64}, "its base policy for Lift has the SHA-256 000"),
        ({"task": "Stack"}, "there are trainings for Stack: give one for each of Lift"),
    ):
        with pytest.raises(LeaderboardError, match=said):
            submit(replace(again, trainings=(training(tmp_path / "other", policy, **values),)))
    wanted.about.write_text(ABOUT.partition("[training]")[0])
    with pytest.raises(LeaderboardError, match=r"table \[training\]"):
        submit(again)


def test_what_a_person_writes_is_checked(wanted: SubmitRequest, capsys: pytest.CaptureFixture[str]) -> None:
    wanted.about.write_text('title = "x"\n' + ABOUT)
    with pytest.raises(LeaderboardError, match="unknown key 'title'; known are name, "):
        submit(wanted)
    for value in ("nan", "2026-11-30"):
        wanted.about.write_text(ABOUT.replace("minutes = 0.0", f"minutes = {value}"))
        with pytest.raises(LeaderboardError, match="a value that an entry cannot hold"):
            submit(wanted)
    wanted.about.write_text(ABOUT.replace('residual = "my-residual"', ""))
    with pytest.raises(LeaderboardError, match=r"needs a name on the board: `residual = \.\.\.`"):
        submit(wanted)
    wanted.about.write_text(EXAMPLE.replace("https://example.org/code", "ftp://example.org"))
    arguments = ["submit", "--id", "mine", "--about", str(wanted.about), "--out", str(wanted.out), "--evaluations"]
    assert cli.main([*arguments, *map(str, wanted.evaluations)]) == 1
    said = capsys.readouterr().out
    assert "mine: wrong\n  entry.json: $.code: 'ftp://example.org' does not match" in said
    assert "entry.json: $.training: 'seed' is a required property" in said
    assert cli.main(["submit", "--id", "mine"]) == 2
    assert cli.main(["submit", "--example"]) == 0
    assert capsys.readouterr().out == EXAMPLE


def comparison(folder: Path, results: list[tuple[bool, bool]], rehearsal: bool = False) -> Path:
    """Trials with these results of base and residual, as if run on a robot."""
    cell = Cell("bench", Robot("172.16.0.2"), Poses("tcp://camera:5555"))
    settings = TrialSettings(TASK, cell, "bc", "trained", starts=2, rehearsal=rehearsal)
    write_json(folder / SETTINGS_FILE, settings.identity)
    hashes = {f"{kind}_sha256": settings.hashes[kind] for kind in ("base", "residual")}
    for seed, pair in enumerate(results):
        for i, (condition, success) in enumerate(zip(("base", "residual"), pair, strict=True)):
            number = 2 * seed + i + 1
            head = {"trial": number, "attempt": 1, "condition": condition, "seed": seed, "versions": "{}"} | hashes
            recorder = TrialRecorder(folder / TRIALS, trial_name(number, 1), head, synthetic=False)
            recorder.add({"time": 0.0, "tcp_pose": np.zeros(7), "trial/period": 0.05})
            recorder.finish(Verdict("success" if success else "fail"))
    return folder


def test_trials_on_a_robot_are_listed(wanted: SubmitRequest, tmp_path: Path) -> None:
    real = comparison(tmp_path / "real", [(False, True), (True, True)])
    request = replace(wanted, evaluations=(), real=(real,))
    entry, _ = submit(request)
    claims = entry.content["tracks"]
    assert list(claims) == ["real-robot"] and entry.content["evaluation"] is None
    assert claims["real-robot"]["trials"][TASK]["base"] == {"successes": 1, "trials": 2}
    assert claims["real-robot"]["trials"][TASK]["residual"] == {"successes": 2, "trials": 2}
    assert check_files(entry) == []
    claims["real-robot"]["trials"][TASK]["base"]["successes"] = 0
    write_json(entry.folder / "entry.json", entry.content)
    (problem,) = check_files(Entry(entry.folder))
    assert problem.startswith("real/Lift: the trial files have {'base': {'successes': 1, 'trials': 2}")

    for key, value in (("starts", 10**12), ("starts", 0), ("hashes", ["base", "residual"])):
        spoilt = shutil.copytree(real, tmp_path / f"{key}-{value}")
        write_json(spoilt / SETTINGS_FILE, read_json(spoilt / SETTINGS_FILE) | {key: value})
        with pytest.raises(LeaderboardError, match=r"the split has 3|is not that of `oc-residual real run`"):
            submit(replace(request, id="spoilt", real=(spoilt,)))
    with pytest.raises(LeaderboardError, match="2 of 4 trials are open"):
        submit(replace(request, id="open", real=(comparison(tmp_path / "open", [(False, True)]),)))
    rehearsed = comparison(tmp_path / "rehearsed", [(False, True), (True, True)], rehearsal=True)
    with pytest.raises(LeaderboardError, match="this was a rehearsal"):
        submit(replace(request, id="rehearsed", real=(rehearsed,)))
    with pytest.raises(LeaderboardError, match="is not that of `oc-residual real run`"):
        submit(replace(request, id="nothing", real=(tmp_path,)))
