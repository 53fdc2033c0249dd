"""Checkpoints, from which an interrupted training resumes: atomic folders with model, replay buffer and progress."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from baselines import BaselineError
from baselines.residual.algorithms.base import Algorithm
from oc_residual_gym.files import Record, write_json
from oc_residual_gym.parsing import read_json

MODEL_FILE, BUFFER_FILE, PROGRESS_FILE = "model.zip", "replay_buffer.pkl", "progress.json"


@dataclass
class Progress:
    """Progress of a training, in addition to the model's own counters."""

    commit: str | None = None
    """Git commit of this package when the training began."""
    seconds: float = 0.0
    curve: list[Record] = field(default_factory=list)
    """One record per evaluation."""


def save(algorithm: Algorithm, model: Any, progress: Progress, out: Path) -> None:
    """Write a checkpoint into ``out``, then remove older ones."""
    temporary = out / ".checkpoint.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    model.save(temporary / MODEL_FILE)
    if algorithm.replays:
        model.save_replay_buffer(temporary / BUFFER_FILE)
    write_json(temporary / PROGRESS_FILE, asdict(progress))
    older = sorted(out.glob("checkpoint-*"))
    folder = out / f"checkpoint-{model.num_timesteps:012d}"
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    for checkpoint in older:
        if checkpoint != folder:
            shutil.rmtree(checkpoint)


def load(algorithm: Algorithm, worlds: VecEnv, out: Path) -> tuple[BaseAlgorithm, Progress] | None:
    """Load the newest checkpoint in ``out``; ``None`` if there is none.

    Raises:
        BaselineError: it cannot be read.
    """
    checkpoints = sorted(out.glob("checkpoint-*"))
    if not checkpoints:
        return None
    folder = checkpoints[-1]
    try:
        model: Any = algorithm.model.load(folder / MODEL_FILE, env=worlds, device="cpu")
        if algorithm.replays:
            model.load_replay_buffer(folder / BUFFER_FILE)
            _cut(model.replay_buffer)
        return model, Progress(**read_json(folder / PROGRESS_FILE))
    except Exception as error:  # whatever a damaged zip file, pickle or JSON file raises
        raise BaselineError(f"{folder} is damaged ({error!r}): remove it to begin this training anew") from error


def drop_buffer(out: Path) -> None:
    """Remove the replay buffer, which a finished training no longer needs."""
    for file in out.glob(f"checkpoint-*/{BUFFER_FILE}"):
        file.unlink()


def _cut(buffer: ReplayBuffer) -> None:
    """Mark the running episodes as truncated: new ones follow in the buffer, and n-step returns must not cross over."""
    last = buffer.pos - 1
    running = buffer.dones[last] == 0
    buffer.dones[last][running] = buffer.timeouts[last][running] = 1
