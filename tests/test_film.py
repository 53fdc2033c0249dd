"""``python -m baselines film``: the base policy alone and under a residual, side by side."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image
from policy_files import write_residual

from baselines import film
from baselines.cli import main
from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import RenderError
from oc_residual_gym.evaluation.evaluator import evaluate
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.worlds import opengl
from oc_residual_gym.worlds.opengl import gl_context
from oc_residual_gym.worlds.render import free_renderers

SIZE = (60, 160)
EPISODES = 2


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "SIZE", SIZE)


@pytest.fixture
def _opengl() -> None:
    try:
        gl_context(8, 8).free()
    except RenderError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of a residual policy that returns zeros."""
    worlds = ResidualWorlds("Lift", 1)
    size = worlds.observation_layout[-1].stop
    worlds.close()
    return write_residual(tmp_path_factory.mktemp("policies") / "Lift.onnx", size, 0.0)


@pytest.fixture(scope="module")
def compared(residual: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a comparison leaves: in no episode does the expert that is off succeed, alone or under the zeros."""
    folder = tmp_path_factory.mktemp("compared")
    for name, policy in (("alone", "zero"), ("corrected", residual), ("oracle", "oracle")):
        settings = EvaluationSettings(("Lift",), "expert-offset", policy, "twin", "tracker", "val", EPISODES)
        evaluate(settings, folder / "runs" / name)
    return folder


def make(out: Path, residual: str, *options: str) -> int:
    arguments = ["--task", "Lift", "--base", "expert-offset", "--residual", residual, "--split", "val"]
    return main(["film", *arguments, "--out", str(out), *options])


def frames(path: Path) -> list[Image.Image]:
    with Image.open(path) as video:
        shown = []
        for i in range(video.n_frames):
            video.seek(i)
            shown.append(video.convert("RGB"))
    return shown


def lines_at_the_end(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3) of the lines under the left and the right scene, in the last picture."""
    last = np.asarray(frames(path)[-1])
    line = last[film.BAR + SIZE[0] : -film.BAR]
    return line[:, : SIZE[1]].reshape(-1, 3), line[:, SIZE[1] + 2 :].reshape(-1, 3)


def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Is there a pixel of about this colour?"""
    return bool((np.abs(pixels.astype(int) - colour).max(axis=1) < 20).any())


@pytest.mark.usefixtures("_opengl")
def test_base_fails_on_the_left_and_the_residual_succeeds_on_the_right(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "lift.gif"
    assert make(out, "oracle", "--compared", str(compared), "--speed", "20") == 0
    said = capsys.readouterr().out
    assert "seed 0; expert-offset alone: failed: block not reached" in said
    assert "expert-offset + oracle residual: success after " in said
    shown = frames(out)
    assert len(shown) > 5
    assert shown[0].size == (2 * SIZE[1] + 2, SIZE[0] + 3 * film.BAR)
    assert np.asarray(shown[0])[film.BAR : film.BAR + SIZE[0]].std() > 10
    left, right = lines_at_the_end(out)
    assert has(left, film.RED) and not has(left, film.GREEN)
    assert has(right, film.GREEN) and not has(right, film.RED)
    assert [file.name for file in out.parent.iterdir()] == ["lift.gif"]


@pytest.mark.usefixtures("_opengl")
def test_zeros_show_the_same_episode_twice_at_any_speed(residual: str, tmp_path: Path) -> None:
    lengths = {}
    for speed in (20, 40):
        path = tmp_path / f"{speed}.mp4"
        assert make(path, residual, "--seed", "1", "--speed", str(speed)) == 0
        shown = imageio.imread(path).astype(int)
        lengths[speed] = len(shown)
        scenes = shown[:, film.BAR : film.BAR + SIZE[0]]
        left, right = scenes[:, :, : SIZE[1]], scenes[:, :, SIZE[1] + 2 :]
        assert np.abs(left - right).mean() < 3  # but for compression
        assert np.abs(scenes[-1] - scenes[0]).max() > 50
    hold = round(film.HOLD * 20)
    assert lengths == {20: 300 // 20 + 1 + hold, 40: -(-300 // 40) + 1 + hold}


@pytest.mark.usefixtures("_opengl")
@pytest.mark.parametrize(("name", "close_up"), [("PegInsert", True), ("Lift", False)])
def test_the_decisive_object_is_shown_close_up(name: str, close_up: bool) -> None:
    side = film._Side("base", EvaluationSettings((name,), "hold", "zero"), 0)
    window = film._window(side.core)
    picture = np.asarray(side.picture(window))[film.BAR : film.BAR + SIZE[0]]
    corner = picture[:, :30] if window.close_up_is_left else picture[:, -30:]
    assert has(corner[0], film.QUIET) is close_up
    inside = corner[film.BORDER : round(film.CLOSE_UP * SIZE[0])].reshape(-1, 3)
    assert (inside[:, 2] > 1.5 * inside[:, 0]).any() or not close_up  # the block with the hole is blue


def test_where_nothing_is_fixed_there_is_nothing_to_show(
    residual: str, compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path / "x.gif", residual, "--compared", str(compared)) == 2
    error = capsys.readouterr().err
    assert f"among the {EPISODES}" in error and "fails in 2" in error and "--seed" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", "500"], "0 to 499"),
        (["--seed", "0", "--out", "x.avi"], ".mp4, .gif"),
        (["--seed", "0", "--task", "Juggle"], "PegInsert"),
        (["--seed", "0", "--residual", "missing.onnx"], "missing.onnx"),
        (["--seed", "0", "--task", "CloseDrawer"], "observation"),
        (["--compared", "COMPARED", "--errors", "paper"], "no episodes of these policies"),
        (["--compared", "missing"], "missing has no episodes"),
    ],
)
def test_mistakes_are_answered(
    residual: str,
    compared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(compared) if option == "COMPARED" else option for option in options]
    assert make(Path("x.gif"), residual, *given) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("baselines film: ")
    assert named in error
    assert not list(tmp_path.iterdir())


def test_it_must_be_told_which_episode(residual: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        make(Path("x.gif"), residual)
    assert stopped.value.code == 2
    assert "one of the arguments --seed --compared is required" in capsys.readouterr().err


def test_without_opengl_it_says_what_to_install(
    residual: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(width: int, height: int) -> None:
        raise RenderError("cannot render: apt-get install libegl1")

    free_renderers()
    monkeypatch.setattr(opengl, "gl_context", missing)
    assert make(tmp_path / "x.gif", residual, "--seed", "0") == 2
    assert "baselines film: cannot render: apt-get install libegl1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
