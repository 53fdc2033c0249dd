"""The command ``oc-residual``: what it prints, writes and answers to mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import imageio.v3 as imageio
import pytest

from oc_residual_gym import bench
from oc_residual_gym.cli import main
from oc_residual_gym.tasks import TASKS

COMMANDS = ("tasks", "evaluate", "compare", "bench", "render", "check")


def test_help_lists_the_commands_without_loading_the_simulator() -> None:
    program = """
import sys
from oc_residual_gym.cli import main
try:
    main(["--help"])
except SystemExit:
    print([name for name in ("mujoco", "robosuite", "scipy", "matplotlib") if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(command in output for command in COMMANDS)
    assert output.splitlines()[-1] == "[]"


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "oc-residual"
    if not command.exists():
        pytest.skip("the package is not installed; `make setup` installs it")
    subprocess.run([command, "--help"], capture_output=True, check=True)


def test_tasks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["tasks", "--json", str(tmp_path / "tasks.json")]) == 0
    output = capsys.readouterr().out
    listed = json.loads((tmp_path / "tasks.json").read_text())
    assert [entry["task"] for entry in listed] == list(TASKS)
    for entry in listed:
        assert entry["id"] in output
        assert entry["instruction"] in output
        assert entry["success_rule"] in output


def test_evaluate_and_compare(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folders = {residual: tmp_path / residual for residual in ("zero", "oracle")}
    for residual, folder in folders.items():
        arguments = ["evaluate", "--task", "CloseDrawer", "--residual", residual, "--episodes", "2"]
        assert main([*arguments, "--out", str(folder), "--json", str(tmp_path / f"{residual}.json")]) == 0
        summary = json.loads((tmp_path / f"{residual}.json").read_text())
        assert summary == json.loads((folder / "summary.json").read_text())
        assert summary["command"].startswith("oc-residual evaluate --task CloseDrawer")
    assert main(["compare", *map(str, folders.values()), "--out", str(tmp_path / "both")]) == 0
    assert "bc + oracle" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--task", "Juggle", "PegInsert"),
        ("--base", "wish", "expert"),
        ("--residual", "wish", "oracle"),
        ("--domain", "mars", "twin"),
        ("--errors", "none", "tracker"),
        ("--split", "holdout", "train"),
        ("--episodes", "501", "500"),
    ],
)
def test_a_wrong_option_is_answered_with_the_valid_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, value: str, named: str
) -> None:
    assert main(["evaluate", option, value, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert value in error
    assert named in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["dance"], ["evaluate"], ["evaluate", "--out", "x", "--worlds", "0"]])
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: oc-residual" in capsys.readouterr().err


def test_check_says_what_is_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main(["check", "--json", str(tmp_path / "check.json")])
    report = json.loads((tmp_path / "check.json").read_text())
    assert code == (0 if report["ready"] else 1)
    names = [finding["name"] for finding in report["findings"]]
    assert {"Python", "mujoco", "robosuite", "simulation", "rendering", "ONNX Runtime", "CPU cores"} <= set(names)
    output = capsys.readouterr().out
    for finding in report["findings"]:
        assert finding["name"] in output
        if not finding["ready"]:
            assert finding["remedy"]


def test_render_writes_pictures_and_videos(tmp_path: Path) -> None:
    arguments = ["render", "--task", "Lift", "--base", "hold", "--size", "160x120", "--step", "297"]
    for name, count in (("last.png", 1), ("end.mp4", 4), ("end.gif", 2)):
        report = tmp_path / "report.json"
        assert main([*arguments, "--out", str(tmp_path / name), "--json", str(report)]) == 0
        assert json.loads(report.read_text())["pictures"] == count
    assert imageio.imread(tmp_path / "last.png").shape == (120, 160, 3)
    assert imageio.imread(tmp_path / "end.mp4").shape == (4, 120, 160, 3)
    assert (tmp_path / "end.gif").read_bytes().startswith(b"GIF")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--out", "x.avi"], ".mp4"),
        (["--out", "x.png", "--camera", "moon"], "wrist"),
        (["--out", "x.png", "--seed", "500"], "0 to 499"),
        (["--out", "x.png", "--step", "301"], "301"),
    ],
)
def test_render_answers_mistakes(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["render", "--task", "Lift", *options]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_bench_measures_all_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BLOCKS", "STEPS", "STEPS_OF_WORLDS", "ROBOSUITE_STEPS", "FRESH_PROCESSES", "BASE_BLOCKS", "CHUNKS"):
        monkeypatch.setattr(bench, name, 1)
    assert main(["bench", "--task", "Stack", "--json", str(tmp_path / "bench.json")]) == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    (figures,) = result["tasks"]
    assert figures.pop("task") == "Stack"
    assert set(figures) == {
        "steps_per_second",
        "steps_per_second_n64",
        "physics_us",
        "overhead_us",
        "overhead_us_n64",
        "overhead_share",
        "overhead_share_n64",
        "reset_ms",
        "image_ms",
        "bc",
        "bc_n64",
        "vla",
        "vla_n64",
    }
    figures |= {key: result[key] for key in ("import_seconds", "gymnasium_import_seconds", "make_seconds")}
    if find_spec("robosuite"):
        figures["robosuite_ratio"] = result["robosuite_ratio"]
    else:
        assert "robosuite_ratio" not in result
    assert all(isinstance(value, float) for value in figures.values())
    assert "reach" in capsys.readouterr().out
