"""What an actor sees: the observation, rewritten so that a network resolves millimetres in it, with its memory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines.residual.memory import field_value, seen_size
from baselines.rotations import Axes, cross, near, outside, visible_axes, within
from oc_residual_gym.envs.observation import Field
from oc_residual_gym.tasks.base import ObservedObject
from oc_residual_gym.tasks.symmetry import symmetry_of


class Features(nn.Module):
    """Network without weights: observations (n, D), starts of chunks (n, D) and past observations to features (n, F).

    Positions are relative to the tool, in the base and the tool frame, at three scales; rotations are the axes that are
    the same for all orientations that look alike. All operations are elementwise.

    Args:
        layout: the observation's fields.
        objects: the task's observed objects.
    """

    def __init__(self, layout: Sequence[Field], objects: Sequence[ObservedObject]):
        super().__init__()
        self._fields = {field.name: field for field in layout}
        self._objects = [(o.name, symmetry_of(o.symmetry)) for o in objects]
        self.visible = layout[-1].stop
        self.inputs = seen_size(self.visible)
        self.size = self(torch.ones(1, self.inputs)).shape[1]

    def forward(self, seen: Tensor) -> Tensor:
        """Features (n, F) of observations, starts and past observations side by side (n, ``inputs``)."""
        now, start = seen[:, : self.visible], seen[:, self.visible : 2 * self.visible]
        here, there = self._executed(now), self._executed(start)
        moved = [near(here - there), near(self._get(now, "tcp_position") - self._get(start, "tcp_position"))]
        return torch.cat([seen, *self._rewritten(now), *self._rewritten(start), *moved], dim=1)

    def _get(self, seen: Tensor, name: str) -> Tensor:
        return field_value(seen, self._fields[name])

    def _tool(self, seen: Tensor) -> Axes:
        """Axes of the tool in the base frame."""
        x, y = self._get(seen, "tcp_rotation").split(3, dim=1)
        return x, y, cross(x, y)

    def _executed(self, seen: Tensor) -> Tensor:
        """Position (n, 3) of the last executed target, base frame."""
        offset = outside(self._get(seen, "previous_target_position"), self._tool(seen))
        return self._get(seen, "tcp_position") + offset

    def _rewritten(self, seen: Tensor) -> list[Tensor]:
        tool, here = self._tool(seen), self._get(seen, "tcp_position")
        parts = [near(here[:, 2:]), near(self._executed(seen) - here), tool[2]]
        parts += [
            outside(seen[:, field.slice], tool)
            for name, field in self._fields.items()
            if name.startswith("base_target") and name.endswith("position")
        ]
        positions = []
        for name, symmetry in self._objects:
            position = self._get(seen, f"{name}_position_in_base")
            x, y = self._get(seen, f"{name}_rotation_in_base").split(3, dim=1)
            away = position - here
            parts += [near(position[:, 2:]), near(away), near(within(away, tool))]
            for axis in visible_axes((x, y, cross(x, y)), symmetry, tool):
                parts += [axis, within(axis, tool)]
            positions.append(position)
        parts += [near(b - a) for a, b in itertools.pairwise(positions)]
        return parts
