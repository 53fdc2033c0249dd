"""LeRobot datasets of version 2.1 with GR00T's ``modality.json``, the layout that most training codes of VLA policies
read.

``observation.state`` and ``action`` (21,) float32 have the same slices; the state is measured before the step, the
action is the target executed in it (``columns`` has units and conventions):

    0:3    TCP position          9:13   TCP quaternion xyzw
    3:9    TCP rotation, 6-D     13:20  joint positions (of the action: those reached by the step)
                                 20:21  gripper opening

Other columns: ``observation.images.<camera>`` (H.264 video), ``next.reward``, ``next.done``, ``next.success``, and
``annotation.human.action.task_description``, an index into tasks.jsonl like ``task_index``. The 20 Hz rows are those of
steps 0 to T - 1; the state after the last step is not in the dataset. episodes.jsonl also keeps each demonstration's
name, success and report.

What each training code reads:

- GR00T: the keys of modality.json. eef_9d (0:9), gripper_position and joint_position are named and laid out as those of
  its DROID embodiment, a Franka too (whose gripper, though, is 1 for closed); relative end-effector actions need
  exactly this 9-D pose. Its loader needs stats.json, which is written here; its tools add relative_stats.json.
- openpi (pi0, pi0.5): a data transform picks slices, for example 13:21 of both (joints and gripper, as for DROID), and
  ``DeltaActions`` makes joint targets relative; the images are shoulder (base) and wrist.
- SmolVLA, ACT and Diffusion Policy of LeRobot: ``observation.state``, ``action`` and all images as they are; 21 entries
  fit SmolVLA's 32. What they predict is redundant: execute one part of it, 0:9 with 20, or 13:21.
- robomimic: the HDF5 file that this dataset was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np

from demos_replay.demo import Demo
from demos_replay.writers import WriterError, optional_module, refuse_existing, written_whole
from demos_replay.writers.columns import check_demo, robot_columns, target_columns
from demos_replay.writers.statistics import Table, of_columns, of_dataset, of_pictures
from oc_residual_gym.states import CONTROL_FREQUENCY

CODEBASE_VERSION = "v2.1"
FPS = int(CONTROL_FREQUENCY)
CHUNK = 1000
"""Episodes per folder."""
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
INSTRUCTION = "annotation.human.action.task_description"

SLICES = {
    "eef_9d": (0, 9),
    "eef_position": (0, 3),
    "eef_rotation_6d": (3, 9),
    "eef_quaternion": (9, 13),
    "joint_position": (13, 20),
    "gripper_position": (20, 21),
}
"""Slices of ``observation.state`` and ``action``, by their names in modality.json."""
NAMES = (
    *(f"eef_{axis}" for axis in "xyz"),
    *(f"eef_row{row}_{axis}" for row in (1, 2) for axis in "xyz"),
    *(f"eef_q{axis}" for axis in "xyzw"),
    *(f"joint_{i}" for i in range(1, 8)),
    "gripper_opening",
)
SCALARS = {
    "next.reward": "float32",
    "next.done": "bool",
    "next.success": "bool",
    INSTRUCTION: "int64",
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Columns with one number per row, and their types."""
ENCODING: dict[str, Any] = {
    "codec": "libx264",
    "pixelformat": "yuv420p",
    "macro_block_size": 2,
    "quality": None,
    # Every other frame is a key frame and none depends on a later one: random access decodes two frames at most.
    "output_params": ["-crf", "18", "-g", "2", "-bf", "0"],
}


def write_lerobot(demos: Iterable[Demo], out: Path) -> int:
    """Write ``demos`` as a dataset to the new folder ``out``; the images of only one are in memory at a time.

    Returns:
        Number of demonstrations written.

    Raises:
        WriterError: PyArrow is not installed, ``out`` exists, there are no demonstrations, or one has no steps, entries
            that are not finite, or other cameras than the first.
    """
    optional_module("pyarrow.parquet")
    refuse_existing(out)
    with written_whole(out) as root:
        dataset = _Dataset(root)
        for demo in demos:
            dataset.add(check_demo(demo))
        dataset.finish()
    return len(dataset.episodes)


@dataclass
class _Dataset:
    """State of a dataset while it is being written to ``root``."""

    root: Path
    tasks: dict[str, int] = field(default_factory=dict)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    statistics: list[dict[str, Any]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    """Numeric features of all episodes, for the quantiles of the dataset."""
    frames: int = 0
    pictures: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Camera name to the shape of its images."""

    def add(self, demo: Demo) -> None:
        episode = len(self.episodes)
        pictures = {camera: images.shape[1:] for camera, images in demo.images.items()}
        if episode == 0:
            self.pictures = pictures
        elif pictures != self.pictures:
            raise WriterError(
                f"{demo.name} has images {pictures}, the first demonstration {self.pictures}; "
                "write them to datasets of their own"
            )
        task = self.tasks.setdefault(demo.instruction, len(self.tasks))
        table = _table(demo, episode, task, self.frames)
        self._write_parquet(table, episode)
        statistics = {name: of_columns(values) for name, values in table.items()}
        for camera, images in demo.images.items():
            path = self.root / VIDEO_PATH.format(
                episode_chunk=episode // CHUNK, episode_index=episode, video_key=_video_key(camera)
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            imageio.imwrite(path, images[:-1], plugin="FFMPEG", fps=FPS, **ENCODING)
            statistics[_video_key(camera)] = of_pictures(images[:-1])
        self.statistics.append({"episode_index": episode, "stats": statistics})
        origin = {"name": demo.name, "success": demo.success, "report": dict(demo.report)}
        self.episodes.append(
            {"episode_index": episode, "tasks": [demo.instruction], "length": len(demo.target), **origin}
        )
        self.tables.append(table)
        self.frames += len(demo.target)

    def finish(self) -> None:
        if not self.episodes:
            raise WriterError("there are no demonstrations to write")
        meta = self.root / "meta"
        meta.mkdir()
        _write_json(meta / "info.json", self._info())
        _write_json(meta / "modality.json", _modality(self.pictures))
        _write_json(meta / "stats.json", of_dataset(self.tables))
        _write_lines(meta / "episodes.jsonl", self.episodes)
        _write_lines(meta / "episodes_stats.jsonl", self.statistics)
        _write_lines(meta / "tasks.jsonl", ({"task_index": i, "task": task} for task, i in self.tasks.items()))

    def _write_parquet(self, table: Table, episode: int) -> None:
        arrow, parquet = optional_module("pyarrow"), optional_module("pyarrow.parquet")

        def column(values: np.ndarray) -> Any:
            if values.ndim == 1:
                return arrow.array(values)
            return arrow.FixedSizeListArray.from_arrays(arrow.array(values.ravel()), values.shape[1])

        path = self.root / DATA_PATH.format(episode_chunk=episode // CHUNK, episode_index=episode)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.table({name: column(values) for name, values in table.items()}), path)

    def _info(self) -> dict[str, Any]:
        episodes = len(self.episodes)
        vector = {"dtype": "float32", "shape": [len(NAMES)], "names": list(NAMES)}
        features: dict[str, Any] = {"observation.state": vector, "action": vector}
        features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in SCALARS.items()}
        for camera, shape in self.pictures.items():
            features[_video_key(camera)] = {
                "dtype": "video",
                "shape": list(shape),
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": shape[0],
                    "video.width": shape[1],
                    "video.codec": "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": FPS,
                    "video.channels": shape[2],
                    "has_audio": False,
                },
            }
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": "fr3",
            "total_episodes": episodes,
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "total_videos": episodes * len(self.pictures),
            "total_chunks": -(-episodes // CHUNK),
            "chunks_size": CHUNK,
            "fps": FPS,
            "splits": {"train": f"0:{episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.pictures else None,
            "features": features,
        }


def _table(demo: Demo, episode: int, task: int, first: int) -> Table:
    """Columns of an episode that starts in row ``first`` of the dataset."""
    steps = len(demo.target)
    state, target = robot_columns(demo), target_columns(demo)
    states = [state[name] for name in ("eef_pos", "eef_rot_6d", "eef_quat", "joint_pos", "gripper_opening")]
    actions = [target[name] for name in ("pos", "rot_6d", "quat", "joint_pos", "gripper")]
    frame = np.arange(steps)
    last = frame == steps - 1
    scalars = {
        "next.reward": demo.reward,
        "next.done": last,
        "next.success": last & demo.success,
        INSTRUCTION: np.full(steps, task),
        "timestamp": frame / FPS,
        "frame_index": frame,
        "episode_index": np.full(steps, episode),
        "index": first + frame,
        "task_index": np.full(steps, task),
    }
    return {
        "observation.state": np.concatenate(states, axis=1)[:-1].astype(np.float32),
        "action": np.concatenate(actions, axis=1).astype(np.float32),
        **{name: values.astype(SCALARS[name]) for name, values in scalars.items()},
    }


def _video_key(camera: str) -> str:
    return f"observation.images.{camera}"


def _modality(cameras: Iterable[str]) -> dict[str, Any]:
    slices: dict[str, Any] = {name: {"start": start, "end": end} for name, (start, end) in SLICES.items()}
    # Quaternions are written without their type: GR00T versions that convert it assume that w is the first entry.
    slices["eef_rotation_6d"]["rotation_type"] = "rotation_6d"
    return {
        "state": slices,
        "action": {name: {**entry, "absolute": True} for name, entry in slices.items()},
        "video": {camera: {"original_key": _video_key(camera)} for camera in cameras},
        "annotation": {
            INSTRUCTION.removeprefix("annotation."): {},
            "human.task_description": {"original_key": "task_index"},
        },
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
