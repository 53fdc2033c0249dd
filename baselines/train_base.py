"""``train-base``: trains base policies on demonstration files, and writes ONNX files, reports and a model card."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines import BaselineError, bc, chunk_head, chunks, data, rotations, training, vla
from baselines.cards import write_card
from baselines.data import DemoFiles, visual_samples
from baselines.export import export_policy
from baselines.replays import replays_of
from baselines.training import Schedule, train
from oc_residual_gym.evaluation import provenance
from oc_residual_gym.files import sha256, write_json, write_text
from oc_residual_gym.syntax import file_hash
from oc_residual_gym.tasks import TASKS

POLICY_VERSION = "v0"
EXAMPLES = 64
"""Number of samples on which a file is compared with its network."""


@dataclass(frozen=True)
class TrainBaseRequest:
    """Arguments of ``train-base``."""

    base: str
    """"bc", "bc-few" or "vla"."""
    tasks: tuple[str, ...]
    files: tuple[Path, ...]
    out: Path
    seed: int
    command: str
    steps: int | None = None
    """Training steps; ``None`` for those in the schedule."""
    threads: int = 1


def train_base(request: TrainBaseRequest) -> list[Path]:
    """Train as ``request`` says, or resume an interrupted run of it; return the ONNX files.

    Raises:
        BaselineError: data are missing, or the folder holds another training.
        LogError: a file is not a data file.
    """
    torch.set_num_threads(request.threads)
    _claim(request.out, request.base)
    files = [_train_vla(request)] if request.base == "vla" else [_train_bc(request, task) for task in request.tasks]
    write_card(request.out)
    return files


def _train_bc(request: TrainBaseRequest, task: str) -> Path:
    recipe = bc.RECIPES[request.base]
    source = DemoFiles(request.files, [task], recipe.demonstrations)
    batches = bc.BcBatches(list(source.read(images=False)), TASKS[task], recipe, request.seed)
    torch.manual_seed(request.seed)
    return _train(request, task, source, recipe.schedule, bc, bc.BcPolicy(TASKS[task].objects, recipe), batches)


def _train_vla(request: TrainBaseRequest) -> Path:
    source = DemoFiles(request.files, request.tasks)
    batches = vla.VlaBatches(visual_samples(source, request.out / "unpacked"))
    torch.manual_seed(request.seed)
    model = vla.VlaPolicy().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _train(request, "vla", source, vla.SCHEDULE, vla, model, batches)


def _train(
    request: TrainBaseRequest,
    name: str,
    source: DemoFiles,
    schedule: Schedule,
    module: Any,
    model: nn.Module,
    batches: Any,
) -> Path:
    """Train ``model`` on ``batches``; write the ONNX file, and the report for the card.

    Args:
        request: arguments of the command.
        name: name of the files, without suffix.
        source: files that the batches come from.
        schedule: steps, batch size and learning rate.
        module: module of the network and its batches.
        model: ``BcPolicy`` or ``VlaPolicy``, with initial weights.
        batches: ``BcBatches`` or ``VlaBatches``.
    """
    replays = replays_of(request.files, source.tasks)
    if request.steps is not None:
        schedule = replace(schedule, steps=request.steps)
    identity = _identity(request, source, schedule, module)
    trained = train(
        model,
        lambda step: batches.training_loss(model, step, schedule.batch, request.seed),
        batches.held_out_loss if len(batches.held_out) else None,
        schedule,
        request.out / name,
        identity,
        name,
    )
    path = request.out / f"{name}.onnx"
    policy = f"{request.base}-{POLICY_VERSION}"
    metadata = {"policy": policy, "command": request.command, **identity}
    difference = export_policy(trained.model, batches.examples(EXAMPLES), path, metadata)
    report = {
        "name": name,
        "policy": policy,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "minutes": round(trained.minutes, 2),
        "loss": trained.loss,
        "held_out_loss": trained.held_out,
        "onnx_difference": difference,
        "demonstrations": dict(source.used),
        "rows": dict(source.rows),
        "failed_replays": dict(source.failed),
        "replays": replays,
        "command": request.command,
        "machine": provenance.machine(),
        "commit": provenance.commit(),
        **identity,
    }
    write_json(request.out / f"{name}.json", report)
    return path


def _identity(request: TrainBaseRequest, source: DemoFiles, schedule: Schedule, module: Any) -> dict[str, Any]:
    """Everything that the trained weights depend on, except the machine."""
    code = (module, chunks, chunk_head, data, rotations, training)
    return {
        "base": request.base,
        "tasks": source.tasks,
        "seed": request.seed,
        "data": source.hashes,
        "schedule": asdict(schedule),
        "code": {m.__name__: file_hash(Path(str(m.__file__))) for m in code},
        "torch": torch.__version__,
        "threads": request.threads,
    }


def _claim(out: Path, base: str) -> None:
    """Reserve ``out`` for one kind of policy. Raises ``BaselineError`` if it holds the other kind."""
    marker = out / "base.txt"
    if marker.exists() and marker.read_text(encoding="utf-8").strip() != base:
        raise BaselineError(f"{out} holds policies of another kind (base.txt); choose another --out")
    write_text(marker, base + "\n")
