"""A trial that was driven is never lost: its folder is deleted, becomes a file, or the disk fills while it runs."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_trials import HEAD, SETTINGS, STEPS, Cells, rows

from oc_residual_gym.errors import KeptElsewhere, SettingsError
from oc_residual_gym.real import trials
from oc_residual_gym.real.keeping import PREFIX, Copies
from oc_residual_gym.real.operator import ScriptedOperator
from oc_residual_gym.real.run import BLIND_FILE, PLAN_FILE, SETTINGS_FILE, TRIALS, run_trials
from oc_residual_gym.real.trials import TrialRecorder, Verdict, judge_later, read_trials, recover, unjudged


class Accident(ScriptedOperator):
    """Something happens to the disk in the third step of trial ``number``; every trial is a success by its operator."""

    def __init__(self, happen: Callable[[], None], number: int = 1, **options: Any):
        super().__init__([Verdict("success")] * 4, show=(said := []).append, **options)
        self.said, self._happen, self._at = said, happen, 3 + STEPS * (number - 1)
        self.steps = 0

    def command(self) -> Any:
        self.steps += 1
        if self.steps == self._at:
            self._happen()
        return super().command()


class FullDisk:
    """A disk on which nothing more can be written in or below ``folder`` once ``full`` is set."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.full, self._folder = False, folder
        write, openly = Path.write_bytes, open

        def write_bytes(path: Path, content: bytes) -> int:
            self.check(path)
            return write(path, content)

        def opened(path: Path, *arguments: Any, **options: Any) -> Any:
            self.check(path)
            file = openly(path, *arguments, **options)
            if self._folder in path.parents:
                written = file.write
                file = _File(file, lambda text: (self.check(path), written(text)))
            return file

        monkeypatch.setattr(Path, "write_bytes", write_bytes)
        monkeypatch.setattr(trials, "open", opened, raising=False)

    def check(self, path: Path) -> None:
        if self.full and self._folder in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))


class _File:
    def __init__(self, file: Any, write: Callable[[str], Any]):
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def length(path: Path) -> int:
    with h5py.File(path) as file:
        return len(file[f"demos/{path.stem}/time"])


def rescued(place: Path) -> list[Path]:
    return sorted(place.glob(f"{PREFIX}*/*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the program."""
    (place := tmp_path / "current").mkdir()
    monkeypatch.chdir(place)
    return place


def test_a_folder_deleted_in_mid_trial_is_written_again_with_all_that_was_in_it(tmp_path: Path, place: Path) -> None:
    out = tmp_path / "comparison"
    before: dict[str, bytes] = {}

    def delete() -> None:
        before.update({path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()})
        shutil.rmtree(out)

    operator = Accident(delete, number=2)
    assert run_trials(SETTINGS, Cells(operator), operator, out, pictures=False)["judged"] == 4
    assert {SETTINGS_FILE, PLAN_FILE, BLIND_FILE, "trial_0001.hdf5"} <= set(before)
    after = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {name: after[name] for name in before if not name.endswith(".journal")} == {
        name: content for name, content in before.items() if not name.endswith(".journal")
    }
    assert [length(trial["path"]) for trial in read_trials(out / TRIALS)] == [STEPS] * 4
    assert sum("were deleted" in text for text in operator.said) == 1 and rescued(place) == []


@pytest.mark.parametrize("lost", [TRIALS, BLIND_FILE, f"{TRIALS}/trial_0001.hdf5"])
def test_whatever_is_deleted_between_trials_is_written_again(lost: str, tmp_path: Path, place: Path) -> None:
    out = tmp_path / "comparison"

    def delete() -> None:
        shutil.rmtree(out / lost) if (out / lost).is_dir() else (out / lost).unlink()

    operator = Accident(delete, number=3)
    assert run_trials(SETTINGS, Cells(operator), operator, out, pictures=False)["judged"] == 4
    assert (out / BLIND_FILE).exists() and len(read_trials(out / TRIALS)) == 4
    (said,) = (text for text in operator.said if "were deleted" in text)
    assert (lost if "." in lost else f"{TRIALS}/trial_0001.hdf5") in said


def test_copies_are_read_once_only_of_the_files_asked_for_and_skip_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = Path.read_bytes, []

    def read_bytes(path: Path) -> bytes:
        asked.append(path.name)
        if path.name == "locked.hdf5" and asked.count(path.name) == 1:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    (tmp_path / "trials").mkdir()
    for name in ("plan.json", "a video.mp4", "trials/one.hdf5", "trials/locked.hdf5"):
        (tmp_path / name).write_text(name)
    copies = Copies(tmp_path, "plan.json", "trials/*.hdf5")
    copies.look()
    assert sorted(asked) == ["locked.hdf5", "one.hdf5", "plan.json"]
    copies.look()
    assert sorted(asked) == ["locked.hdf5", "locked.hdf5", "one.hdf5", "plan.json"]
    shutil.rmtree(tmp_path)
    assert sorted(copies.restore()) == ["plan.json", "trials/locked.hdf5", "trials/one.hdf5"]
    assert (tmp_path / "trials/locked.hdf5").read_text() == "trials/locked.hdf5" and copies.restore() == []


def test_a_folder_that_cannot_be_made_again(tmp_path: Path, place: Path) -> None:
    out = tmp_path / "comparison"

    def replace() -> None:
        shutil.rmtree(out)
        out.write_text("a file")

    operator = Accident(replace)
    with pytest.raises(KeptElsewhere) as raised:
        run_trials(SETTINGS, Cells(operator), operator, out, pictures=False)
    (path,) = rescued(place)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value) and str(out) in str(raised.value)
    assert length(path) == STEPS and operator.steps == STEPS


def test_a_disk_that_fills_in_mid_trial(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "comparison"
    disk = FullDisk(out, monkeypatch)
    operator = Accident(lambda: setattr(disk, "full", True), number=2)
    with pytest.raises(KeptElsewhere, match="No space left on device"):
        run_trials(SETTINGS, Cells(operator), operator, out, pictures=False)
    (path,) = rescued(place)
    assert length(path) == STEPS  # also the rows after the disk was full
    # Moved back as the message says, with room again, it counts, and the rest goes on.
    disk.full = False
    path.rename(out / TRIALS / path.name)
    operator = ScriptedOperator()
    assert run_trials(SETTINGS, Cells(operator), operator, out, pictures=False)["open"] == 0
    first, second, *_ = read_trials(out / TRIALS)
    assert (first["verdict"], second["verdict"]) == ("success", "success")


def test_a_disk_that_has_room_again_at_the_end_is_no_trouble(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(tmp_path / "trials", monkeypatch)
    recorder = TrialRecorder(tmp_path / "trials", "trial_0001", HEAD, synthetic=False)
    for row in rows(5):
        disk.full = 1 <= round(20 * row["time"]) <= 3
        recorder.add(row)
    path = recorder.finish(Verdict("success"))
    assert length(path) == 5 and rescued(place) == [] and [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_trial_that_waits_for_its_verdict_survives_too(tmp_path: Path, place: Path) -> None:
    recorder = TrialRecorder(tmp_path / "trials", "trial_0001", HEAD, synthetic=False)
    for row in rows(5):
        recorder.add(row)
    recorder.over(stop_reason="")
    shutil.rmtree(tmp_path / "trials")
    recorder.close()
    (waiting,) = unjudged(tmp_path / "trials")
    assert length(judge_later(waiting["journal"], Verdict("success"))) == 5


def test_ctrl_c_on_a_full_disk_says_where_the_trial_is(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "comparison"
    disk = FullDisk(out, monkeypatch)

    def interrupt() -> None:
        disk.full = True
        raise KeyboardInterrupt

    operator = Accident(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_trials(SETTINGS, Cells(operator), operator, out, pictures=False)
    (path,) = rescued(place)
    assert any(str(path) in text for text in operator.said) and length(path) == 2


def test_a_trial_does_not_begin_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trials").mkdir()
    FullDisk(tmp_path / "trials", monkeypatch).full = True
    with pytest.raises(SettingsError, match=r"cannot be written .*has not begun"):
        TrialRecorder(tmp_path / "trials", "trial_0001", HEAD, synthetic=False)
    assert not list((tmp_path / "trials").iterdir())


def test_only_where_no_place_takes_it_the_journal_stays_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = TrialRecorder(tmp_path, "trial_0001", HEAD, synthetic=False)
    for row in rows(3):
        recorder.add(row)
    with monkeypatch.context() as patch:
        FullDisk(Path("/"), patch).full = True
        patch.chdir(tmp_path)
        with pytest.raises(OSError, match="No space"):
            recorder.finish(Verdict("success"), wrench_bias=np.zeros(6).tolist())
    assert [path.name for path in tmp_path.iterdir()] == ["trial_0001.journal"]
    (path,) = recover(tmp_path)
    assert length(path) == 3 and read_trials(tmp_path)[0]["verdict"] == "success"
