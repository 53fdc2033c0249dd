"""A log's targets resampled to 20 Hz, stretched in time where the robot's rate limits require it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from demos_replay.log import Log
from oc_residual_gym.envs.actions import RATE_POSITION, RATE_ROTATION
from oc_residual_gym.states import CONTROL_FREQUENCY, Array
from oc_residual_gym.tasks.moves import GRASP_WAIT, RELEASE_WAIT

ROUNDING = 1.01
"""Multiple of the rate limits up to which a stored target counts as within them."""
STAYING = 0.004
"""Metres within which the hand counts as standing still while the fingers move."""


@dataclass(frozen=True)
class Path:
    """A path of P targets, one per control step."""

    targets: Array
    """(P, 8) targets: TCP pose, and gripper opening 0 or 1."""
    rows: Array
    """(P,) fractional row of the log for each target; negative on the way to the first row."""
    stretched: float
    """Fraction by which the path takes longer than the log."""


def make_path(log: Log, shift: Array, start: Array) -> Path:
    """Targets at 20 Hz along the log, shifted by ``shift`` (T, 3) metres, starting from the TCP pose ``start`` (7,).

    The path follows the log's commanded poses if it has them, else the measured ones.
    """
    wanted = (log.tcp_pose if log.target is None else log.target).copy()
    wanted[:, :3] += shift
    count = int(np.floor(log.time[-1] * CONTROL_FREQUENCY + 1e-6)) + 1
    rows = np.interp(np.arange(count) / CONTROL_FREQUENCY, log.time, np.arange(len(log.time)))
    poses = poses_at(wanted, rows)
    closed = log.gripper_closed[np.floor(rows + 1e-6).astype(int)]
    # Prepend the way from the robot's start pose.
    poses, rows, closed = np.vstack([start, poses]), np.append(-1.0, rows), np.append(closed[0], closed)
    keys = _stretch(poses)
    keys = _wait_for_fingers(keys, poses, closed)
    targets = np.empty((len(keys), 8))
    targets[:, :7] = poses_at(poses, keys)
    targets[:, 7] = ~closed[np.floor(keys + 1e-9).astype(int)]
    return Path(targets[1:], np.interp(keys, np.arange(len(rows)), rows)[1:], (len(keys) - 1) / count - 1.0)


def poses_at(poses: Array, rows: Array) -> Array:
    """(P, 7) poses at fractional rows (P,) of ``poses`` (T, 7)."""
    every = np.arange(len(poses))
    positions = np.stack([np.interp(rows, every, poses[:, i]) for i in range(3)], axis=1)
    return np.concatenate([positions, Slerp(every, Rotation.from_quat(poses[:, 3:]))(rows).as_quat()], axis=1)


def _stretch(poses: Array) -> Array:
    """Fractional rows of ``poses``, spaced such that no step exceeds the rate limits."""
    turns = Rotation.from_quat(poses[:-1, 3:]).inv() * Rotation.from_quat(poses[1:, 3:])
    moves = np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1)
    counts = np.ceil(np.maximum(moves / RATE_POSITION, turns.magnitude() / RATE_ROTATION) / ROUNDING)
    counts = np.maximum(counts, 1).astype(int)
    pieces = [i + np.arange(1, count + 1) / count for i, count in enumerate(counts)]
    return np.concatenate([[0.0], *pieces])


def _wait_for_fingers(keys: Array, poses: Array, closed: np.ndarray) -> Array:
    """``keys``, repeated after each gripper switch if the log moves on before the simulated fingers are done."""
    states = closed[np.floor(keys + 1e-9).astype(int)]
    places = poses_at(poses, keys)[:, :3]
    pieces, done = [], 0
    for switch in np.flatnonzero(np.diff(states.astype(int))) + 1:
        needed = GRASP_WAIT if states[switch] else RELEASE_WAIT
        away = np.linalg.norm(places[switch : switch + needed] - places[switch], axis=1) > STAYING
        stays = int(np.argmax(away)) if away.any() else needed
        pieces += [keys[done : switch + 1], np.full(needed - stays, keys[switch])]
        done = switch + 1
    return np.concatenate([*pieces, keys[done:]])
