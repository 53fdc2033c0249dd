"""Our own log schema, version 1: HDF5 files with demonstrations, from teleoperation or from trials.

File attributes: ``schema`` ("oc-residual-teleop"), ``version`` (1), ``synthetic`` (bool: recorded from a scripted
operator), ``description``. Each group ``/demos/<name>`` is one demonstration with T entries per dataset: entry t holds
the measurements at ``time[t]`` and the target executed from then on. Base frame, SI units, quaternions xyzw:

| dataset | shape | |
|---|---|---|
| ``time`` | (T,) | seconds from the start |
| ``target`` | (T, 8) | executed target: TCP pose and opening (below 0.45 closes, above 0.55 opens) |
| ``tcp_pose`` | (T, 7) | measured |
| ``joint_positions`` | (T, 7) | rad |
| ``gripper_width`` | (T,) | metres between the fingers |
| ``wrench`` | (T, 6) | optional: estimated external force (N) and torque (Nm) about the TCP |
| ``objects/<name>`` | (T, 7) | poses of the task's observed objects |
| ``objects_valid/<name>`` | (T,) | optional: true if the pose was measured at this entry, false if held from before |

Group attributes: ``task``, ``instruction``, ``rate`` (Hz), ``success``, ``operator``, ``pose_source`` ("simulation" for
true poses, or "tracker"); ``table_height`` (metres) if known; ``domain``, ``split`` and ``seed`` if recorded in
simulation. Trials on a robot have more attributes, and a group ``trial`` with more datasets: see
:mod:`oc_residual_gym.real.trials`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oc_residual_gym.files import write_bytes
from oc_residual_gym.hdf5 import changed
from oc_residual_gym.states import Array

SCHEMA, VERSION = "oc-residual-teleop", 1
DECIMALS = {"wrench": 2}
"""Decimal places kept per dataset; 5 for all others (10 um, 10 urad), which halves the file size."""


@dataclass(frozen=True)
class Recording:
    """One demonstration to be written to a file."""

    rows: Mapping[str, Array]
    """Dataset name to values, as in the schema."""
    attributes: Mapping[str, Any]
    """Group attributes of the demonstration."""


def add(path: Path, demos: Mapping[str, Recording], **attributes: Any) -> None:
    """Add demonstrations to the log file ``path`` and set its ``attributes``; create the file if it does not exist.

    The write is atomic.

    Raises:
        OSError: the file cannot be written.
    """
    write_bytes(path, packed(demos, before=path.read_bytes() if path.exists() else b"", **attributes))


def packed(demos: Mapping[str, Recording], before: bytes = b"", **attributes: Any) -> bytes:
    """Content of a log file with ``demos`` and ``attributes``, added to the log ``before`` if there is one.

    It is built in memory, because the HDF5 library crashes the process when the disk is full.
    """
    content = io.BytesIO(before)
    with changed(content) as file:
        file.attrs.update(schema=SCHEMA, version=VERSION, **attributes)
        for name, demo in demos.items():
            group = file.create_group(f"demos/{name}")
            group.attrs.update(demo.attributes)
            for dataset, values in demo.rows.items():
                rounded = np.round(values, DECIMALS.get(dataset, 5)).astype(np.float32)
                group.create_dataset(dataset, data=rounded, compression="gzip", compression_opts=9, shuffle=True)
    return content.getvalue()
