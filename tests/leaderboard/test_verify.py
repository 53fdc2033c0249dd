"""Verification accepts rows that were run and rejects forgeries; a bad entry does not affect others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="needs the extra [train]")
pytest.importorskip("jsonschema", reason="needs the extra [leaderboard]")

import bad_policies
from policy_files import write_residual
from run_entries import ROWS, SIZE, TASK, change_rows, row_without_names, run, small_board, submitted

from leaderboard import LeaderboardError, cli
from leaderboard.entry import ENTRY_FILE, Entry, verification_of
from leaderboard.limits import Limits, PolicyFailure, run_limited
from leaderboard.platforms import differences
from leaderboard.records import NOT_VERIFIED, Outcome, record_of, recorded
from leaderboard.tracks import BoardCell
from leaderboard.validate import check_files
from leaderboard.verdict import ACCEPTED, DEVIATING, FLIP_RATE, REJECTED, Rerun, judge, risk
from leaderboard.verify import VerifyRequest, verify
from oc_residual_gym.files import sha256, write_json
from oc_residual_gym.parsing import read_json

CELL = BoardCell(TASK, "nominal")


@pytest.fixture(scope="module", autouse=True)
def board() -> Iterator[None]:
    with small_board("nominal"):
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """The base policy alone."""
    root = tmp_path_factory.mktemp("alone")
    return submitted(root / "entries", "alone", run(root / "run"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Entry:
    """An entry with a residual policy of its own."""
    root = tmp_path_factory.mktemp("own")
    policy = write_residual(root / "policy.onnx", SIZE, 0.1)
    return submitted(root / "entries", "own", run(root / "run", policy))


def copied(entry: Entry, folder: Path) -> Entry:
    shutil.copytree(entry.folder, folder)
    return Entry(folder)


def test_another_mujoco_verifies_nothing(own: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mujoco.__version__", "4.0.0")
    with pytest.raises(LeaderboardError, match=r"made with MuJoCo 3.9.0, and this environment has 4.0.0: pip install"):
        list(verify([own], VerifyRequest(work=tmp_path)))


def drop_row(entry: Entry, line: int) -> None:
    """Remove a row, and put the new hash and count into entry.json."""
    path = entry.rows_file("precision")
    lines = path.read_text().splitlines(keepends=True)
    dropped = json.loads(lines.pop(line))
    path.write_text("".join(lines))
    content = read_json(entry.folder / ENTRY_FILE)
    claim = content["tracks"]["precision"]
    claim["sha256"] = sha256(path)
    claim["successes"]["nominal"][TASK] -= dropped["success"]
    write_json(entry.folder / ENTRY_FILE, content)


def swap(entry: Entry) -> None:
    """Put the new hash of the residual policy into entry.json."""
    content = read_json(entry.folder / ENTRY_FILE)
    content["residual"]["sha256"][TASK] = sha256(entry.policy_file("residual", TASK))
    write_json(entry.folder / ENTRY_FILE, content)


@pytest.fixture
def request_here(tmp_path: Path) -> VerifyRequest:
    return VerifyRequest(worlds=2, work=tmp_path / "work", records=tmp_path / "records")


def test_what_was_run_is_accepted_and_forgeries_are_rejected(
    alone: Entry, own: Entry, tmp_path: Path, request_here: VerifyRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaderboard.verify.validate", check_files)  # other tests probe the policies
    changed = copied(alone, tmp_path / "changed")
    steps = changed.rows_of(CELL)[1]["steps"]
    change_rows(changed, 1, steps=steps - 1)
    swapped = copied(own, tmp_path / "swapped")
    write_residual(swapped.policy_file("residual", TASK), SIZE, -1.0)
    swap(swapped)
    failing = copied(own, tmp_path / "failing")
    bad_policies.returning_nan_with_closed_gripper(failing.policy_file("residual", TASK), SIZE)
    swap(failing)
    boasting = copied(alone, tmp_path / "boasting")
    content = read_json(boasting.folder / ENTRY_FILE)
    content["tracks"]["precision"]["successes"]["nominal"][TASK] += 1
    write_json(boasting.folder / ENTRY_FILE, content)
    short = copied(alone, tmp_path / "short")
    drop_row(short, 1)
    broken = copied(own, tmp_path / "broken")
    broken.policy_file("residual", TASK).unlink()

    entries = [Entry(entry.folder) for entry in (changed, swapped, failing, boasting, short, broken, alone)]
    found = {outcome.id: outcome for outcome in verify(entries, request_here)}

    assert {name: outcome.verdict for name, outcome in found.items()} == {
        "changed": REJECTED,
        "swapped": REJECTED,
        "failing": REJECTED,
        "boasting": REJECTED,
        "short": REJECTED,
        "broken": REJECTED,
        "alone": ACCEPTED,
    }
    assert f"Lift in nominal, seed 1: steps {steps - 1} claimed, {steps} found" in found["changed"].reason
    assert "Lift in nominal: residual policy" in found["failing"].reason
    assert "nan" in found["failing"].reason and "Lift, seed " in found["failing"].reason
    assert "successes, and entry.json claims" in found["boasting"].reason
    assert found["short"].reason == "rows/precision.jsonl: Lift in nominal lacks 1 of 3 rows: seeds 1"
    assert found["broken"].reason == "residual/Lift.onnx: it is missing"

    record = verification_of(alone, request_here.records)
    assert record is not None
    expected = {"verdict": ACCEPTED, "rows": ROWS, "total": ROWS, "identical": ROWS, "flips": 0, "flip_rate": 0.0}
    assert record | expected == record
    assert record["same_platform"] is True and record["sample"] is None
    (cell,) = record["cells"]
    assert cell["claimed_successes"] == cell["successes"] == sum(row["success"] for row in alone.rows_of(CELL))
    assert record["platform"]["simulation"] == alone.content["evaluation"]["simulation"]
    # A record holds only for the content that was verified.
    write_json(alone.folder / ENTRY_FILE, alone.content | {"name": "Another name"})
    assert verification_of(Entry(alone.folder), request_here.records) is None
    write_json(alone.folder / ENTRY_FILE, alone.content)
    assert not list((tmp_path / "work").iterdir())


def test_an_interrupted_verification_goes_on_with_the_same_sample(
    alone: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = VerifyRequest(rows=2, worlds=2, work=tmp_path / "work", records=tmp_path / "records")
    asked: list[list[int]] = []

    def interrupted(module: str, order: dict, limits: Limits) -> Iterator[dict]:
        asked.append(order["seeds"])
        yield from run_limited(module, order | {"seeds": order["seeds"][:1]}, limits)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("leaderboard.verify.run_limited", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(verify([alone], request))
    assert not request.records.exists()
    (episodes,) = request.work.glob("*/*/episodes.jsonl")
    first = episodes.read_text()
    # Finished rows must not be run again: a changed one must stay changed.
    episodes.write_text(first.replace('"return": -', '"return": -1'))
    (outcome,) = verify([Entry(alone.folder)], request)
    assert outcome.verdict == REJECTED and f"seed {asked[0][0]}: return" in outcome.reason
    record = verification_of(alone, request.records)
    assert record is not None and (record["rows"], record["identical"]) == (2, 1)
    assert record["sample"]["rows_per_cell"] == 2


def test_two_verifications_of_an_entry_at_once_keep_out_of_each_others_way(
    alone: Entry, request_here: VerifyRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    second: list[Outcome] = []

    def meanwhile(module: str, order: dict, limits: Limits) -> Iterator[dict]:
        second.extend(verify([alone], request_here))
        yield from run_limited(module, order, limits)

    monkeypatch.setattr("leaderboard.verify.run_limited", meanwhile)
    (first,) = verify([alone], request_here)
    assert first.verdict == ACCEPTED
    assert [outcome.verdict for outcome in second] == [NOT_VERIFIED]
    assert "another process is at work" in second[0].reason


@pytest.mark.parametrize(("which", "where"), [("alone", "verify"), ("own", "probe")])
def test_faults_that_are_not_the_policy_s_are_reported(
    which: str, where: str, request: pytest.FixtureRequest, request_here: VerifyRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = request.getfixturevalue(which)

    def broken(*_: object) -> Iterator[dict]:
        raise LeaderboardError("a process that runs policies was ended by SIGKILL: is there enough memory?")
        yield {}

    monkeypatch.setattr(f"leaderboard.{where}.run_limited", broken)
    (outcome,) = verify([entry], request_here)
    assert outcome.verdict == NOT_VERIFIED and "SIGKILL" in outcome.reason and not outcome.is_fine
    assert verification_of(entry, request_here.records) is None


def test_an_entry_that_is_changed_while_it_is_verified_is_not_verified(
    alone: Entry, tmp_path: Path, request_here: VerifyRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = copied(alone, tmp_path / "entry")

    def changing(module: str, order: dict, limits: Limits) -> Iterator[dict]:
        yield from run_limited(module, order, limits)
        write_json(entry.folder / ENTRY_FILE, read_json(entry.folder / ENTRY_FILE) | {"name": "Another name"})

    monkeypatch.setattr("leaderboard.verify.run_limited", changing)
    (outcome,) = verify([entry], request_here)
    assert (outcome.verdict, outcome.reason[:27]) == (NOT_VERIFIED, "its files were changed whil")
    assert not request_here.records.exists() and not list(request_here.work.iterdir())


def test_a_record_is_not_replaced_by_one_of_fewer_rows(alone: Entry, tmp_path: Path) -> None:
    platform = {"simulation": "a" * 64}

    def found(verdict: str, rows: int, **platform: str) -> Outcome:
        record = record_of(alone, platform, verdict, "reason", [rerun(rows=rows)])
        return recorded(alone, record, tmp_path)

    def kept() -> tuple[str, int]:
        record = verification_of(alone, tmp_path)
        assert record is not None
        return record["verdict"], record["rows"]

    found(REJECTED, 500, **platform)
    assert found(ACCEPTED, 20, **platform).reason == "reason (the record of 500 rows, rejected, stays)"
    assert kept() == (REJECTED, 500)
    found(ACCEPTED, 500, **platform)
    assert kept() == (ACCEPTED, 500)
    found(REJECTED, 20, **platform)  # one false row is enough
    assert kept() == (REJECTED, 20)
    found(ACCEPTED, 500, **platform)
    found(ACCEPTED, 20, simulation="b" * 64)  # older rows say nothing about it
    assert kept() == (ACCEPTED, 20)


def test_only_entries_of_the_board_are_recorded_with_it(
    alone: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leaderboard.records.VERIFICATIONS", tmp_path)
    record = record_of(alone, {"simulation": "a" * 64}, ACCEPTED, "reason")
    assert recorded(alone, record, None).reason.startswith("reason (not recorded: it is not in ")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("leaderboard.records.ENTRIES", alone.folder.parent)
    assert recorded(alone, record, None).reason == "reason"
    assert [path.name for path in tmp_path.iterdir()] == ["alone.json"]


def test_another_platform_is_one_with_other_arithmetic() -> None:
    here = {
        "machine": {"system": "Linux x86_64, glibc 2.36", "processor": "AMD EPYC 7763", "cores": 2},
        "versions": {"mujoco": "3.9.0"},
        "simulation": "a" * 64,
    }

    def with_machine(**values: object) -> dict:
        return here | {"machine": here["machine"] | values}

    assert not differences(here, with_machine(cores=64))
    for other in (
        with_machine(system="Linux x86_64, glibc 2.40"),
        with_machine(system="Linux aarch64, glibc 2.36"),
        with_machine(processor="Intel Xeon"),
        here | {"versions": {"mujoco": "3.9.1"}},
        here | {"simulation": "b" * 64},
    ):
        assert len(differences(here, other)) == 1


def test_another_platform_may_differ_a_little(
    alone: Entry, request_here: VerifyRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = copied(alone, tmp_path / "elsewhere")
    change_rows(elsewhere, 1, steps=elsewhere.rows_of(CELL)[1]["steps"] - 1)
    content = read_json(elsewhere.folder / ENTRY_FILE)
    content["evaluation"]["machine"]["processor"] = "another one"
    write_json(elsewhere.folder / ENTRY_FILE, content)

    def rerun(module: str, order: dict, limits: Limits) -> Iterator[dict]:
        from leaderboard.rerun_worker import rerun as work

        messages: list[dict] = []
        work(order, messages.append)
        yield from messages

    monkeypatch.setattr("leaderboard.verify.run_limited", rerun)
    (outcome,) = verify([Entry(elsewhere.folder)], request_here)
    assert outcome.verdict == DEVIATING and "1 of 3 rows differ" in outcome.reason
    record = verification_of(Entry(elsewhere.folder), request_here.records)
    assert record is not None and record["same_platform"] is False and record["flips"] == 0


def rerun(rows: int = 500, identical: int = 0, gained: int = 0, lost: int = 0) -> Rerun:
    return Rerun(CELL, rows, identical, gained, lost, 300 + gained, 300 + lost, "Lift in nominal, seed 0: ...")


def test_verdicts_on_another_platform() -> None:
    few = 8  # within the flip rate
    assert judge([rerun(identical=500)], same=False)[0] == ACCEPTED
    assert judge([rerun(gained=few // 2, lost=few // 2)], same=False)[0] == DEVIATING
    # Too many, in one cell of two.
    many = int(4 * FLIP_RATE * 500)
    verdict, reason = judge([rerun(identical=500), rerun(gained=many // 2, lost=many // 2)], same=False)
    assert verdict == REJECTED and f"the success of {2 * (many // 2)} of 500 rows differs in Lift" in reason
    # Flips that all favour the claim are a forgery; flips that are all against it are not.
    verdict, reason = judge([rerun(gained=few)], same=False)
    assert verdict == REJECTED and f"{few} of {few} rows whose success differs favour the claim" in reason
    assert judge([rerun(lost=few)], same=False)[0] == DEVIATING
    # Few rows of a sample prove little.
    assert judge([rerun(rows=10, gained=1)], same=False)[0] == DEVIATING


def test_no_row_may_differ_on_the_same_platform() -> None:
    assert judge([rerun(identical=500)], same=True)[0] == ACCEPTED
    verdict, reason = judge([rerun(identical=499)], same=True)
    assert verdict == REJECTED and "1 of 500 rows differ (Lift in nominal, seed 0: ...)" in reason


def test_the_risk_of_a_sample() -> None:
    # Ten draws without replacement from 500 rows of which 5, 25 and 50 are false.
    for false, share in ((5, "0.01"), (25, "0.05"), (50, "0.1")):
        chance = 1.0
        for drawn in range(10):
            chance *= (500 - false - drawn) / (500 - drawn)
        assert risk(500, 10)[share] == pytest.approx(chance)
    assert risk(500, 499)["0.01"] == pytest.approx(0.0, abs=0.011)
    with pytest.raises(LeaderboardError, match="give 1 to 2, or leave it out"):
        VerifyRequest(Path("work"), rows=ROWS)


def test_mistakes_in_what_is_asked_for_are_named(alone: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        ([], "say which entries"),
        ([str(alone.folder), "--all"], "say which entries"),
        ([str(alone.folder), "--rows", "3"], "give 1 to 2, or leave it out"),
        ([str(alone.folder), "--memory", "0.1"], "give 2 or more"),
        ([str(alone.folder), "--memory", "inf"], "give 2 or more"),
        ([str(alone.folder), "--worlds", "65"], "give 1 to 64"),
    ):
        assert cli.main(["verify", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_child_that_crashes_is_told_from_one_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import os\nfrom leaderboard.limits import serve\nserve(lambda r, emit: os.kill(os.getpid(), r['by']))"
    (tmp_path / "dying_child.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    limits = Limits(20.0, "too slow")
    with pytest.raises(PolicyFailure, match=r"crashed \(SIGSEGV\); policies have 4 GiB"):
        list(run_limited("dying_child", {"by": 11}, limits))
    with pytest.raises(LeaderboardError, match="ended by SIGKILL"):
        list(run_limited("dying_child", {"by": 9}, limits))


def test_a_child_ends_with_its_parent() -> None:
    program = "import time\nfrom leaderboard.limits import serve\nserve(lambda request, emit: time.sleep(600))"
    clone = Path(cli.__file__).parents[1]
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=clone)
    assert child.stdin is not None and child.stdout is not None
    with child.stdout, child.stdin:
        child.stdin.write(b'{"memory_gib": 4}\n')
        child.stdin.flush()
        assert json.loads(child.stdout.readline()) == {"started": True}
        child.stdin.close()  # which the system does for a parent that was killed
        assert child.wait(timeout=60) == 1


def test_rows_keep_what_the_evaluator_says(alone: Entry) -> None:
    for row in alone.rows_of(CELL):
        assert (row["base"], row["residual"], row["errors"], row["split"]) == ("bc-v0", "zero", "paper", "test")
        assert "base" not in row_without_names(row)
