"""Reader of episodes of one Franka arm as ACT and its successors store them: ``episode_<n>`` or ``trajectory.hdf5``.

Two layouts are read:

- ``/observations/qpos`` (measured) and ``/action`` (commanded), as ACT and ALOHA have them
  (https://github.com/tonyzhaozh/act), with joints or end-effector poses;
- ``/puppet/joint_position`` (measured) and ``/master/joint_position`` (commanded), with ``/puppet/end_effector``, as
  RoboMIND has them (https://github.com/x-humanoid-robomind, ``all_robot_h5_info.md``).

Neither names its columns: :mod:`.columns` infers them from the values.
"""

from __future__ import annotations

from dataclasses import dataclass

import h5py
import numpy as np

from demos_replay.log import Log, LogError
from demos_replay.readers.arms import check_rows, clock, follow, rate_attribute, top_speed
from demos_replay.readers.columns import Columns, check_width, fingers, understand
from demos_replay.readers.content import ONLY_DEMO, check_only_demo, number, numbers, text
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.robots.kinematics import flange_pose
from oc_residual_gym.states import Array

NAME = "act"
LOOKED_FOR = "dataset action or observations/qpos, or puppet/joint_position (episode_<n>.hdf5, trajectory.hdf5)"

COMMAND_DISTANCE = 0.15
"""Maximum metres between a command and its measured pose; farther commands are relative or in another frame."""
CLOCKS = tuple(f"{group}{name}" for group in ("", "observations/") for name in ("timestamp", "timestamps", "time"))


@dataclass(frozen=True)
class _Layout:
    """Dataset names and rate of one layout."""

    measured: str
    commanded: str
    rate: float
    """Rows per second if the file does not say."""
    rate_source: str


ACT = _Layout("observations/qpos", "action", 50.0, "ALOHA's")
ROBOMIND = _Layout("puppet/joint_position", "master/joint_position", 30.0, "RoboMIND's, by its authors")


def matches(file: h5py.File) -> bool:
    if any(isinstance(file.get(name), h5py.Dataset) for name in ("action", ACT.measured)):
        return True
    return any(key.startswith("joint_position") for arm in _arms(file) for key in arm)


def demos(file: h5py.File) -> list[str]:
    return [ONLY_DEMO]


def read(file: h5py.File, name: str) -> Log:
    check_only_demo(name)
    layout = ROBOMIND if "puppet" in file or "master" in file else ACT
    facts: list[str] = []
    assumptions = ["The table's top is level with the robot's base: the file does not tell its height."]
    sides = [f"{arm.name}/{key}" for arm in _arms(file) for key in arm if key.endswith(("_left", "_right"))]
    if sides:
        raise LogError(f"it has {', '.join(sides[:2])}: two arms, not one Franka arm")
    source = layout.measured
    if layout is ACT and source not in file:
        source = layout.commanded
        assumptions.append("There is no observations/qpos: the commanded poses stand for the measured ones.")
    check_rows(file, source)
    measured = numbers(file, source, (None,))
    state = understand(measured, source)
    if layout is ROBOMIND and state.joints is None:
        raise LogError(f"{source} holds no joint positions. {state.meaning}")
    rows = len(measured)
    facts.append(state.meaning)
    assumptions += state.assumptions
    if number(file, "sim"):
        facts.append("The file says that it was recorded in a simulation.")
    time, rate = _time(file, rows, layout, facts, assumptions)
    facts.append(f"The TCP moves at up to {top_speed(state.tcp[:, :3], time):.2f} m/s.")
    if state.joints is not None and "puppet/end_effector" in file:
        facts.append(_compare(numbers(file, "puppet/end_effector", (None,), rows)[:, :3], state))

    target, lag = None, 0.0
    hand = command = fingers(measured[:, -1], source)
    if source != layout.commanded and layout.commanded in file:
        commanded = numbers(file, layout.commanded, (None,), rows)
        target, lag = _target(commanded, layout.commanded, state, rate, facts, assumptions)
        command = fingers(commanded[:, -1], layout.commanded)
        if command.move or not hand.move:
            hand = fingers(measured[:, -1], source, command.more_is_open)
            assumptions += command.assumptions
        else:
            command = hand
    if command is hand:
        assumptions.append(f"The gripper's command is inferred from {source}: there is no other, or none that moves.")
    assumptions += hand.assumptions
    return Log(
        file=file.filename,
        name=name,
        format=NAME,
        rate=rate,
        time=time,
        tcp_pose=state.tcp,
        gripper_closed=command.closed,
        target=target,
        # A commanded opening is not a measurement: closed fingers may hold something.
        gripper_width=None if source == layout.commanded else hand.opening * MAX_OPENING,
        joint_positions=state.joints,
        lag=lag,
        instruction=text(file, "language_instruction") or text(file, "instruction") or text(file, "task") or "",
        facts=tuple(facts),
        assumptions=tuple(assumptions),
    )


def _arms(file: h5py.File) -> list[h5py.Group]:
    """RoboMIND's groups of the robot (puppet) and of the device that drives it (master), if present."""
    return [item for name in ("puppet", "master") if isinstance(item := file.get(name), h5py.Group)]


def _time(file: h5py.File, rows: int, layout: _Layout, facts: list[str], assumptions: list[str]) -> tuple[Array, float]:
    """Time (T,) in seconds, and the nominal rate in Hz."""
    stated = rate_attribute(file)
    for name in CLOCKS:
        if isinstance(file.get(name), h5py.Dataset):
            time, unit = clock(numbers(file, name, (), rows), name)
            rate = round(float(1.0 / np.median(np.diff(time))), 2)
            facts.append(f"Time is {name} in {unit}: {rate:g} Hz.")
            return time, rate
    if stated is not None:
        rate, attribute = stated
        facts.append(f"There are {rate:g} rows per second, as the attribute {attribute!r} says.")
    else:
        rate = layout.rate
        assumptions.append(f"There are {rate:g} rows per second ({layout.rate_source} rate): the file does not tell.")
    return np.arange(rows) / rate, rate


def _compare(stored: Array, state: Columns) -> str:
    """A sentence on how far stored end-effector positions (T, 3) are from the TCP and from the flange."""
    assert state.joints is not None
    flange = flange_pose(state.joints)
    distances = [1000 * float(np.median(np.linalg.norm(stored - p[:, :3], axis=1))) for p in (state.tcp, flange)]
    return (
        f"Measured poses are computed from the joint positions; puppet/end_effector lies {distances[0]:.0f} mm from "
        f"the TCP and {distances[1]:.0f} mm from the flange that they give."
    )


def _target(
    commanded: Array, source: str, state: Columns, rate: float, facts: list[str], assumptions: list[str]
) -> tuple[Array | None, float]:
    """Commanded poses (T, 7) if they are absolute, and their lag in seconds."""
    check_width(commanded, source)
    try:
        command = understand(commanded, source)
    except LogError as error:
        assumptions.append(f"The measured poses stand for {source}: it is relative, or of another frame ({error}).")
        return None, 0.0
    facts.append(command.meaning)
    assumptions += [assumption for assumption in command.assumptions if assumption not in assumptions]
    return follow(command.tcp, state.tcp, source, rate, COMMAND_DISTANCE, facts, assumptions)
