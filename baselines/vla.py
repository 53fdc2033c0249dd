"""The base policy "vla": one network for all tasks; inputs are two cameras, the instruction and proprioception."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from baselines.chunk_head import ChunkHead, chunk_loss, targets
from baselines.data import MAX_OBJECTS, VisualSamples
from baselines.rotations import axes_of
from baselines.training import Schedule
from oc_residual_gym.worlds.render import POLICY_CAMERAS

SCHEDULE = Schedule(steps=9_000, batch=128, learning_rate=6e-4)
CHANNELS = (16, 32, 64)
"""Output channels of the strided convolutions; each one halves the image, down to 16 x 16."""
FILM_LAYERS = 3
"""Number of convolutions at that size that the instruction modulates (FiLM)."""
KEYPOINTS = 32
"""Number of keypoints per image whose coordinates the network reads (spatial softmax)."""
WORDS = 32
"""Size of the instruction's embedding."""
HIDDEN = 512
SHIFT = 2
"""Augmentation: maximum shift of an image in pixels per axis."""
CONTRAST, BRIGHTNESS = 0.1, 0.1
"""Augmentation: standard deviations of an image's factor and offset, in units of half the value range."""
LAG_NOISE = 0.002
"""Noise in metres on the arm's lag behind its target, so that the network does not copy its own speed from the lag."""
OBJECT_WEIGHT = 0.3
"""Loss weight of the error, in centimetres, of the object positions predicted from the images, in training only."""
HELD_OUT_SAMPLES = 1000
"""Approximate maximum number of held-out samples to evaluate."""


def input_names() -> list[str]:
    """Names of the policy's inputs in its ONNX file, in order."""
    proprioception = ("tcp_pose", "gripper_width", "gripper_closed", "previous_target")
    return [*(f"image/{camera}" for camera in POLICY_CAMERAS), "instruction", *proprioception]


class VlaPolicy(nn.Module):
    """Network from images (n, 128, 128, 3), instruction bytes (n, L) and proprioception to chunks (n, 16, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(256, 16)
        self.words = nn.Conv1d(16, WORDS, 5, padding=2)
        self.cameras = nn.ModuleList([Camera() for _ in POLICY_CAMERAS])
        features = len(POLICY_CAMERAS) * (2 * KEYPOINTS + CHANNELS[-1]) + WORDS + 15
        self.first = nn.Sequential(nn.Linear(features, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU())
        self.second = nn.Sequential(
            *(nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU()),
        )
        self.head = ChunkHead(HIDDEN)
        self.objects = nn.Linear(HIDDEN, 3 * MAX_OBJECTS)

    def raw(
        self, pixels: Sequence[Tensor], instruction: Tensor, proprioception: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Raw chunk (n, 16, 7), and object positions (n, 6) relative to the last target, in decimetres.

        Args:
            pixels: images (n, 3, 128, 128) per camera, in [-1, 1].
            instruction: (n, L) zero-padded bytes.
            proprioception: the other inputs, in the order of :func:`input_names`.
        """
        words = self._read(instruction)
        # In training, convolutions in bfloat16 take less than half the time; everything else is float32.
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            seen = [camera(image, words).float() for camera, image in zip(self.cameras, pixels, strict=True)]
        hidden = self.first(torch.cat([*seen, words, _state(*proprioception)], dim=1))
        return self.head(self.second(hidden)), self.objects(hidden)

    def _read(self, instruction: Tensor) -> Tensor:
        """(n, 32) embedding of zero-padded UTF-8 bytes."""
        letters = self.letters(instruction.long())
        # Mask the padding.
        written = (instruction > 0).to(letters.dtype)[:, None]
        features = torch.relu(self.words(letters.transpose(1, 2) * written)) * written
        return features.sum(dim=2) / written.sum(dim=2).clamp_min(1.0)

    def forward(self, shoulder: Tensor, wrist: Tensor, instruction: Tensor, *proprioception: Tensor) -> Tensor:
        pixels = [normalised(image) for image in (shoulder, wrist)]
        return targets(proprioception[-1], self.raw(pixels, instruction, proprioception)[0])


class Camera(nn.Module):
    """Image encoder: (n, 3, 128, 128) to keypoint coordinates and mean features, modulated by the instruction."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, *CHANNELS)
        self.strided = nn.ModuleList(
            [nn.Conv2d(a, b, 5 if a == 3 else 3, 2, 2 if a == 3 else 1) for a, b in itertools.pairwise(sizes)]
        )
        last = CHANNELS[-1]
        self.level = nn.ModuleList([nn.Conv2d(last, last, 3, 1, 1) for _ in range(FILM_LAYERS - 1)])
        self.film = nn.Linear(WORDS, FILM_LAYERS * 2 * last)
        nn.init.normal_(self.film.weight, std=0.05)
        self.points = nn.Conv2d(last, KEYPOINTS, 1)
        self.sharpness = nn.Parameter(torch.ones(KEYPOINTS, 1))
        self.register_buffer("grid", torch.linspace(-1.0, 1.0, 16))

    def forward(self, image: Tensor, words: Tensor) -> Tensor:
        modulation = self.film(words)[:, :, None, None].chunk(2 * FILM_LAYERS, dim=1)
        features = torch.relu(self.strided[1](torch.relu(self.strided[0](image))))
        for number, layer in enumerate([self.strided[2], *self.level]):
            changed = layer(features) * (1.0 + modulation[2 * number]) + modulation[2 * number + 1]
            features = torch.relu(changed) if number == 0 else torch.relu(changed) + features
        heat = torch.softmax(self.points(features).flatten(2).float() * self.sharpness, dim=2).unflatten(2, (16, 16))
        across, down = (heat.sum(dim=2) * self.grid).sum(dim=2), (heat.sum(dim=3) * self.grid).sum(dim=2)
        return torch.cat([across, down, features.float().mean(dim=(2, 3))], dim=1)


def normalised(image: Tensor) -> Tensor:
    """Convert uint8 images (n, H, W, 3) to float (n, 3, H, W) in [-1, 1]."""
    return image.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _state(tcp_pose: Tensor, width: Tensor, closed: Tensor, previous: Tensor) -> Tensor:
    """Proprioceptive features (n, 15) of order one."""
    x_axis, _, z_axis = axes_of(previous[:, 3:7])
    lag = (tcp_pose[:, :3] - previous[:, :3]) * 50.0
    position = (previous[:, :3] - 0.3) * 4.0
    return torch.cat([position, x_axis, z_axis, lag, width * 25.0 - 1.0, closed * 2.0 - 1.0, previous[:, 7:]], dim=1)


class VlaBatches:
    """Training batches, with equal shares of all tasks on average."""

    def __init__(self, data: VisualSamples):
        self.data = data
        held_out = data.samples.is_held_out
        self.held_out = np.flatnonzero(held_out)
        """Indices of the held-out samples."""
        self._rows = [np.flatnonzero((data.task == task) & ~held_out) for task in np.unique(data.task)]

    def loss(self, model: VlaPolicy, rows: np.ndarray, rng: np.random.Generator | None) -> Tensor:
        """Loss of ``model`` on samples ``rows`` (B,); no augmentation without a generator."""
        pixels = [self._pixels(rows, camera, rng) for camera in range(len(POLICY_CAMERAS))]
        tcp_pose, width, closed, previous, chunk = (
            torch.from_numpy(getattr(self.data.samples, name)[rows])
            for name in ("tcp_pose", "gripper_width", "gripper_closed", "previous_target", "chunk")
        )
        if rng is not None:
            tcp_pose[:, :3] += torch.from_numpy(rng.normal(scale=LAG_NOISE, size=(len(rows), 3)).astype(np.float32))
        instruction = torch.from_numpy(self.data.instruction[rows])
        raw, objects = model.raw(pixels, instruction, (tcp_pose, width, closed, previous))
        places = (torch.from_numpy(self.data.objects[rows]) - previous[:, None, :3]).flatten(1)
        known = ~places.isnan()
        error = (objects - places.nan_to_num() * 10.0).abs() * known * 10.0
        return chunk_loss(model.head, raw, previous, chunk) + OBJECT_WEIGHT * error.sum() / known.sum()

    def _pixels(self, rows: np.ndarray, camera: int, rng: np.random.Generator | None) -> Tensor:
        if rng is None:
            return normalised(torch.from_numpy(self.data.images[rows, camera]))
        batch = np.empty((len(rows), *self.data.images.shape[2:]), np.uint8)
        for image, row, (down, across) in zip(
            batch, rows, rng.integers(-SHIFT, SHIFT + 1, (len(rows), 2)), strict=True
        ):
            source = self.data.images[row, camera]
            image[:] = source
            image[_to(down), _to(across)] = source[_to(-down), _to(-across)]
        factor = rng.normal(1.0, CONTRAST, (len(rows), 1)) / 127.5
        offset = rng.normal(0.0, BRIGHTNESS, (len(rows), 1)) - 1.0
        flat = torch.from_numpy(batch).flatten(1).to(torch.bfloat16)
        flat.mul_(torch.from_numpy(factor).to(flat)).add_(torch.from_numpy(offset).to(flat))
        return flat.unflatten(1, batch.shape[1:]).permute(0, 3, 1, 2)

    def training_loss(self, model: VlaPolicy, step: int, batch: int, seed: int) -> Tensor:
        """Loss on the batch of ``step``; the batch depends only on ``step`` and ``seed``."""
        rng = np.random.default_rng([seed, step])
        tasks = np.sort(rng.integers(len(self._rows), size=batch))
        return self.loss(model, np.concatenate([rng.choice(self._rows[t], 1) for t in tasks]), rng)

    def held_out_loss(self, model: VlaPolicy) -> float:
        """Mean loss on the held-out samples."""
        with torch.no_grad():
            rows = self.held_out[:: max(len(self.held_out) // HELD_OUT_SAMPLES, 1)]
            parts = [
                self.loss(model.eval(), part, None).item() for part in np.array_split(rows, max(len(rows) // 128, 1))
            ]
        return float(np.mean(parts))

    def examples(self, count: int) -> dict[str, Tensor]:
        """Inputs of ``count`` samples, by their names in the ONNX file."""
        samples, rows = self.data.samples, np.linspace(0, len(self.data.task) - 1, count).astype(np.int64)
        values = [self.data.images[rows, camera] for camera in range(len(POLICY_CAMERAS))]
        values += [self.data.instruction[rows], samples.tcp_pose[rows], samples.gripper_width[rows]]
        values += [samples.gripper_closed[rows], samples.previous_target[rows]]
        return {name: torch.from_numpy(value) for name, value in zip(input_names(), values, strict=True)}


def _to(shift: int) -> slice:
    """Slice of the pixels that remain in the image after a shift by ``shift``."""
    return slice(max(shift, 0), min(shift, 0) or None)
