"""Our own log schema, version 1: what a demonstration is when we write it ourselves, teleoperated or in a trial.

File attributes: ``schema`` ("oc-residual-teleop"), ``version`` (1), ``synthetic`` (bool: recorded from a scripted
operator), ``description``. Each group ``/demos/<name>`` is one demonstration of T rows; row t holds what was measured
at ``time[t]``, and the target that was executed from there on. Base frame, SI units, quaternions xyzw:

| dataset | shape | |
|---|---|---|
| ``time`` | (T,) | seconds from the start |
| ``target`` | (T, 8) | executed target: TCP pose, and opening (below 0.45 closes, above 0.55 opens) |
| ``tcp_pose`` | (T, 7) | measured |
| ``joint_positions`` | (T, 7) | rad |
| ``gripper_width`` | (T,) | metres between the fingers |
| ``wrench`` | (T, 6) | optional: estimate of the external force and torque about the TCP |
| ``objects/<name>`` | (T, 7) | poses of the task's observed objects |
| ``objects_valid/<name>`` | (T,) | optional: was the pose measured at this row, or held from before? |

Attributes of the group: ``task``, ``instruction``, ``rate`` (Hz), ``success``, ``operator``, ``pose_source``
("simulation": true poses, or "tracker"); where known ``table_height`` (metres) and, recorded in simulation,
``domain``, ``split``, ``seed``. Trials on a robot have more attributes, and a group ``trial`` with more datasets: see
:mod:`oc_residual_gym.real.trials`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from oc_residual_gym.files import write_bytes
from oc_residual_gym.states import Array

SCHEMA, VERSION = "oc-residual-teleop", 1
DECIMALS = {"wrench": 2}
"""Digits after the point that are kept; where none are given 5, which is 10 um and 10 urad: files are half as big."""


@dataclass(frozen=True)
class Recording:
    """One demonstration on its way into a file."""

    rows: Mapping[str, Array]
    """Dataset name to values, as the schema has them."""
    attributes: Mapping[str, Any]
    """Of the demonstration."""


def add(path: Path, demos: Mapping[str, Recording], **attributes: Any) -> None:
    """Add demonstrations to the log file at ``path``, which is made where there is none, and set its ``attributes``.

    Until all is written the file stays as it was.

    Raises:
        OSError: it cannot be written.
    """
    # In memory first: where the disk is full, the HDF5 library would take the process down with it.
    content = io.BytesIO(path.read_bytes() if path.exists() else b"")
    with h5py.File(content, "r+" if path.exists() else "w") as file:
        file.attrs.update(schema=SCHEMA, version=VERSION, **attributes)
        for name, demo in demos.items():
            group = file.create_group(f"demos/{name}")
            group.attrs.update(demo.attributes)
            for dataset, values in demo.rows.items():
                rounded = np.round(values, DECIMALS.get(dataset, 5)).astype(np.float32)
                group.create_dataset(dataset, data=rounded, compression="gzip", compression_opts=9, shuffle=True)
    write_bytes(path, content.getvalue())
