"""The commands of a lab's day, as ``docs/real_robot.md`` gives them, on the rig and at a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

from cells import PATIENCE, CoreWaits

from oc_residual_gym.cli import main
from oc_residual_gym.envs.episodes import start_of
from oc_residual_gym.real.rig import Rig, rig_available
from oc_residual_gym.real.run import TRIALS
from oc_residual_gym.real.trials import read_trials
from oc_residual_gym.tasks import TASKS

EXAMPLES = Path(__file__).parents[2] / "examples"
CELL = """\
name: rig
operator: nobody
robot: {{host: {host}, realtime: false, set_tcp: true, speed_cap: 0.2, target_limit: 1.0}}
poses: {{source: "{source}"{more}}}
"""
GO = r"[^\[]*\[Enter\] go .*\n"
CLEAR, AWAY, PLACED = "cell is clear" + GO, "moves home" + GO, "the arm is at rest" + GO
"""Questions: may a stopped arm move again, may it move home, and are the objects in their places?"""
MOVING = 25
"""Rows of a trial in which the policy has begun, and is not done."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    if reason := rig_available():
        pytest.skip(f"the rig cannot be installed here: {reason}")
    with Rig(TASKS["Lift"], start_of(TASKS["Lift"], "test", 0)) as opened:
        yield opened


@pytest.fixture
def cell(rig: Rig, tmp_path: Path) -> Path:
    return write_cell(tmp_path / "cell.yaml", rig.host, rig.poses_address)


def write_cell(path: Path, host: str, source: str, more: str = "") -> Path:
    path.write_text(CELL.format(host=host, source=source, more=more))
    return path


class Terminal:
    """A command at a terminal of its own, whose keys are pressed for it."""

    def __init__(self, *arguments: object):
        ours, theirs = pty.openpty()
        program = [sys.executable, "-m", "oc_residual_gym.cli", *map(str, arguments)]
        self._process = subprocess.Popen(
            program, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, close_fds=True
        )
        os.close(theirs)
        self._terminal, self.said = ours, ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def press(self, after: str, keys: str) -> None:
        """Wait for a text, and a moment, then press ``keys``."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(after, self.said)):
            assert self._read(), f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"no {after!r} in:\n{self.said}"
        self.said = self.said[found.end() :]
        until = time.monotonic() + 0.3  # what was typed before a question is thrown away
        while time.monotonic() < until:
            self._read(max(0.0, until - time.monotonic()))
        os.write(self._terminal, keys.encode())

    def wait_for_motion(self, out: Path) -> None:
        """Until :data:`MOVING` rows of a trial have been written."""
        deadline = time.monotonic() + PATIENCE
        while not any(len(j.read_text().splitlines()) > MOVING for j in (out / TRIALS).glob("*.journal")):
            assert self._read(0.05), f"it ended:\n{self.said}"
            assert time.monotonic() < deadline, f"no trial began:\n{self.said}"

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Its exit code."""
        while self._read():
            pass
        return self._process.wait(PATIENCE)

    def _read(self, wait: float = 60.0) -> bool:
        """Whether it may say more."""
        if not select.select([self._terminal], [], [], wait)[0]:
            return True
        try:
            said = os.read(self._terminal, 65536)
        except OSError:  # nobody has the other side open any more
            return False
        self.said += said.decode(errors="replace").replace("\r\n", "\n")
        return bool(said)


class Patient:
    """Judges what ``real check`` says of the poses: too slow may only be a machine that lets its programs wait."""

    def __init__(self, rig: Rig):
        self._waits = CoreWaits(os.getpid(), rig)
        self._before = self._waits.seconds()

    def accepts(self, found: tuple[bool, str]) -> bool:
        return found[0] or ("per second" in found[1] and self._waits.seconds() - self._before > 0.5)


def check(cell: Path, task: str = "Lift") -> dict[str, tuple[bool, str]]:
    """What ``real check`` finds, by name: whether it is well, and the text with what to do."""
    file = cell.with_suffix(".json")
    code = main(["real", "check", "--config", str(cell), "--task", task, "--json", str(file)])
    result = json.loads(file.read_text())
    assert code == (0 if result["ready"] else 1)
    return {f["name"]: (f["ready"], f"{f['detail']}\n{f['remedy']}") for f in result["findings"]}


def test_a_good_cell_is_ready(rig: Rig, cell: Path) -> None:
    patient = Patient(rig)
    found = check(cell)
    assert list(found) == ["calibration", "poses", "connection, frames", "payload", "control", "stop"]
    # How soon things happen depends on what else this machine does.
    assert all(found[name][0] for name in ("calibration", "connection, frames", "payload")), found
    assert patient.accepts(found["poses"]), found
    assert re.search("moved 0.[0-9] mm", found["stop"][1])


def test_every_fault_of_the_poses_is_named_and_the_arm_looked_at_all_the_same(rig: Rig, cell: Path) -> None:
    rig.poses("freeze")
    time.sleep(0.7)
    try:
        frozen = check(cell)
    finally:
        rig.poses("normal")
    assert not frozen["poses"][0] and re.match("poses_(frozen|silent): ", frozen["poses"][1])  # silent: frozen as lost
    assert "period" in frozen["control"][1] and "at rest after" in frozen["stop"][1]
    more = f", calibration: {EXAMPLES / 'shoulder-1.yaml'}"
    unnamed = check(write_cell(cell, rig.host, rig.poses_address, more))
    assert not unnamed["calibration"][0] and "leave calibration out" in unnamed["calibration"][1]


def test_a_robot_that_is_not_there_or_has_no_tcp_is_named(rig: Rig, cell: Path) -> None:
    nowhere = check(write_cell(cell, "127.77.0.1", rig.poses_address))
    assert not nowhere["connection, frames"][0] and "is 127.77.0.1 its address" in nowhere["connection, frames"][1]
    write_cell(cell, rig.host, rig.poses_address)
    cell.write_text(cell.read_text().replace("set_tcp: true", "set_tcp: false"))
    bare = check(cell)
    assert not bare["connection, frames"][0] and "103.4 mm" in bare["connection, frames"][1]


def test_the_example_publisher_feeds_a_check(rig: Rig, cell: Path) -> None:
    address = f"ipc://{cell.parent}/poses"
    write_cell(cell, rig.host, address, f", calibration: {EXAMPLES / 'shoulder-1.yaml'}")
    program = [sys.executable, EXAMPLES / "publish_foundationpose.py", "--demo", "--calibration"]
    patient = Patient(rig)
    publisher = subprocess.Popen([*program, "shoulder-1", "--bind", address], stdout=subprocess.DEVNULL)
    try:
        found = check(cell)
    finally:
        publisher.kill()
        publisher.wait()
    assert patient.accepts(found["poses"]) and found["calibration"][1].startswith("shoulder-1 ("), found


@pytest.mark.parametrize(
    ("old", "new", "name", "message"),
    [
        ("operator:", "opertor:", "Lift", "unknown entry 'opertor'"),
        ("speed_cap: 0.2", "speed_cap: fast", "Lift", "speed_cap is 'fast'"),
        ("tcp://", "udp://", "Lift", "pose source 'udp://"),
        ("", "", "Pour", "unknown task 'Pour'"),
        ("", "", "all", "unknown task 'all'"),
    ],
)
def test_mistakes_are_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, name: str, message: str
) -> None:
    cell = write_cell(tmp_path / "cell.yaml", "127.77.0.1", "tcp://127.0.0.1:9")
    cell.write_text(cell.read_text().replace(old, new) if old else cell.read_text())
    assert main(["real", "check", "--config", str(cell), "--task", name]) == 2
    assert message in capsys.readouterr().err


def test_what_is_not_there_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*arguments: object) -> str:
        assert main(["real", *map(str, arguments)]) == 2
        return capsys.readouterr().err

    gone = tmp_path / "gone"
    assert "cannot read the cell's file" in fails("check", "--config", gone, "--task", "Lift")
    assert "holds no trials" in fails("report", gone)
    assert "holds no trials" in fails("report", gone, "--decision")
    cell = write_cell(tmp_path / "cell.yaml", "127.77.0.1", "tcp://127.0.0.1:9")
    run = ("run", "--config", cell, "--task", "Lift", "--out", gone)
    program = [sys.executable, "-m", "oc_residual_gym.cli", "real", *map(str, run)]
    ended = subprocess.run(program, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120.0)
    assert ended.returncode == 2 and "operator at a terminal" in ended.stderr
    assert not gone.exists()


def test_trials_at_a_terminal_are_stopped_gone_on_with_and_reported(
    cell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = cell.parent / "trials"
    run = ("real", "run", "--config", cell, "--task", "Lift", "--residual", "zero", "--starts", 1, "--out", out)
    with Terminal(*run) as terminal:
        terminal.press(AWAY, "\n")
        terminal.press(PLACED, "\n")
        terminal.wait_for_motion(out)
        terminal.press("", "x")
        terminal.press(r"operator_stop[^[]*\[f\] fail", "i")
        terminal.press("Why is it invalid", "a lamp fell\n")
        terminal.press(CLEAR, "\n")
        terminal.press(AWAY, "\n")
        terminal.press(PLACED, "\n")
        terminal.wait_for_motion(out)
        terminal.interrupt()
        assert terminal.end() == 130
        assert "Continue with the same command" in terminal.said
    with Terminal(*run) as terminal:
        terminal.press(AWAY, "\n")
        terminal.press(PLACED, "\n")
        terminal.wait_for_motion(out)
        terminal.press("", "s")
        terminal.press(r"\[s\] success", "\n")
        terminal.press(AWAY, "q")
        assert terminal.end() == 0
        assert "1 of 2 trials have a verdict: continue with the same command" in terminal.said
    kept = [(t["trial"], t["attempt"], t["verdict"], t["stop_reason"]) for t in read_trials(out / TRIALS)]
    assert kept == [
        (1, 1, "invalid", "operator_stop"),
        (1, 2, "invalid", "operator_stop"),
        (1, 3, "success", ""),
    ]
    assert _said(capsys, ["real", "report", str(out), "--decision"]) == "go on: not decided yet\n"
    report = _said(capsys, ["real", "report", str(out), "--unblind"])
    assert "In cell rig." in report and "a lamp fell" in report and "| interrupted" in report


def test_a_dry_run_prints_targets_and_moves_nothing(cell: Path) -> None:
    out = cell.parent / "dry"
    cell.write_text(re.sub("host: [^,]*", "host: 127.77.0.1", cell.read_text()))  # nobody is there
    run = ("real", "run", "--config", cell, "--task", "Lift", "--starts", 1, "--out", out, "--dry-run")
    with Terminal(*run) as terminal:
        terminal.press(AWAY, "\n")
        terminal.press(PLACED, "\n")
        terminal.press(r"dry run: target \[.*hand open", "q")
        assert terminal.end() == 0
        assert "0 of 2 trials have a verdict: continue with the same command" in terminal.said
    assert [trial["verdict"] for trial in read_trials(out / TRIALS)] == ["invalid"]


def _said(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out
