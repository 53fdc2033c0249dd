"""The base policies "bc" and "bc-few": action chunks from object poses, one network per task, cloned from replays.

"bc" is made as good as it gets. "bc-few" is the same network, cloned plainly and from few demonstrations, and thus as
clumsy as a policy that has seen little.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from baselines.chunk_head import ChunkHead, chunk_loss, targets
from baselines.chunks import FloatArray, samples_of
from baselines.rotations import axes_of, near, quat_from_rotvec, quat_multiply, turned, visible_axes, within
from baselines.training import Schedule
from demos_replay.demo import Demo
from oc_residual_gym.perception.errors import PoseErrors
from oc_residual_gym.perception.filter import PoseFilter
from oc_residual_gym.policies.base import HORIZON
from oc_residual_gym.tasks.base import ObservedObject, Task
from oc_residual_gym.tasks.symmetry import symmetry_of
from oc_residual_gym.worlds.tracker import NEAR_FINGERS

HIDDEN = 384


@dataclass(frozen=True)
class Recipe:
    """How a policy is cloned."""

    demonstrations: int | None = None
    """Number of demonstrations per task: the first ones of the files; ``None`` for all."""
    noise_draws: Mapping[str, int] = field(default_factory=lambda: {"paper": 20, "tracker": 12})
    """Number of noise draws per demonstration, by pose error model; each draw passes through the pose filter."""
    moved: tuple[float, float] = (0.006, 0.03)
    """Augmentation: random offset of the hand from the demonstrated path, in metres and radians (standard deviation per
    axis)."""
    turned: float = 0.4
    """Augmentation: largest rotation of the scene about the vertical, in radians, to either side."""
    sees_symmetry: bool = True
    """Whether features are the same for all orientations that look alike."""
    schedule: Schedule = field(default_factory=lambda: Schedule(steps=4_000, batch=512, learning_rate=1e-3))


RECIPES = {
    "bc": Recipe(),
    "bc-few": Recipe(
        demonstrations=4,
        noise_draws={"clean": 1},
        moved=(0.0, 0.0),
        turned=0.0,
        sees_symmetry=False,
        schedule=Schedule(steps=1_500, batch=512, learning_rate=1e-3),
    ),
}
HELD_SHARE = 0.3
"""Factor on the offset of the hand while it is closed."""
RETURN_STEPS = 6
"""Steps within which the targets return to the demonstrated path."""


class BcPolicy(nn.Module):
    """Network for one task, from raw inputs to chunks (n, 16, 8).

    Inputs: gripper_width (n, 1), gripper_closed (n, 1), previous_target (n, 8), then one filtered pose (n, 7) per
    object. All features are relative to the last executed target. The measured TCP pose is left out: its lag behind the
    target reveals the arm's speed, and a network that sees it learns to continue as before, or never to start. Absolute
    positions on the table are left out too: with only 50 demonstrations, a network would recognise each one by them.

    Args:
        objects: the task's observed objects.
        recipe: whether features know their symmetries.
    """

    def __init__(self, objects: Sequence[ObservedObject], recipe: Recipe):
        super().__init__()
        self.symmetries = [symmetry_of(o.symmetry if recipe.sees_symmetry else "none") for o in objects]
        inputs = [torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 8), *[torch.ones(1, 7) for _ in objects]]
        width = self.features(*inputs).shape[1]
        self.body = nn.Sequential(
            *(nn.Linear(width, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.LayerNorm(HIDDEN), nn.SiLU()),
        )
        self.head = ChunkHead(HIDDEN)

    def features(self, width: Tensor, closed: Tensor, previous: Tensor, *objects: Tensor) -> Tensor:
        """(n, F) features of order one."""
        position, tool = previous[:, :3], axes_of(previous[:, 3:7])
        parts = [near(position[:, 2:]), tool[0], tool[2]]
        parts += [width * 25.0 - 1.0, closed * 2.0 - 1.0, previous[:, 7:]]
        for pose, symmetry in zip(objects, self.symmetries, strict=True):
            away = pose[:, :3] - position
            parts += [near(pose[:, 2:3]), near(away), near(within(away, tool))]
            for axis in visible_axes(axes_of(pose[:, 3:]), symmetry, tool):
                parts += [axis, within(axis, tool)]
        for a, b in itertools.pairwise(objects):
            parts.append(near(b[:, :3] - a[:, :3]))
        return torch.cat(parts, dim=1)

    def raw(self, width: Tensor, closed: Tensor, previous: Tensor, *objects: Tensor) -> Tensor:
        """Raw chunk (n, 16, 7), see :class:`ChunkHead`."""
        return self.head(self.body(self.features(width, closed, previous, *objects)))

    def forward(self, width: Tensor, closed: Tensor, previous: Tensor, *objects: Tensor) -> Tensor:
        return targets(previous, self.raw(width, closed, previous, *objects))


def input_names(objects: Iterable[str]) -> list[str]:
    """Names of the policy's inputs in its ONNX file, in order."""
    return ["gripper_width", "gripper_closed", "previous_target", *(f"object/{name}" for name in objects)]


class BcBatches:
    """Training batches for one task, with pose errors and filter applied, and with augmentation.

    Args:
        demos: demonstrations of the task.
        task: the task.
        recipe: pose errors and augmentation.
        seed: seed of the pose errors.
    """

    def __init__(self, demos: Sequence[Demo], task: Task, recipe: Recipe, seed: int):
        self._recipe = recipe
        self.samples = samples = samples_of(demos)
        draws = [
            seen_through(model, demos, task, [seed, zlib.crc32(model.encode()), draw])
            for model, count in recipe.noise_draws.items()
            for draw in range(count)
        ]
        poses = np.stack([draw[samples.demo, samples.row] for draw in draws])
        self._draws = len(draws)
        self.seen = {o.name: np.ascontiguousarray(poses[:, :, i]) for i, o in enumerate(task.objects)}
        """Object name to filtered poses (D, R, 7), in each of D noise draws."""
        self.held_out = np.flatnonzero(samples.is_held_out)
        """Indices of the held-out samples."""
        self._training = np.flatnonzero(~samples.is_held_out)

    def loss(self, model: BcPolicy, rows: np.ndarray, draws: np.ndarray, generator: torch.Generator | None) -> Tensor:
        """Loss of ``model`` on samples ``rows`` (B,) in noise ``draws`` (B,); no augmentation without a generator."""
        width, closed, previous, chunk, slack = (
            torch.from_numpy(getattr(self.samples, name)[rows])
            for name in ("gripper_width", "gripper_closed", "previous_target", "chunk", "slack")
        )
        objects = {name: torch.from_numpy(poses[draws, rows]) for name, poses in self.seen.items()}
        if generator is not None:
            yaw = torch.zeros(len(rows), 3)
            yaw[:, 2] = (2.0 * torch.rand(len(rows), generator=generator) - 1.0) * self._recipe.turned
            spin = quat_from_rotvec(yaw)
            previous, chunk = turned(spin, previous), turned(spin[:, None].expand(-1, HORIZON, -1), chunk)
            objects = {name: turned(spin, pose) for name, pose in objects.items()}
            size = slack * (1.0 - (1.0 - HELD_SHARE) * closed)
            offset = torch.randn(len(rows), 3, generator=generator) * self._recipe.moved[0] * size
            turn = torch.randn(len(rows), 3, generator=generator) * self._recipe.moved[1] * size
            previous = torch.cat(
                [previous[:, :3] + offset, quat_multiply(previous[:, 3:7], quat_from_rotvec(turn)), previous[:, 7:]], 1
            )
            for name, pose in objects.items():
                carried = torch.from_numpy(self.samples.carried[name][rows])
                objects[name] = torch.cat([pose[:, :3] + carried * offset, pose[:, 3:]], dim=1)
            left = (1.0 - torch.arange(1, HORIZON + 1) / RETURN_STEPS).clamp_min(0.0)[:, None]
            chunk = torch.cat([chunk[..., :3] + left * offset[:, None], chunk[..., 3:]], dim=-1)
        raw = model.raw(width, closed, previous, *objects.values())
        return chunk_loss(model.head, raw, previous, chunk)

    def training_loss(self, model: BcPolicy, step: int, batch: int, seed: int) -> Tensor:
        """Loss on the batch of ``step``; the batch depends only on ``step`` and ``seed``."""
        rng = np.random.default_rng([seed, step])
        rows = rng.choice(self._training, batch)
        draws = rng.integers(self._draws, size=batch)
        return self.loss(model, rows, draws, torch.Generator().manual_seed(int(rng.integers(2**62))))

    def held_out_loss(self, model: BcPolicy) -> float:
        """Loss on the held-out samples."""
        with torch.no_grad():
            draws = np.arange(len(self.held_out)) % self._draws
            return self.loss(model.eval(), self.held_out, draws, None).item()

    def examples(self, count: int) -> dict[str, Tensor]:
        """Inputs of ``count`` samples, by their names in the ONNX file."""
        samples, rows = self.samples, np.linspace(0, len(self.samples.row) - 1, count).astype(np.int64)
        values = [samples.gripper_width[rows], samples.gripper_closed[rows], samples.previous_target[rows]]
        values += [poses[0, rows] for poses in self.seen.values()]
        return {name: torch.from_numpy(value) for name, value in zip(input_names(self.seen), values, strict=True)}


def seen_through(model: str, demos: Sequence[Demo], task: Task, seed: Sequence[int]) -> FloatArray:
    """Filtered poses (demos, T, objects, 7) under the pose error model ``model``, padded to the longest demo."""
    count, longest = len(demos), max(len(demo.target) for demo in demos)
    true = np.zeros((count, longest, len(task.objects), 7))
    true[..., 6] = 1.0
    near = np.zeros((count, longest, len(task.objects)), bool)
    for n, demo in enumerate(demos):
        rows = len(demo.target)
        true[n, :rows] = np.stack([demo.objects[o.name][:rows] for o in task.objects], axis=1)
        distance = np.linalg.norm(true[n, :rows, :, :3] - demo.tcp_pose[:rows, None, :3], axis=-1)
        near[n, :rows] = (distance < NEAR_FINGERS) & demo.gripper_closed[:rows, None]
    errors = PoseErrors(model, count, len(task.objects))
    pose_filter = PoseFilter([o.symmetry for o in task.objects], count)
    errors.reset(np.arange(count), [np.random.default_rng([*seed, n]) for n in range(count)])
    result = np.zeros(true.shape, np.float32)
    for row in range(longest):
        pose_filter.update(*errors.observe(np.ascontiguousarray(true[:, row]), np.ascontiguousarray(near[:, row])))
        result[:, row] = pose_filter.poses
    return result
