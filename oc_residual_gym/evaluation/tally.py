"""Measurements that are accumulated while an episode runs."""

from __future__ import annotations

import numpy as np

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.geometry import norm
from oc_residual_gym.states import Array, IntArray


class Tally:
    """Running totals for the episode of each world."""

    def __init__(self, num_worlds: int) -> None:
        self.episode_return = np.zeros(num_worlds)
        self.peak_contact_force = np.zeros(num_worlds)
        self.correction = np.zeros((num_worlds, 2))
        """(N, 2) sum over steps of the correction's size: metres, radians."""
        self.change = np.zeros((num_worlds, 2))
        """(N, 2) sum of the size of the correction's change, over all steps except the first: metres, radians."""
        self._last = np.zeros((num_worlds, 6))

    def reset(self, worlds: IntArray) -> None:
        for total in (self.episode_return, self.peak_contact_force, self.correction, self.change):
            total[worlds] = 0.0
        self._last[worlds] = np.nan  # no change at the first step

    def add(self, core: ResidualWorlds, actions: Array, worlds: IntArray) -> None:
        """Add the step that ``worlds`` have just taken with ``actions`` (N, 7)."""
        correction = np.clip(actions[worlds, :6], -1.0, 1.0)
        correction *= np.repeat([core.scales.position, core.scales.rotation], 3)
        self.correction[worlds] += _sizes(correction)
        self.change[worlds] += _sizes(np.nan_to_num(correction - self._last[worlds]))
        self._last[worlds] = correction
        self.episode_return[worlds] += core.reward[worlds]
        self.peak_contact_force[worlds] = np.maximum(self.peak_contact_force, core.world.peak_contact_force)[worlds]


def _sizes(correction: Array) -> Array:
    """(n, 2) norms of the position part and the rotation part of corrections (n, 6)."""
    return np.stack([norm(correction[:, :3]), norm(correction[:, 3:])], axis=1)
