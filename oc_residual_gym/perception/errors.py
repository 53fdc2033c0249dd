"""Pose error models: the noise, latency and dropouts of a simulated pose tracker.

"clean", "paper" and "tracker" are frozen in version 0 of every id; "lasting" is for training.

``MODELS`` holds the numbers; ``PoseErrors`` applies one model to the K objects of N worlds. Position errors are along
the axes of the base frame. Rotation errors are rotation vectors in the object's own frame: the parts are added, and the
observed rotation is the true rotation times the rotation of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.errors import SettingsError, one_of
from oc_residual_gym.geometry import multiply_one, quat_from_rotvec
from oc_residual_gym.states import Array, BoolArray, IntArray


@dataclass(frozen=True)
class PoseErrorModel:
    """Parameters of an error model; the default has no errors. Pairs are (position in m, rotation in rad)."""

    spread: tuple[float, float] = (0.0, 0.0)
    """Uniform error per axis, drawn per step and object. Its half-width is drawn from U(0, spread) at each step."""
    bias: tuple[float, float] = (0.0, 0.0)
    """Standard deviation per axis of a Gaussian error that is drawn once per episode and object."""
    jitter: tuple[float, float] = (0.0, 0.0)
    """Standard deviation per axis of a Gaussian error that is drawn per step and object."""
    latency: tuple[int, int] = (0, 0)
    """Minimum and maximum delay of poses in control steps; drawn uniformly once per episode and world. Until a delayed
    pose exists, the first pose of the episode repeats."""
    loss: float = 0.0
    """Probability per step that a seen object is lost. The first observation of an episode is never lost: the tracker
    was registered before the episode starts."""
    loss_near_fingers: float = 0.0
    """The same probability for an object near closed fingers."""
    stay_lost: float = 0.0
    """Probability per step that a lost object stays lost; dropouts last 1 / (1 - stay_lost) steps on average."""
    wrench: tuple[float, float] = (0.0, 0.0)
    """Standard deviation per axis of the Gaussian error of the measured wrench (N, Nm), drawn per step."""

    def __post_init__(self) -> None:
        for name in (entry.name for entry in fields(self)):
            value = getattr(self, name)
            if np.min(value) < 0:
                raise SettingsError(f"{name} of a pose error model is {value}: it cannot be negative")
            if isinstance(value, float) and value > 1:
                raise SettingsError(f"{name} of a pose error model is {value}: a probability is at most 1")
        if self.latency[0] > self.latency[1]:
            raise SettingsError(f"latency of a pose error model goes from {self.latency[0]} to {self.latency[1]}")


_BURST_STEPS = 0.3 * 20  # mean length of a dropout: 0.3 s at 20 Hz
# Dropouts that end with probability e per step take the share loss / (loss + e) of the time: 5 % away from closed
# fingers. Near them, dropouts start three times as often and take 13.6 % of the time.
_BURST_START = 0.05 / 0.95 / _BURST_STEPS

MODELS = {
    "clean": PoseErrorModel(),
    # Kim et al. (arXiv 2606.18953) draw +-U(0, 5 mm) and drop 10 % of the steps. They add the same numbers to
    # quaternion entries; here a rotation vector of up to 3 degrees replaces that.
    "paper": PoseErrorModel(
        spread=(0.005, np.deg2rad(3.0)), loss=0.1, loss_near_fingers=0.1, stay_lost=0.1, wrench=(0.5, 0.05)
    ),
    "tracker": PoseErrorModel(
        bias=(0.002, np.deg2rad(1.0)),
        jitter=(0.001, np.deg2rad(0.5)),
        latency=(1, 2),
        loss=_BURST_START,
        loss_near_fingers=3.0 * _BURST_START,
        stay_lost=1.0 - 1.0 / _BURST_STEPS,
        wrench=(0.5, 0.05),
    ),
    # For training: wide and round, so that a policy learns to cope with errors that last.
    "lasting": PoseErrorModel(
        bias=(0.004, np.deg2rad(2.0)),
        jitter=(0.001, np.deg2rad(1.0)),
        latency=(0, 3),
        loss=0.02,
        loss_near_fingers=0.05,
        stay_lost=0.8,
        wrench=(1.0, 0.1),
    ),
}


def error_model_of(errors: str | PoseErrorModel) -> PoseErrorModel:
    """The pose error model named ``errors``, or ``errors`` itself if it is a model.

    Raises:
        SettingsError: there is no model of that name; the message lists the known ones.
    """
    return errors if isinstance(errors, PoseErrorModel) else MODELS[one_of("pose error model", errors, MODELS)]


_BLOCK = 128  # control steps of noise drawn at once: resets stay cheap, and steps only look up their noise


@njit(
    "void(int64[:],int64[:],float64[:,:,:],boolean[:,:],float64,float64,float64,int64[:,:],float64[:,:,:],"
    "float64[:,:],float64[:,:],float64[:,:,:],float64[:,:,:],boolean[:,:],float64[:,:])"
)
def _observe(
    worlds: IntArray,
    rows: IntArray,
    true_poses: Array,
    near: BoolArray,
    stay_lost: float,
    loss: float,
    loss_near: float,
    slots: IntArray,
    errors: Array,
    chances: Array,
    wrenches: Array,
    history: Array,
    poses: Array,
    lost: BoolArray,
    wrench: Array,
) -> None:
    """One step of ``worlds``, with noise from ``rows`` of the blocks; writes the last four arguments."""
    for n in range(len(worlds)):
        world, row = worlds[n], rows[n]
        history[slots[row, 0]] = true_poses[world]
        delayed = history[slots[row, 1]]
        wrench[world] = wrenches[row]
        for k in range(poses.shape[1]):
            start = loss_near if near[world, k] else loss
            lost[world, k] = chances[row, k] < (stay_lost if lost[world, k] else start)
            seen = poses[world, k]
            if lost[world, k]:
                seen[:] = np.nan
                continue
            for i in range(3):
                seen[i] = delayed[k, i] + errors[row, k, i]
            seen[3], seen[4], seen[5], seen[6] = multiply_one(delayed[k, 3:7], errors[row, k, 3:7])


class PoseErrors:
    """Applies one error model to the object poses of N worlds.

    Each world draws from the generator that it was reset with, in an order that does not depend on other worlds or on
    actions. Only dropouts depend on the episode: on whether closed fingers are near an object.

    Args:
        model: "clean", "paper", "tracker", "lasting", or a model of your own.
        num_worlds: number of worlds N.
        num_objects: number of observed objects K.

    Raises:
        SettingsError: if there is no model of that name.
    """

    def __init__(self, model: str | PoseErrorModel, num_worlds: int, num_objects: int) -> None:
        self.model = error_model_of(model)
        self.num_worlds = num_worlds
        self.num_objects = num_objects
        self._generators: list[np.random.Generator | None] = [None] * num_worlds
        self._all = np.arange(num_worlds)

        # State of the running episodes.
        self._poses = np.full((num_worlds, num_objects, 7), np.nan)
        self._lost = np.ones((num_worlds, num_objects), dtype=bool)
        self._wrench = np.zeros((num_worlds, 6))
        self._bias = np.zeros((num_worlds, num_objects, 6))
        self._latency = np.zeros(num_worlds, dtype=np.int64)
        self._delays = self.model.latency[1] + 1
        self._history = np.zeros((num_worlds * self._delays, num_objects, 7))

        # Noise for the next steps, drawn ahead: row w * _BLOCK + i is step i of world w's block.
        self._error_block = np.empty((num_worlds * _BLOCK, num_objects, 7))
        self._chance_block = np.empty((num_worlds * _BLOCK, num_objects))
        self._wrench_block = np.empty((num_worlds * _BLOCK, 6))
        self._history_block = np.empty((num_worlds * _BLOCK, 2), dtype=np.int64)
        self._block_end = (np.arange(num_worlds) + 1) * _BLOCK
        self._row = self._block_end.copy()
        self._blocks_drawn = np.zeros(num_worlds, dtype=np.int64)
        self._steps_ahead = 0  # calls of observe until the first block runs out

    @property
    def fingers_matter(self) -> bool:
        """Whether closed fingers near an object change its dropout probability."""
        return self.model.loss_near_fingers != self.model.loss

    def reset(self, worlds: IntArray, generators: Sequence[np.random.Generator]) -> None:
        """Start an episode in ``worlds``; from now on, each one draws from its entry in ``generators``."""
        for world, generator in zip(worlds, generators, strict=True):
            self._generators[world] = generator
            position_bias, rotation_bias = self.model.bias
            self._bias[world] = generator.standard_normal((self.num_objects, 6))
            self._bias[world] *= np.repeat([position_bias, rotation_bias], 3)
            low, high = self.model.latency
            self._latency[world] = generator.integers(low, high, endpoint=True)
            self._blocks_drawn[world] = 0
            self._draw_block(world)
            self._chance_block[self._row[world]] = 1.0  # the first observation is never lost
        self._lost[worlds] = True  # nothing has been observed yet
        self._poses[worlds] = np.nan
        self._wrench[worlds] = 0.0

    def observe(
        self, true_poses: Array, near_closed_fingers: BoolArray, worlds: IntArray | None = None
    ) -> tuple[Array, BoolArray]:
        """Advance ``worlds`` by one control step and return the observed object poses.

        Args:
            true_poses: true poses in the base frame, ``(N, K, 7)``.
            near_closed_fingers: whether each object is near closed fingers, which occlude it, ``(N, K)``.
            worlds: the worlds that advance; ``None`` means all. The others repeat the last observation of their
                episode.

        Returns:
            Observed poses ``(N, K, 7)``, NaN where lost, and whether the object was seen ``(N, K)``.

        Raises:
            RuntimeError: if a world was never reset.
        """
        rows = slice(None) if worlds is None else worlds
        if self._steps_ahead == 0:
            self._draw_missing_blocks(np.arange(self.num_worlds) if worlds is None else worlds)
        self._steps_ahead -= 1
        block_row = self._row[rows].copy()
        self._row[rows] += 1

        _observe(
            self._all[rows],
            block_row,
            # To Numba, a read-only array has another type.
            true_poses if true_poses.flags.writeable else true_poses.copy(),
            near_closed_fingers,
            self.model.stay_lost,
            self.model.loss,
            self.model.loss_near_fingers,
            self._history_block,
            self._error_block,
            self._chance_block,
            self._wrench_block,
            self._history,
            self._poses,
            self._lost,
            self._wrench,
        )
        return self._poses.copy(), ~self._lost

    def wrench_noise(self) -> Array:
        """Errors ``(N, 6)`` of the external wrench (force in N, torque in Nm) in the last observed step."""
        return self._wrench.copy()

    def _draw_missing_blocks(self, worlds: IntArray) -> None:
        """Draw the next block for those of ``worlds`` whose block has run out."""
        for world in worlds[self._row[worlds] == self._block_end[worlds]]:
            self._draw_block(world)
        self._steps_ahead = max(1, int((self._block_end - self._row).min()))

    def _draw_block(self, world: int) -> None:
        """Draw all noise for the next ``_BLOCK`` steps of world ``world``."""
        generator = self._generators[world]
        if generator is None:
            raise RuntimeError(f"world {world} was observed before its first reset; reset it first")
        objects = self.num_objects
        gaussian = generator.standard_normal((_BLOCK, objects + 1, 6))
        uniform = generator.random((_BLOCK, objects, 9))
        block = slice(world * _BLOCK, (world + 1) * _BLOCK)

        half_width = np.repeat(uniform[..., 6:8] * self.model.spread, 3, axis=-1)
        error = half_width * (2.0 * uniform[..., :6] - 1.0)
        error += gaussian[:, :objects] * np.repeat(self.model.jitter, 3)
        error += self._bias[world]
        self._error_block[block, :, :3] = error[..., :3]
        self._error_block[block, :, 3:] = quat_from_rotvec(error[..., 3:])
        self._chance_block[block] = uniform[..., 8]
        self._wrench_block[block] = gaussian[:, objects] * np.repeat(self.model.wrench, 3)

        # The last true poses are in a ring buffer; each step writes one slot and reads that of `latency` steps ago.
        step = self._blocks_drawn[world] * _BLOCK + np.arange(_BLOCK)
        delivered = step - np.minimum(step, self._latency[world])
        ring = world * self._delays
        self._history_block[block, 0] = ring + step % self._delays
        self._history_block[block, 1] = ring + delivered % self._delays
        self._blocks_drawn[world] += 1
        self._row[world] = block.start
