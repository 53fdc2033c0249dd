"""Training loop of the base policies: fixed number of steps, averaged weights, and checkpoints.

An interrupted training gives the same result as an uninterrupted one.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from baselines import BaselineError
from oc_residual_gym.files import differences, write_bytes

CHECKPOINT_SECONDS = 60.0
LOG_STEPS = 100
"""Number of steps over which each line of loss.csv averages the loss."""


@dataclass(frozen=True)
class Schedule:
    """Steps, batch size and learning rate of a training; the same on any machine."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 200
    """Steps of linearly rising learning rate; then it falls to zero as a cosine."""
    weight_decay: float = 1e-4
    average: float = 0.999
    """Decay per step of the exponential moving average of the weights, which is exported."""
    clip: float = 5.0
    """Maximum norm of the gradient."""

    def rate(self, step: int) -> float:
        """Learning rate at ``step``."""
        fraction = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * min((step + 1) / self.warmup, 0.5 * (1.0 + math.cos(math.pi * max(fraction, 0.0))))


@dataclass(frozen=True)
class Trained:
    """Result of a finished training."""

    model: nn.Module
    """Network with the averaged weights."""
    minutes: float
    loss: float
    """Mean training loss of the last steps."""
    held_out: float | None
    """Loss of the averaged weights on held-out demonstrations; ``None`` without any."""


def train(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    held_out: Callable[[Any], float] | None,
    schedule: Schedule,
    folder: Path,
    identity: dict[str, Any],
    label: str,
) -> Trained:
    """Minimise ``loss``; resume from the checkpoint in ``folder`` if there is one.

    Args:
        model: the network; its weights are changed.
        loss: step to loss of ``model`` on that step's batch; must depend only on the step and ``model``.
        held_out: network to its loss on held-out samples.
        schedule: steps and rates.
        folder: folder for checkpoint.pt, loss.csv and loss.png.
        identity: everything that the training depends on; a checkpoint with another identity is refused.
        label: label of the progress bar.

    Raises:
        BaselineError: ``folder`` holds the checkpoint of another training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=schedule.weight_decay)
    average = copy.deepcopy(model).requires_grad_(False)
    state = _Progress(folder, identity, model, average, optimiser)
    first = state.load()
    began = saved = time.monotonic()
    spent = state.seconds
    recent: list[float] = []
    with tqdm(total=schedule.steps, initial=first, unit="step", desc=label, disable=None) as bar:
        for step in range(first, schedule.steps):
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step)
            optimiser.zero_grad(set_to_none=True)
            value = loss(step)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
            optimiser.step()
            _follow(average, model, min(schedule.average, (1 + step) / (10 + step)))
            recent.append(value.item())
            last = step + 1 == schedule.steps
            if len(recent) == LOG_STEPS or last:
                mean = sum(recent) / len(recent)
                test = (
                    held_out(average) if held_out is not None and (last or (step + 1) % (10 * LOG_STEPS) == 0) else None
                )
                state.log.append((step + 1, mean, test))
                recent = []
                bar.set_postfix_str(f"loss {mean:.4f}", refresh=False)
            bar.update()
            now = time.monotonic()
            if last or (not recent and now - saved > CHECKPOINT_SECONDS):
                saved, state.seconds = now, spent + now - began
                state.save(step + 1)
                write_curve(folder, state.log)
    _, mean, test = state.log[-1]
    return Trained(average, state.seconds / 60.0, mean, test)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, share: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - share)


class _Progress:
    """A training's state on disk."""

    def __init__(
        self, folder: Path, identity: dict[str, Any], model: nn.Module, average: nn.Module, optimiser: torch.optim.AdamW
    ):
        self._path, self._identity = folder / "checkpoint.pt", json.dumps(identity, sort_keys=True)
        self._parts: dict[str, Any] = {"model": model, "average": average, "optimiser": optimiser}
        self.seconds = 0.0
        self.log: list[tuple[int, float, float | None]] = []

    def load(self) -> int:
        """Load the checkpoint if there is one; return the number of completed steps."""
        if not self._path.exists():
            return 0
        stored = torch.load(self._path, weights_only=True)
        if stored["identity"] != self._identity:
            lines = differences(json.loads(stored["identity"]), json.loads(self._identity))
            text = f"{self._path} is from another training; choose another --out or remove it"
            raise BaselineError("\n  ".join([text, *lines]))
        for name, part in self._parts.items():
            part.load_state_dict(stored[name])
        self.seconds, self.log = stored["seconds"], stored["log"]
        return int(stored["step"])

    def save(self, step: int) -> None:
        content = {name: part.state_dict() for name, part in self._parts.items()}
        content |= {"identity": self._identity, "seconds": self.seconds, "log": self.log, "step": step}
        buffer = io.BytesIO()  # PyTorch does not say why it could not write a file
        torch.save(content, buffer)
        write_bytes(self._path, buffer.getvalue())


def write_curve(folder: Path, log: list[tuple[int, float, float | None]]) -> None:
    """Write loss.csv and its plot, loss.png; ``log`` holds step, loss and held-out loss."""
    from matplotlib.figure import Figure

    with open(folder / "loss.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "loss", "held_out_loss"])
        writer.writerows((step, f"{mean:.6f}", "" if test is None else f"{test:.6f}") for step, mean, test in log)
    figure = Figure(figsize=(6.0, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([step for step, *_ in log], [mean for _, mean, _ in log], label="training")
    tests = [(step, test) for step, _, test in log if test is not None]
    axes.plot([step for step, _ in tests], [test for _, test in tests], ".-", label="held-out demonstrations")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.savefig(folder / "loss.png", dpi=120)
