"""Writers of datasets: nothing is lost, conventions agree with each other, no partial files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import h5py
import imageio.v3 as imageio
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from synthetic_demo import make_demo

from demos_replay.demo import Demo
from demos_replay.log import LogError
from demos_replay.writers import WriterError
from demos_replay.writers.lerobot import write_lerobot
from demos_replay.writers.minari import write_minari
from demos_replay.writers.robomimic import assemble, demo_names, read_demos, write_demos

CAMERAS = ("shoulder", "wrist")
EXACT = ("name", "task", "instruction", "success", "failure", "target", "reward", "gripper_closed", "qpos", "report")
ATTRS = {"synthetic": True, "command": ["demos-replay", "replay"], "source_sha256": "0" * 64}

WRITERS: dict[str, Callable[[Iterable[Demo], Path], object]] = {
    "robomimic": lambda demos, out: write_demos(out, demos, ATTRS),
    "lerobot": write_lerobot,
    "minari": lambda demos, out: write_minari(demos, f"{out.name}-v0", out.parent),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Iterable[Demo], Path], object]:
    if request.param != "robomimic":
        pytest.importorskip({"lerobot": "pyarrow", "minari": "minari"}[request.param])
    return WRITERS[request.param]


def assert_same(demo: Demo, expected: Demo) -> None:
    for name in (field.name for field in fields(Demo)):
        found, wanted = getattr(demo, name), getattr(expected, name)
        if name in ("objects", "images"):
            assert list(found) == list(wanted)
            for key in wanted:
                np.testing.assert_allclose(found[key], wanted[key], rtol=0, atol=1e-6, err_msg=f"{name}/{key}")
        elif name in EXACT:
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        else:
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6, err_msg=name)


# The robomimic file that a replay writes.


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    demos = [
        make_demo(0, cameras=CAMERAS),
        make_demo(1, steps=1, cameras=CAMERAS),
        make_demo(2, cameras=CAMERAS, success=False, failure="timeout: never lifted"),
    ]
    assert write_demos(tmp_path / "demos.hdf5", iter(demos), ATTRS) == 3
    read = read_demos(tmp_path / "demos.hdf5")
    assert isinstance(read, Iterator)
    for demo, expected in zip(read, demos, strict=True):
        assert_same(demo, expected)
    assert demo_names(tmp_path / "demos.hdf5") == [demo.name for demo in demos]


def test_images_need_not_be_read(tmp_path: Path) -> None:
    demo = make_demo(cameras=CAMERAS)
    write_demos(tmp_path / "demos.hdf5", [demo], ATTRS)
    assert_same(next(read_demos(tmp_path / "demos.hdf5", images=False)), replace(demo, images={}))


def test_conventions_of_one_quantity_agree(tmp_path: Path) -> None:
    demo = make_demo(3, cameras=CAMERAS)
    write_demos(tmp_path / "demos.hdf5", [demo], ATTRS)
    with h5py.File(tmp_path / "demos.hdf5") as file:
        group = file["data/demo_0"]
        actions = group["actions"][()]
        choices = {name: values[()] for name, values in group["action_dict"].items()}
        before = {name: values[()] for name, values in group["obs"].items()}
        after = {name: values[()] for name, values in group["next_obs"].items()}
    np.testing.assert_array_equal(actions, demo.target)
    assert np.abs(actions).max() <= 1.0
    for pose, quat, rows in (
        (choices["abs_pos"], choices["abs_quat"], choices["abs_rot_6d"]),
        (before["robot0_eef_pos"], before["robot0_eef_quat"], before["robot0_eef_rot_6d"]),
    ):
        matrices = Rotation.from_quat(quat).as_matrix()
        np.testing.assert_allclose(rows.reshape(-1, 2, 3), matrices[:, :2], atol=1e-6)
        assert pose.shape == (12, 3)
    same_action = np.concatenate([choices["abs_pos"], choices["abs_quat"], choices["gripper"]], axis=1)
    np.testing.assert_allclose(same_action, actions, atol=1e-6)
    np.testing.assert_array_equal(choices["joint_pos"], after["robot0_joint_pos"])
    np.testing.assert_allclose(after["robot0_previous_target"], actions, atol=1e-6)
    fingers = before["robot0_gripper_qpos"] @ [1.0, -1.0]
    np.testing.assert_allclose(fingers, 0.08 * before["robot0_gripper_opening"][:, 0], atol=1e-7)
    parts = [before[name] for name in ("plate_pos", "plate_quat", "block_pos", "block_quat")]
    np.testing.assert_array_equal(before["object"], np.concatenate(parts, axis=1))
    assert sorted(before) == sorted(after)
    assert {"shoulder_image", "wrist_image"} <= set(before)
    for name, values in before.items():
        np.testing.assert_array_equal(values[1:], after[name][:-1], err_msg=name)


def test_quaternions_do_not_jump_and_are_the_same_rotations(tmp_path: Path) -> None:
    smooth = make_demo(4)
    rng = np.random.default_rng(0)

    def flipped(values: np.ndarray) -> np.ndarray:
        result = values.copy()
        result[:, 3:7] *= rng.choice([-1.0, 1.0], len(values))[:, None]
        return result

    jumping = replace(
        smooth,
        tcp_pose=flipped(smooth.tcp_pose),
        target=flipped(smooth.target),
        objects={name: flipped(poses) for name, poses in smooth.objects.items()},
    )
    write_demos(tmp_path / "demos.hdf5", [jumping], ATTRS)
    assert_same(next(read_demos(tmp_path / "demos.hdf5")), smooth)


def test_where_it_comes_from_is_in_the_file(tmp_path: Path) -> None:
    write_demos(tmp_path / "demos.hdf5", [make_demo(0, steps=5), make_demo(1, steps=7)], ATTRS)
    with h5py.File(tmp_path / "demos.hdf5") as file:
        attrs = dict(file["data"].attrs)
    assert attrs["total"] == 12
    assert json.loads(attrs["env_args"])["env_name"] == "OCResidual-PickPlace-v0"
    assert attrs["synthetic"]
    assert json.loads(attrs["command"]) == ATTRS["command"]
    assert attrs["source_sha256"] == ATTRS["source_sha256"]
    assert json.loads(attrs["versions"])["mujoco"]


def test_failures_are_never_done_and_not_in_training_sets(tmp_path: Path) -> None:
    failed = {3, 17}
    demos = [make_demo(i, steps=3, success=i not in failed) for i in range(24)]
    write_demos(tmp_path / "demos.hdf5", demos, ATTRS)
    with h5py.File(tmp_path / "demos.hdf5") as file:
        masks = {name: {key.decode() for key in values[()]} for name, values in file["mask"].items()}
        dones = [file[f"data/demo_{i}/dones"][()].tolist() for i in range(24)]
    assert masks["failed"] == {f"demo_{i}" for i in failed}
    assert masks["train"] | masks["valid"] == masks["successful"] == {f"demo_{i}" for i in set(range(24)) - failed}
    assert not masks["train"] & masks["valid"]
    assert len(masks["valid"]) == 2
    assert all(done == [0, 0, int(i not in failed)] for i, done in enumerate(dones))


@pytest.mark.parametrize(("count", "valid"), [(1, 0), (2, 1), (10, 1), (50, 5)])
def test_train_is_never_empty(tmp_path: Path, count: int, valid: int) -> None:
    write_demos(tmp_path / "demos.hdf5", [make_demo(i, steps=1) for i in range(count)], ATTRS)
    with h5py.File(tmp_path / "demos.hdf5") as file:
        assert len(file["mask/train"]) == count - valid
        assert len(file["mask"].get("valid", ())) == valid


def test_parts_assemble_to_the_same_dataset(tmp_path: Path) -> None:
    demos = [make_demo(i, steps=2, cameras=CAMERAS) for i in range(11)]
    parts = [tmp_path / f"part_{i}.hdf5" for i in range(11)]
    for part, demo in zip(parts, demos, strict=True):
        write_demos(part, [demo], {})
    assert assemble(tmp_path / "whole.hdf5", parts, ATTRS) == 11
    write_demos(tmp_path / "at_once.hdf5", demos, ATTRS)
    for demo, expected in zip(read_demos(tmp_path / "whole.hdf5"), demos, strict=True):
        assert_same(demo, expected)
    with h5py.File(tmp_path / "whole.hdf5") as whole, h5py.File(tmp_path / "at_once.hdf5") as at_once:
        assert dict(whole["data"].attrs) == dict(at_once["data"].attrs)
        np.testing.assert_array_equal(whole["mask/train"][()], at_once["mask/train"][()])


# Foreign or damaged files.


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _drop(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file[name]

    return change


def _set(name: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "a") as file:
            file["data"].attrs[name] = value

    return change


def _link(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/extra"] = h5py.ExternalLink("/etc/hostname", "/")


def _spoil(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/robot0_joint_pos"][3] = np.nan


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("no HDF5"), "not HDF5"),
        (_truncate, "cut off or damaged"),
        (_drop("data"), "was not written by demos-replay"),
        (_set("schema", "else"), "was not written by demos-replay"),
        (_set("version", 99), "version 99"),
        (_link, "is an external link"),
        (_spoil, "not finite"),
        (_drop("data/demo_0/actions"), "demo_0.*actions is missing"),
        (_drop("data/demo_0/obs/robot0_eef_pos"), "demo_0.*robot0_eef_pos is missing"),
        (_drop("data/demo_0/next_obs/wrist_image"), "demo_0.*wrist_image"),
    ],
)
def test_files_that_cannot_be_read_give_the_reason(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    path = tmp_path / "demos.hdf5"
    write_demos(path, [make_demo(cameras=CAMERAS)], ATTRS)
    damage(path)
    with pytest.raises(LogError, match=f"(?s){path.name}.*{reason}"):
        list(read_demos(path))


# Every writer.


def test_an_interrupted_writer_leaves_nothing_behind(tmp_path: Path, write: Callable[..., object]) -> None:
    def interrupted() -> Iterator[Demo]:
        yield make_demo(0, cameras=CAMERAS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(interrupted(), tmp_path / "demos")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_writer_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "demos.hdf5"
    write_demos(path, [make_demo(0)], ATTRS)
    with pytest.raises(WriterError):
        write_demos(path, [make_demo(1), make_demo(1)], ATTRS)
    assert demo_names(path) == [make_demo(0).name]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("demos", "reason"),
    [
        ([], "no demonstrations"),
        ([make_demo(0), make_demo(1, steps=0)], "log1/demo_1 has no steps"),
        ([make_demo(0, reward=np.full(12, np.nan))], "log0/demo_1 has entries in reward"),
        ([make_demo(0, wrench=np.full((13, 6), np.inf))], "log0/demo_1 has entries in eef_wrench"),
    ],
)
def test_what_cannot_be_written_gives_the_reason(
    tmp_path: Path, write: Callable[..., object], demos: list[Demo], reason: str
) -> None:
    with pytest.raises(WriterError, match=reason):
        write(demos, tmp_path / "demos")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", ["lerobot", "minari"], indirect=True)
def test_datasets_in_folders_are_uniform_and_never_overwritten(tmp_path: Path, write: Callable[..., object]) -> None:
    with pytest.raises(WriterError, match=r"log1/demo_1 has .*images"):
        write([make_demo(0, cameras=CAMERAS), make_demo(1)], tmp_path / "demos")
    write([make_demo(0)], tmp_path / "demos")
    with pytest.raises(WriterError, match="exists already"):
        write([make_demo(1)], tmp_path / "demos")


@pytest.mark.parametrize(
    ("write", "package"), [("lerobot", "pyarrow.parquet"), ("minari", "minari")], indirect=["write"]
)
def test_a_missing_package_is_named(
    tmp_path: Path, write: Callable[..., object], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WriterError, match=r"pip install 'oc-residual-gym\[datasets\]'"):
        write([make_demo()], tmp_path / "demos")


def test_minari_ids_are_checked_and_its_folder_setting_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", "/somewhere/else")
    for wrong in ("no-version", "../up-v0", "/root-v0", ""):
        with pytest.raises(WriterError, match="not an id of a Minari dataset"):
            write_minari([make_demo()], wrong, tmp_path)
    write_minari([make_demo()], "lift/twin-v0", tmp_path)
    assert os.environ["MINARI_DATASETS_PATH"] == "/somewhere/else"
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    with pytest.raises(WriterError):
        write_minari([make_demo(0), make_demo(1, steps=0)], "lift/twin-v1", tmp_path)
    assert "MINARI_DATASETS_PATH" not in os.environ


# LeRobot's folder.


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Demo]]:
    pytest.importorskip("pyarrow")
    demos = [
        make_demo(0, steps=25, cameras=CAMERAS),
        make_demo(1, steps=3, cameras=CAMERAS, instruction="close the drawer"),
        make_demo(2, steps=7, cameras=CAMERAS, success=False),
    ]
    out = tmp_path_factory.mktemp("lerobot") / "demos"
    assert write_lerobot(demos, out) == 3
    return out, demos


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _table(out: Path, episode: int) -> dict[str, np.ndarray]:
    from pyarrow import parquet

    table = parquet.read_table(out / f"data/chunk-000/episode_{episode:06d}.parquet")
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def test_lerobot_says_what_is_there(lerobot: tuple[Path, list[Demo]]) -> None:
    out, demos = lerobot
    info = json.loads((out / "meta/info.json").read_text())
    assert info["codebase_version"] == "v2.1"
    assert info["fps"] == 20
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"], info["total_videos"]) == (3, 35, 2, 6)
    named = set()
    for episode in range(info["total_episodes"]):
        chunk = {"episode_chunk": episode // info["chunks_size"], "episode_index": episode}
        named.add(out / info["data_path"].format(**chunk))
        for key, feature in info["features"].items():
            if feature["dtype"] == "video":
                named.add(out / info["video_path"].format(video_key=key, **chunk))
    assert named == {path for path in out.rglob("*") if path.is_file() and "meta" not in path.parts}
    tasks = {line["task_index"]: line["task"] for line in _lines(out / "meta/tasks.jsonl")}
    episodes = _lines(out / "meta/episodes.jsonl")
    first = 0
    for demo, episode in zip(demos, episodes, strict=True):
        table = _table(out, episode["episode_index"])
        steps = len(demo.target)
        assert set(table) == {key for key, feature in info["features"].items() if feature["dtype"] != "video"}
        assert episode["length"] == steps == len(table["action"])
        assert episode["tasks"] == [tasks[i] for i in set(table["task_index"])] == [demo.instruction]
        assert (episode["name"], episode["success"], episode["report"]) == (demo.name, demo.success, demo.report)
        np.testing.assert_array_equal(table["annotation.human.action.task_description"], table["task_index"])
        np.testing.assert_array_equal(table["index"], first + np.arange(steps))
        np.testing.assert_allclose(table["timestamp"], np.arange(steps) / 20, rtol=1e-6)
        assert table["next.done"].tolist() == [False] * (steps - 1) + [True]
        assert table["next.success"].tolist() == [False] * (steps - 1) + [demo.success]
        first += steps


def test_gr00t_finds_every_quantity_under_its_name(lerobot: tuple[Path, list[Demo]]) -> None:
    out, demos = lerobot
    modality = json.loads((out / "meta/modality.json").read_text())
    info = json.loads((out / "meta/info.json").read_text())
    for episode, demo in enumerate(demos):
        table = _table(out, episode)
        for column, kind, poses, joints, opening in (
            ("observation.state", "state", demo.tcp_pose, demo.joint_positions, demo.gripper_width / 0.08),
            ("action", "action", demo.target, demo.joint_positions[1:], demo.target[:, 7]),
        ):
            rows = len(demo.target)
            part = {name: table[column][:, s["start"] : s["end"]] for name, s in modality[kind].items()}
            rotation = Rotation.from_quat(poses[:rows, 3:7]).as_matrix()[:, :2].reshape(-1, 6)
            wanted = {
                "eef_position": poses[:rows, :3],
                "eef_quaternion": poses[:rows, 3:7],
                "eef_rotation_6d": rotation,
                "eef_9d": np.concatenate([poses[:rows, :3], rotation], axis=1),
                "joint_position": joints[:rows],
                "gripper_position": opening[:rows, None],
            }
            assert set(part) == set(wanted)
            for name, values in wanted.items():
                np.testing.assert_allclose(part[name], values, rtol=1e-6, atol=1e-6, err_msg=f"{kind} {name}")
    assert {entry["original_key"] for entry in modality["video"].values()} <= set(info["features"])
    for name, entry in modality["annotation"].items():
        assert entry.get("original_key", f"annotation.{name}") in info["features"]


def test_lerobot_statistics_are_those_of_the_data(lerobot: tuple[Path, list[Demo]]) -> None:
    out, demos = lerobot
    tables = [_table(out, episode) for episode in range(3)]
    whole = json.loads((out / "meta/stats.json").read_text())
    actions = np.concatenate([table["action"] for table in tables])
    np.testing.assert_allclose(whole["action"]["mean"], actions.mean(0), atol=1e-9)
    np.testing.assert_allclose(whole["action"]["std"], actions.std(0), atol=1e-9)
    np.testing.assert_allclose(whole["action"]["q99"], np.quantile(actions, 0.99, axis=0), atol=1e-9)
    assert whole["action"]["count"] == [35]
    for line, table, demo in zip(_lines(out / "meta/episodes_stats.jsonl"), tables, demos, strict=True):
        for name, values in table.items():
            np.testing.assert_allclose(line["stats"][name]["max"], np.atleast_1d(values.max(0)), err_msg=name)
        scaled = demo.images["wrist"][:-1] / 255.0
        found = line["stats"]["observation.images.wrist"]
        for name, value in {"mean": scaled.mean((0, 1, 2)), "std": scaled.std((0, 1, 2))}.items():
            np.testing.assert_allclose(found[name], value[:, None, None], atol=1e-9)
        np.testing.assert_allclose(found["min"], scaled.min((0, 1, 2))[:, None, None])


@pytest.mark.parametrize("camera", CAMERAS)
def test_videos_show_the_picture_of_each_row(lerobot: tuple[Path, list[Demo]], camera: str) -> None:
    out, demos = lerobot
    for episode, demo in enumerate(demos):
        path = out / f"videos/chunk-000/observation.images.{camera}/episode_{episode:06d}.mp4"
        shown = imageio.imread(path, plugin="FFMPEG")
        wanted = demo.images[camera][:-1]
        assert shown.shape == wanted.shape
        # Lossy: within 3 of 255 on average; the image of a neighbouring row is farther away.
        assert np.abs(shown - wanted.astype(float)).mean() < 3.0
        assert np.abs(shown[1:] - wanted[:-1].astype(float)).mean() > 6.0


def test_lerobot_without_images_has_no_videos(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    write_lerobot([make_demo()], tmp_path / "demos")
    assert not (tmp_path / "demos/videos").exists()
    assert json.loads((tmp_path / "demos/meta/info.json").read_text())["video_path"] is None
