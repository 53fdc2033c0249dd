"""An inconsistent entry is invalid, with a reason that names the place; other entries stay valid."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the extra [train]")
pytest.importorskip("jsonschema", reason="needs the extra [leaderboard]")

import bad_policies
from policy_files import write_onnx, write_residual
from run_entries import SIZE, TASK, change_rows, run, small_board, submitted

from leaderboard import cli
from leaderboard.entry import ENTRY_FILE, Entry
from leaderboard.limits import PolicyFailure
from leaderboard.probe import probe_policies
from leaderboard.probe_worker import probe
from leaderboard.validate import check_files, validate
from oc_residual_gym.files import sha256, write_json, write_text
from oc_residual_gym.parsing import read_json


@pytest.fixture(scope="module", autouse=True)
def board() -> Iterator[None]:
    with small_board("nominal"):
        yield


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """An entry with a residual policy of its own."""
    root = tmp_path_factory.mktemp("own")
    policy = write_residual(root / "policy.onnx", SIZE, 0.1)
    return submitted(root / "entries", "own", run(root / "run", policy))


@pytest.fixture
def entry(own: Entry, tmp_path: Path) -> Entry:
    """A copy of ``own``, which tests spoil."""
    shutil.copytree(own.folder, tmp_path / "own")
    return Entry(tmp_path / "own")


def change(entry: Entry, **values: object) -> None:
    """Put ``values`` into entry.json."""
    write_json(entry.folder / ENTRY_FILE, read_json(entry.folder / ENTRY_FILE) | values)


def only(problems: list[str]) -> str:
    assert len(problems) == 1, problems
    return problems[0]


def test_an_entry_that_was_run_is_right(own: Entry) -> None:
    assert validate(own) == []


def test_a_tampered_count_is_found(entry: Entry) -> None:
    tracks = read_json(entry.folder / ENTRY_FILE)["tracks"]
    counted = tracks["precision"]["successes"]["nominal"][TASK]
    tracks["precision"]["successes"]["nominal"][TASK] = 499
    change(entry, tracks=tracks)
    expected = f"Lift in nominal: the rows have {counted} successes, and entry.json claims 499"
    assert only(check_files(entry)) == f"rows/precision.jsonl: {expected}"


def test_figures_of_another_mujoco_are_refused(entry: Entry) -> None:
    evaluation = read_json(entry.folder / ENTRY_FILE)["evaluation"]
    evaluation["versions"]["mujoco"] = "4.0.0"
    change(entry, evaluation=evaluation)
    assert "evaluated with MuJoCo 4.0.0; the board lists figures made with 3.9.0" in only(check_files(entry))


def test_a_swapped_policy_is_found_by_its_hash(entry: Entry) -> None:
    write_residual(entry.policy_file("residual", TASK), SIZE, 0.2)
    assert "residual/Lift.onnx: its SHA-256 is" in only(check_files(entry))


def test_a_changed_row_is_found_by_its_hash(entry: Entry) -> None:
    path = entry.rows_file("precision")
    path.write_text(path.read_text().replace('"return": -', '"return": -1', 1))
    assert "rows/precision.jsonl: its SHA-256 is" in only(check_files(entry))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([0, 1, 2] * 3, "it has 9 lines, and the track 3 rows"),
        ([0, 2], "Lift in nominal lacks 1 of 3 rows: seeds 1"),
        ([0, 1, 1, 2], "Lift in nominal has 1 rows more than once: seeds 1"),
        ([0, 2, 1], "the rows are not sorted by domain, task and seed"),
    ],
)
def test_rows_are_complete_and_in_order(entry: Entry, lines: list[int], problem: str) -> None:
    rows = entry.rows_file("precision").read_text().splitlines(keepends=True)
    write_text(entry.rows_file("precision"), "".join(rows[i] for i in lines))
    tracks = read_json(entry.folder / ENTRY_FILE)["tracks"]
    tracks["precision"]["sha256"] = sha256(entry.rows_file("precision"))
    change(entry, tracks=tracks)
    assert f"rows/precision.jsonl: {problem}" in check_files(entry)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"steps": 301}, "$.steps: 301, and an episode of Lift ends after 300"),
        ({"success": True, "failure": "no_lift"}, "$.failure: it must be null for a success, and only then"),
        ({"return": "-3"}, "$.return: '-3' is not of type 'number'"),
        ({"return": 1.0}, "$.return: 1.0 is greater than the maximum of 0"),
        ({"peak_contact_force": 1e300}, "$.peak_contact_force: 1e+300 is greater than the maximum of"),
        ({"success": False, "failure": "<b>"}, "$.failure: '<b>' does not match"),
        ({"domain": "twin"}, "Lift in twin, seed 1 is not a row of this track"),
    ],
)
def test_rows_are_episodes(entry: Entry, values: dict, problem: str) -> None:
    change_rows(entry, 1, **values)
    assert any(problem in found for found in check_files(entry))


def test_rows_hold_finite_numbers(entry: Entry) -> None:
    path = entry.rows_file("precision")
    for number in ("NaN", "Infinity", "1e999"):
        path.write_text(path.read_text().splitlines()[0].replace('"steps": ', f'"steps": {number}, "more": '))
        assert any("line 1: not JSON: " in problem for problem in check_files(entry))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"name": "x"}, "entry.json: $.name: 'x' is too short"),
        ({"name": "Best\u202emethod"}, "entry.json: $.name: 'Best\\u202emethod' is not valid text: One line"),
        ({"authors": ["A\nB"]}, "entry.json: $.authors[0]: 'A\\nB' is not valid text"),
        ({"date": "2026-13-01"}, "entry.json: $.date: '2026-13-01' is not a 'date'"),
        ({"code": "javascript:alert(1)"}, "entry.json: $.code: 'javascript:alert(1)' does not match"),
        ({"authors": []}, "entry.json: $.authors: [] should be non-empty"),
        ({"stars": 5}, "entry.json: $: Additional properties are not allowed ('stars' was unexpected)"),
        ({"training": {"seed": -1}}, "entry.json: $.training.seed: -1 is less than the minimum of 0"),
        ({"training": None}, "entry.json: $.training: the entry contains policy files"),
        ({"tracks": {}}, "entry.json: $.tracks: {} should be non-empty"),
    ],
)
def test_mistakes_in_the_description_are_named_by_their_field(entry: Entry, values: dict, problem: str) -> None:
    change(entry, **values)
    assert any(found.startswith(problem) for found in check_files(entry)), check_files(entry)


def test_all_problems_are_listed(entry: Entry) -> None:
    change(entry, name="x", date="today", authors=[])
    assert len(check_files(entry)) == 4  # the date matches neither the pattern nor the format


def test_names_of_the_package_are_not_for_own_policies(entry: Entry) -> None:
    residual = read_json(entry.folder / ENTRY_FILE)["residual"]
    change(entry, residual=residual | {"name": "oracle"})
    assert any(problem.startswith("entry.json: $.residual.name: 'oracle' is") for problem in check_files(entry))
    change(entry, residual=residual | {"files": False})
    assert any("'my-residual' has no files here" in problem for problem in check_files(Entry(entry.folder)))


def test_the_base_is_the_package_s(entry: Entry) -> None:
    base = read_json(entry.folder / ENTRY_FILE)["base"]
    change(entry, base=base | {"sha256": {TASK: "0" * 64}})
    assert "$.base.sha256.Lift: it is 000" in only(check_files(entry))


def test_the_oracle_is_a_reference_only(entry: Entry) -> None:
    shutil.rmtree(entry.folder / "residual")
    oracle = {"name": "oracle", "files": False, "sha256": {TASK: None}}
    change(entry, residual=oracle, training=None)
    assert "$.reference: the oracle" in only(check_files(entry))
    change(entry, reference=True)
    assert check_files(Entry(entry.folder)) == []


def test_the_planner_sees_what_a_policy_sees_and_may_be_ranked(entry: Entry) -> None:
    shutil.rmtree(entry.folder / "residual")
    change(entry, residual={"name": "planner", "files": False, "sha256": {TASK: None}}, training=None)
    assert check_files(entry) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ('"one", "name": "other"', "an object has the key 'name' twice"),
        ("1" + "0" * 400, "an integer beyond 2**53"),
        ('"\\ud800"', "surrogates not allowed"),
        ("1e999", "1e999 is not finite"),
    ],
)
def test_a_description_says_the_same_to_all_readers(entry: Entry, name: str, problem: str) -> None:
    path = entry.folder / ENTRY_FILE
    path.write_text(path.read_text().replace('"A method"', name, 1))
    assert "entry.json is not JSON: " in only(check_files(entry)) and problem in only(check_files(entry))


def test_files_that_are_missing_unknown_or_links_are_named(entry: Entry, tmp_path: Path) -> None:
    entry.policy_file("residual", TASK).unlink()
    (tmp_path / "elsewhere").write_text("other content")
    (entry.folder / "notes.txt").symlink_to(tmp_path / "elsewhere")
    (entry.folder / "residual" / "Stack.onnx").write_bytes(b"")
    with (entry.folder / "large.json").open("wb") as file:
        file.truncate(8 * 2**20 + 1)
    assert {problem.partition(":")[0] for problem in check_files(entry)} == {
        "residual/Lift.onnx",
        "'notes.txt'",
        "'large.json'",
        "'residual/Stack.onnx'",
    }


def test_a_folder_without_a_description_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert check_files(Entry(tmp_path / "empty")) == ["entry.json is missing: `submit` makes one"]
    (tmp_path / "empty" / ENTRY_FILE).write_text("[" * 100_000)
    assert "nested too deeply" in only(check_files(Entry(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (bad_policies.returning_nan, "holds NaN"),
        (bad_policies.looking_at_neighbours, "answers differ for 8 inputs at a time and for 64"),
        (bad_policies.remembering_neighbours, "answers differ for 8 inputs at a time and for 64"),
        (bad_policies.rolling_dice, "answers differ when asked twice"),
        (bad_policies.too_wide, r"returned shape \(2, 78\) for two rows; expected \(2, 7\)"),
        (lambda path, size: write_residual(path, size + 1, 0.1), "79 entries; this task has 78"),
        (lambda path, size: path.write_bytes(b"no model") and str(path), "not an ONNX model"),
    ],
)
def test_policies_that_answer_wrongly_are_named(tmp_path: Path, policy: Callable, reason: str) -> None:
    file = policy(tmp_path / "policy.onnx", SIZE)
    with pytest.raises(PolicyFailure, match=reason):
        probe({"kind": "residual", "task": TASK, "file": file}, lambda message: None)


def test_base_policies_give_poses(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    zeros = helper.make_tensor("zeros", TensorProto.FLOAT, [1, 8, 8], [0.0] * 64)
    reshaped = [
        helper.make_node("ReduceSum", ["tcp_pose", "axis"], ["sum"], keepdims=1),
        helper.make_node("Reshape", ["sum", "shape"], ["column"]),
        helper.make_node("Mul", ["column", "zeros"], ["out"]),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [-1, 1, 1])
    file = write_onnx(tmp_path / "base.onnx", {"tcp_pose": ["n", 7]}, ["n", 8, 8], reshaped, (), [zeros, axis, shape])
    with pytest.raises(PolicyFailure, match="quaternion of no length"):
        probe({"kind": "base", "task": TASK, "file": file}, lambda message: None)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (bad_policies.eating_memory, "Failed to allocate memory|bad allocation|GiB of memory"),
        (bad_policies.with_external_data, "keeps 1 of its tensors, such as 'weights', in another file"),
    ],
)
def test_policies_that_break_the_limits_are_stopped(entry: Entry, policy: Callable, reason: str) -> None:
    policy(entry.policy_file("residual", TASK), SIZE)
    problem = only(probe_policies(entry))
    assert problem.startswith("residual/Lift.onnx: ")
    assert re.search(reason, problem), problem


def test_policies_that_sleep_are_stopped(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaderboard.probe.ANSWER_SECONDS", 2.0)
    bad_policies.sleeping(entry.policy_file("residual", TASK), SIZE)
    assert only(probe_policies(entry)).startswith("residual/Lift.onnx: it took more than 2 s to load, or for one round")


def test_the_command_names_what_is_wrong_and_checks_the_others(
    own: Entry, entry: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry.folder / "more").write_text("")
    (entry.folder / "\x1b[31mloud\x07").write_text("")
    assert cli.main(["validate", str(entry.folder), str(own.folder)]) == 1
    said = capsys.readouterr().out
    assert all(line.isprintable() for line in said.split("\n"))
    assert "own: wrong" in said and "  'more': an entry has no such file" in said
    assert said.count("own: valid") == 1
    assert cli.main(["validate", "nobody"]) == 2
    assert "there is no entry 'nobody'" in capsys.readouterr().err
