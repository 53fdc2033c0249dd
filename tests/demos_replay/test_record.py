"""Recording: the scripted operator's logs, and a person's at a device."""

import errno
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from logs import read_logs

from demos_replay.cli import main
from demos_replay.devices import DeviceError, DevicePolicy, connect
from demos_replay.log import Log, LogError
from demos_replay.record import _record, record_scripted
from oc_residual_gym.envs.core import ResidualWorlds


def rows(path):
    with h5py.File(path) as file:
        return {name: {k: v[()] for k, v in demo.items() if k != "objects"} for name, demo in file["demos"].items()}


def test_the_scripted_operator_is_seeded_resumes_and_differs_from_the_expert(tmp_path):
    at_once, in_two = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    record_scripted("Lift", at_once, demos=3, domain="twin")
    record_scripted("Lift", in_two, demos=1, domain="twin")
    result = record_scripted("Lift", in_two, demos=3, domain="twin")
    assert result["new"] == 2
    first, second = rows(at_once), rows(in_two)
    assert list(first) == list(second) == ["demo_0000", "demo_0001", "demo_0002"]
    for name, demo in first.items():
        for dataset, values in demo.items():
            np.testing.assert_array_equal(values, second[name][dataset])
    logs = [log for log in read_logs(at_once) if isinstance(log, Log)]
    assert len(logs) == 3 and all(log.synthetic and log.task == "Lift" for log in logs)
    paces = [np.abs(np.diff(demo["target"][:, :3], axis=0)).max() for demo in first.values()]
    assert len(set(np.round(paces, 5))) == 3


def test_a_file_of_something_else_is_left_alone(tmp_path):
    file = tmp_path / "log.hdf5"
    record_scripted("CloseDrawer", file, demos=1, domain="twin")
    before = file.read_bytes()
    for task, domain in (("Lift", "twin"), ("CloseDrawer", "nominal")):
        with pytest.raises(LogError, match="another --out"):
            record_scripted(task, file, demos=2, domain=domain)
    assert file.read_bytes() == before
    file.write_text("notes")
    with pytest.raises(LogError, match="another --out"):
        record_scripted("CloseDrawer", file, demos=1, domain="twin")


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "log.hdf5"
    record_scripted("CloseDrawer", file, demos=1, domain="twin")
    before, write = rows(file), Path.write_bytes
    room = [False, True]  # Taken from the end: the first write succeeds, the one after a demonstration fails.

    def full(path, content):
        if not room.pop():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            record_scripted("CloseDrawer", file, demos=2, domain="twin")
    assert list(rows(file)) == list(before) == ["demo_0000"]
    assert [path.name for path in tmp_path.iterdir()] == ["log.hdf5"]
    assert record_scripted("CloseDrawer", file, demos=2, domain="twin")["new"] == 1


class ScriptedDevice:
    """Takes the place of a robosuite device: pushes the drawer shut as a person with a keyboard would."""

    def __init__(self, move, give_up=False):
        self.started = 0
        self._state = {"dpos": np.array(move), "raw_drotation": np.zeros(3), "grasp": 1, "reset": int(give_up)}

    def start_control(self):
        self.started += 1

    def get_controller_state(self):
        return self._state

    def _postprocess_device_outputs(self, move, turn):
        return np.clip(move, -1, 1), np.clip(turn, -1, 1)


def test_a_device_moves_the_target_within_the_limits():
    device = ScriptedDevice([1.0, 0.0, 0.5])
    core = ResidualWorlds("Lift", 1, base_policy=DevicePolicy("keyboard", device), errors="clean")
    core.reset(np.array([0]), [0])
    start = core.executed_target[0].copy()
    for _ in range(3):
        core.step(np.zeros((1, 7)))
    assert device.started == 1
    moved = core.executed_target[0, :3] - start[:3]
    assert moved[0] > 0.02 and 0.0 < moved[2] < moved[0] and abs(moved[1]) < 1e-9
    assert core.executed_target[0, 7] == 0.0
    core.close()


def test_a_person_who_gives_up_leaves_nothing_behind(tmp_path):
    tries = []

    def stop_after_two(core):
        tries.append(core.seeds[0])
        if len(set(tries)) > 2:
            raise KeyboardInterrupt

    device = DevicePolicy("keyboard", ScriptedDevice([0.0, 0.0, 0.0], give_up=True))
    file = tmp_path / "log.hdf5"
    with pytest.raises(KeyboardInterrupt):
        _record("Lift", file, device, 1, "nominal", 1, "keyboard", "a person", stop_after_two)
    assert sorted(set(tries)) == [0, 1, 2]
    with h5py.File(file) as content:
        assert len(content.get("demos", {})) == 0


def test_unknown_devices_are_answered_with_the_known_ones(capsys, tmp_path):
    with pytest.raises(DeviceError, match="keyboard, spacemouse, dualsense"):
        connect("joystick")
    assert main(["record", "--task", "Lift", "--device", "joystick", "--out", str(tmp_path / "log.hdf5")]) == 2
    assert "joystick" in capsys.readouterr().err


def test_devices_need_robosuite(monkeypatch):
    monkeypatch.delitem(sys.modules, "oc_residual_gym.bridge", raising=False)
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(DeviceError, match=r"keyboard.*oc-residual-gym\[robosuite\]"):
        connect("keyboard")


def test_devices_that_are_not_there_say_what_to_do(monkeypatch):
    robosuite = pytest.importorskip("robosuite", reason="needs the extra [robosuite]")

    def no_display(cell):
        raise OSError("no display")

    drivers = SimpleNamespace(Keyboard=no_display)
    monkeypatch.setitem(sys.modules, "robosuite.devices", drivers)
    monkeypatch.setattr(robosuite, "devices", drivers, raising=False)
    with pytest.raises(DeviceError, match=r"no display.*desktop"):
        connect("keyboard")
