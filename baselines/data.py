"""Read demonstrations from files; prepare the samples of the multi-task policy, whose images stay on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from baselines import BaselineError, chunks
from baselines.chunks import FloatArray, Samples, samples_of
from demos_replay.demo import Demo
from demos_replay.writers.robomimic import read_demos
from oc_residual_gym.files import sha256, write_json
from oc_residual_gym.parsing import read_json
from oc_residual_gym.states import IntArray
from oc_residual_gym.syntax import file_hash
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.render import POLICY_CAMERAS, POLICY_IMAGE_SIZE

INSTRUCTION_BYTES = 64
ROW_STRIDE = 2
"""The multi-task policy trains on every second row (10 Hz), because neighbouring images are similar."""
MAX_OBJECTS = 2
_IMAGE_SHAPE = (len(POLICY_CAMERAS), *POLICY_IMAGE_SIZE, 3)


def file_hashes(files: Sequence[Path]) -> dict[str, str]:
    """File name to SHA-256.

    Raises:
        BaselineError: there are no files, a file does not exist, or two have the same name.
    """
    if not files:
        raise BaselineError("no demonstrations: give files that demos-replay wrote as --data FILE...")
    hashes: dict[str, str] = {}
    for file in files:
        if not file.is_file():
            raise BaselineError(f"there is no file {file}: give files that demos-replay wrote as --data FILE...")
        if file.name in hashes:
            raise BaselineError(f"two data files are called {file.name}: rename one")
        hashes[file.name] = sha256(file)
    return hashes


class DemoFiles:
    """Demonstrations of some tasks, in files written by demos-replay.

    Args:
        files: the files.
        tasks: names of the tasks.
        limit: number of demonstrations per task, the first ones; ``None`` for all.

    Raises:
        BaselineError: a file does not exist.
    """

    def __init__(self, files: Sequence[Path], tasks: Sequence[str], limit: int | None = None):
        self.files, self.tasks, self.limit = list(files), list(tasks), limit
        self.hashes = file_hashes(self.files)
        self.used: Counter[str] = Counter()
        """Task to number of demonstrations."""
        self.rows: Counter[str] = Counter()
        """Task to their number of control steps."""
        self.failed: Counter[str] = Counter()
        """Task to number of failed replays, which are left out."""

    def read(self, images: bool) -> Iterator[Demo]:
        """Read the successful demonstrations, and update the counters.

        Raises:
            BaselineError: a task has none, or ``images`` is true and one has no images.
        """
        for counter in (self.used, self.rows, self.failed):
            counter.clear()
        for file in self.files:
            for demo in read_demos(file, images):
                if demo.task not in self.tasks:
                    continue
                if not demo.success:
                    self.failed[demo.task] += 1
                    continue
                if self.limit is not None and self.used[demo.task] >= self.limit:
                    continue
                if images and set(demo.images) != set(POLICY_CAMERAS):
                    raise BaselineError(f"{file}: {demo.name} has no images: replay with images for this policy")
                self.used[demo.task] += 1
                self.rows[demo.task] += len(demo.target)
                yield demo
        missing = [task for task in self.tasks if not self.used[task]]
        if missing:
            names = ", ".join(map(str, self.files))
            raise BaselineError(f"no successful demonstration of {', '.join(missing)} in {names}")


@dataclass(frozen=True)
class VisualSamples:
    """Samples of all tasks for the multi-task policy."""

    samples: Samples
    """The states and chunks; ``demo`` is unique across tasks."""
    task: IntArray
    """(R,) index of the task."""
    instruction: np.ndarray
    """(R, 64) uint8, zero-padded UTF-8 bytes."""
    objects: FloatArray
    """(R, 2, 3) true positions of the task's objects in the base frame; NaN if it has only one."""
    images: np.ndarray
    """(R, 2, 128, 128, 3) uint8, memory-mapped from disk."""


def visual_samples(source: DemoFiles, folder: Path) -> VisualSamples:
    """Load the samples of ``source``; unpack them into ``folder`` first, unless they are there already."""
    wanted = {
        "files": source.hashes,
        "tasks": source.tasks,
        "stride": ROW_STRIDE,
        "code": [file_hash(Path(chunks.__file__)), file_hash(Path(__file__))],
    }
    marker = folder / "unpacked.json"
    if not (marker.exists() and read_json(marker)["from"] == wanted):
        marker.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(source, folder)
        counts = {name: dict(getattr(source, name)) for name in ("used", "rows", "failed")}
        write_json(marker, {"from": wanted, **counts})
    found = read_json(marker)
    for name in ("used", "rows", "failed"):
        counter = getattr(source, name)
        counter.clear()
        counter.update(found[name])
    with np.load(folder / "samples.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    images = np.memmap(folder / "images.u8", np.uint8, "r").reshape(-1, *_IMAGE_SHAPE)
    rest = {name: arrays.pop(name) for name in ("task", "instruction", "objects")}
    return VisualSamples(Samples(**arrays, carried={}), **rest, images=images)


def _unpack(source: DemoFiles, folder: Path) -> None:
    parts: list[dict[str, np.ndarray]] = []
    with open(folder / "images.u8", "wb") as file:
        demos = tqdm(source.read(images=True), desc="unpacking images", unit="demo", disable=None)
        for number, demo in enumerate(demos):
            samples = samples_of([demo])
            part = {name: values[::ROW_STRIDE] for name, values in samples.arrays.items()}
            rows = part["row"]
            part["demo"] = np.full(len(rows), number)
            part["task"] = np.full(len(rows), source.tasks.index(demo.task))
            part["instruction"] = np.repeat(instruction_bytes(demo.instruction)[None], len(rows), axis=0)
            part["objects"] = np.full((len(rows), MAX_OBJECTS, 3), np.nan, np.float32)
            for i, item in enumerate(TASKS[demo.task].objects):
                part["objects"][:, i] = demo.objects[item.name][rows, :3]
            file.write(np.stack([demo.images[camera][rows] for camera in POLICY_CAMERAS], axis=1).tobytes())
            parts.append(part)
    np.savez(folder / "samples.npz", **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def instruction_bytes(text: str) -> np.ndarray:
    """Zero-padded UTF-8 bytes (64,) of ``text``.

    Raises:
        BaselineError: ``text`` is longer.
    """
    data = text.encode()
    if len(data) > INSTRUCTION_BYTES:
        raise BaselineError(f"instruction {text!r} is longer than {INSTRUCTION_BYTES} bytes: shorten it")
    return np.frombuffer(data.ljust(INSTRUCTION_BYTES, b"\0"), np.uint8)
