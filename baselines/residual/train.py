"""``train-residual``: train one residual policy, and write it to an ONNX file with a report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecMonitor
from tqdm import tqdm

import baselines
from baselines.residual import POLICY_FILE, REPORT_FILE, checkpoints
from baselines.residual.algorithms import load_algorithm
from baselines.residual.algorithms.base import Algorithm
from baselines.residual.checkpoints import Progress
from baselines.residual.curve import write_curve
from baselines.residual.export import export_residual
from baselines.residual.settings import Settings, load_settings
from baselines.residual.worlds import TrainingWorlds
from oc_residual_gym.errors import RenderError, SettingsError
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.evaluation.episodes import cells
from oc_residual_gym.evaluation.provenance import NOT_SIMULATION, SIMULATION
from oc_residual_gym.evaluation.rollout import run_rows
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.files import Record, alone, claim, sha256, write_json
from oc_residual_gym.policies.versions import NEWEST
from oc_residual_gym.syntax import file_hash, imported_files

ROOT = Path(baselines.__file__).parents[1]
CHECKPOINT_SECONDS = 300.0
EVALUATIONS = 10
"""Number of evaluations on val during a training, for information only: no choice depends on them."""
EVALUATION_EPISODES = 50
IDENTITY_FILE, SNAPSHOT_FILE = "training.json", "snapshot.onnx"
"""Files with the identity of a training, and with the last evaluated policy; the final policy is written at the end."""


@dataclass(frozen=True)
class TrainResidualRequest:
    """Arguments of ``train-residual``."""

    task: str
    base: str
    algorithm: str
    seed: int
    out: Path
    command: str
    teacher: str = "none"
    """"planner", "oracle", or "none"."""
    steps: int | None = None
    """Environment steps; ``None`` for those in the settings."""
    threads: int = 1


def train_residual(request: TrainResidualRequest) -> Path:
    """Train as ``request`` says, or resume an interrupted run of it; return the ONNX file.

    A finished training is left unchanged.

    Raises:
        BaselineError: a checkpoint is damaged.
        SettingsError: the folder holds another training, another process trains in it, there is no such task or base
            policy, or the policy's server is lost.
    """
    evaluation = EvaluationSettings((request.task,), request.base, episodes=EVALUATION_EPISODES)
    settings = load_settings(request.algorithm, request.task, request.base, request.teacher, request.steps)
    identity = _identity(request, settings, evaluation)
    with alone(request.out):
        claim(request.out, IDENTITY_FILE, identity)
        if not (request.out / REPORT_FILE).exists():
            _train(request, settings, evaluation, identity)
    return request.out / POLICY_FILE


def _train(request: TrainResidualRequest, settings: Settings, evaluation: EvaluationSettings, identity: Record) -> None:
    """Train from the last checkpoint to the end; write the policy and its report."""
    torch.set_num_threads(request.threads)
    algorithm = load_algorithm(request.algorithm)
    with _worlds_of(request, settings) as worlds:
        model, progress = _start(request, algorithm, settings, worlds)
        follower = _Follower(request, algorithm, settings, evaluation, progress)
        if model.num_timesteps < settings.steps:
            model.learn(settings.steps - model.num_timesteps, follower, reset_num_timesteps=False)
            follower.evaluate()
            follower.save()
        path, difference = export_residual(
            algorithm.actor(model),
            worlds.observation_layout,
            settings,
            worlds.hidden,
            request.out / POLICY_FILE,
            identity,
        )
    warm_up = settings.start["critic_updates"] if settings.teaching is None else 0
    if algorithm.updates(model) <= warm_up:
        print(f"{path} has learned nothing: {settings.steps} steps ended before the first update of the actor")
    report = {
        **identity,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "onnx_difference": difference,
        "steps": model.num_timesteps,
        "updates": algorithm.updates(model),
        "minutes": round(progress.seconds / 60.0, 2),
        "curve": progress.curve,
        "command": request.command,
        "threads": request.threads,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": progress.commit,
    }
    write_json(request.out / REPORT_FILE, report)
    checkpoints.drop_buffer(request.out)


@contextmanager
def _worlds_of(request: TrainResidualRequest, settings: Settings) -> Iterator[TrainingWorlds]:
    """Context with the training worlds. Raises ``SettingsError`` if the base policy cannot act in them."""
    try:
        worlds = TrainingWorlds(request.task, request.base, settings, request.teacher, request.threads)
        worlds.reset()
    except SettingsError:
        raise
    except (ValueError, RenderError) as error:  # no server, no OpenGL, a file made for another task
        raise SettingsError(f"base policy {request.base!r} cannot act in {request.task}: {error}") from error
    try:
        yield worlds
    finally:
        worlds.close()


def _identity(request: TrainResidualRequest, settings: Settings, evaluation: EvaluationSettings) -> Record:
    """Everything that the training's result depends on."""
    hashes = evaluation.hashes
    return {
        "task": request.task,
        "base": NEWEST.get(request.base, request.base),
        "base_sha256": hashes["base"][request.task],
        "algorithm": request.algorithm,
        "teacher": request.teacher,
        "seed": request.seed,
        "settings": {key: value for key, value in asdict(settings).items() if key != "algorithm"},
        "simulation": hashes["simulation"],
        "code": _code(request.algorithm),
        "stable_baselines3": metadata.version("stable-baselines3"),
        "torch": torch.__version__,
    }


def _code(algorithm: str) -> dict[str, str]:
    """File to hash, for the training code. The simulation has a hash of its own, and the settings are listed."""
    modules = (f"baselines.residual.algorithms.{algorithm}", "baselines.residual.worlds")
    files = imported_files(ROOT, modules, (*NOT_SIMULATION, "baselines.residual.settings"))
    simulation = imported_files(ROOT, SIMULATION, NOT_SIMULATION)
    return {file.relative_to(ROOT).as_posix(): file_hash(file) for file in files if file not in simulation}


def _start(
    request: TrainResidualRequest, algorithm: Algorithm, settings: Settings, worlds: TrainingWorlds
) -> tuple[BaseAlgorithm, Progress]:
    """The model from the last checkpoint, or a new one."""
    monitored = VecMonitor(worlds)
    model, progress = checkpoints.load(algorithm, monitored, request.out) or (
        algorithm.make(settings, monitored, request.task, request.seed),
        Progress(provenance.commit()),
    )
    if settings.teaching is not None:
        worlds.drive_share = settings.teaching.drive_share(model.num_timesteps)
    # Checkpoints do not contain the worlds: a resumed training starts new episodes.
    worlds.seed(int(np.random.SeedSequence([request.seed, model.num_timesteps]).generate_state(1)[0] >> 1))
    model.set_logger(configure(str(request.out / "tensorboard"), ["tensorboard"]))
    return model, progress


class _Follower(BaseCallback):
    """Callback for checkpoints, evaluations and the progress bar of a training."""

    def __init__(
        self,
        request: TrainResidualRequest,
        algorithm: Algorithm,
        settings: Settings,
        evaluation: EvaluationSettings,
        progress: Progress,
    ):
        super().__init__()
        self._request, self._algorithm, self._settings = request, algorithm, settings
        self._evaluation, self._progress = evaluation, progress
        self._before = progress.seconds
        self._began = self._saved = time.monotonic()
        self._bar = tqdm(total=settings.steps, unit="step", desc=f"{request.task} on {request.base}", disable=None)

    def _on_rollout_start(self) -> None:
        self._bar.update(self.num_timesteps - self._bar.n)
        if self.num_timesteps >= len(self._progress.curve) * self._settings.steps / EVALUATIONS:
            self.evaluate()
            self.save()
        elif time.monotonic() - self._saved > CHECKPOINT_SECONDS:
            self.save()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._bar.update(self.num_timesteps - self._bar.n)
        self._bar.close()

    def evaluate(self) -> None:
        """Evaluate the present policy on the first episodes of val, and add the result to the learning curve."""
        path = self._request.out / SNAPSHOT_FILE
        layout, hidden = (self.training_env.get_attr(name)[0] for name in ("observation_layout", "hidden"))
        export_residual(self._algorithm.actor(self.model), layout, self._settings, hidden, path, {})
        settings = replace(self._evaluation, residual=str(path))
        episodes = list(run_rows(settings, settings.rows, EVALUATION_EPISODES, self._request.threads))
        cell = cells(episodes)[0]
        measured = {k: cell[k] for k in ("success_rate", "mean_steps", "mean_return", "mean_correction_mm")}
        minutes = round(self._seconds() / 60.0, 2)
        updates = self._algorithm.updates(self.model)
        record = {"steps": self.num_timesteps, "updates": updates, "minutes": minutes, **measured}
        self._progress.curve.append(record)
        for key, value in measured.items():
            if value is not None:
                self.logger.record(f"val/{key}", value)
        self.logger.dump(self.num_timesteps)
        self._bar.set_postfix_str(f"val success {cell['success_rate']:.0%}", refresh=False)
        write_curve(self._request.out, self._progress.curve)

    def save(self) -> None:
        """Write a checkpoint."""
        self._progress.seconds = self._seconds()
        checkpoints.save(self._algorithm, self.model, self._progress, self._request.out)
        self._saved = time.monotonic()

    def _seconds(self) -> float:
        return self._before + time.monotonic() - self._began
