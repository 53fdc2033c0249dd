"""Reader of DROID's ``trajectory.h5``: one demonstration of a Franka arm per file, in the base frame, at 15 Hz.

Conventions are from the writer's source (https://github.com/droid-dataset/droid: ``trajectory_writer``, ``robot_env``,
``franka/robot``, ``robot_ik_solver``, ``oculus_controller``): ``cartesian_position`` is the pose of the flange with
extrinsic xyz Euler angles, ``gripper_position`` is 0 open and 1 closed, row t of ``action`` follows row t of
``observation``. A file does not name its gripper: add the attribute ``gripper`` ("robotiq_2f85" or "franka_hand") to
it, or the gripper is inferred from the flange's heading (:func:`_gripper`).
"""

from __future__ import annotations

import h5py
import numpy as np
from scipy.ndimage import binary_opening
from scipy.spatial.transform import Rotation

from demos_replay.log import Log, LogError
from demos_replay.readers.arms import (
    FRANKA_HAND,
    GRIPPERS,
    ROBOTIQ_2F85,
    Gripper,
    check_joints,
    check_reach,
    check_rows,
    clock,
    follow,
    poses_from_euler,
)
from demos_replay.readers.content import ONLY_DEMO, check_only_demo, number, numbers, subgroup, text
from oc_residual_gym.robots.kinematics import carried, flange_pose
from oc_residual_gym.states import Array, BoolArray

NAME = "droid"
LOOKED_FOR = "groups action and observation/robot_state (trajectory.h5; DROID's MCAP files are not HDF5)"

RATE = 15.0
"""Rows per second (``robot_env``: control_hz)."""
JOINT_STEP = 0.2
"""Maximum commanded motion of a joint per row, radians (``robot_ik_solver``: relative_max_joint_delta)."""
GRIPPER_STEP = 0.25
"""Fraction of the gripper's range per row at a velocity of 1 (``robot_ik_solver``: max_gripper_delta)."""
PUSHING = 0.1
"""Minimum lead of the command over pressing fingers, as a fraction of the gripper's range."""
STILL = 0.01
"""Maximum motion of still fingers per row, as a fraction of the gripper's range."""
STILL_ROWS = 9
"""Minimum rows (0.6 s) that fingers are still when they hold something: longer than they take to start moving."""
COMMAND_DISTANCE = 0.05
"""Maximum metres between a commanded pose and the measured one that follows it, after removing the lag."""


def matches(file: h5py.File) -> bool:
    return isinstance(file.get("action"), h5py.Group) and isinstance(file.get("observation/robot_state"), h5py.Group)


def demos(file: h5py.File) -> list[str]:
    return [ONLY_DEMO]


def read(file: h5py.File, name: str) -> Log:
    check_only_demo(name)
    state, action = subgroup(file, "observation/robot_state"), subgroup(file, "action")
    facts = ["Poses are in the base frame of the robot, in metres.", _verdict(file)]
    assumptions = ["The table's top is level with the robot's base: the file does not tell its height."]

    joints = None
    if "joint_positions" in state:
        check_rows(state, "joint_positions")
        joints = numbers(state, "joint_positions", (7,))
        check_joints(joints, "observation/robot_state/joint_positions")
        flange = flange_pose(joints)
        facts.append("Measured poses are computed from the measured joint positions.")
    else:
        flange = _poses(state, "cartesian_position", None)
        assumptions.append(
            "There are no joint positions: observation/robot_state/cartesian_position is taken for the flange's pose."
        )
    rows = len(flange)
    time, rate = _time(file, rows, facts, assumptions)
    kept = _enabled(file, rows)
    if not kept.all():
        facts.append(
            f"{rows - kept.sum()} of {rows} rows are dropped: the operator had disabled movement (the arm held still)."
        )
        time = _without_gaps(time, kept, rate)

    gripper = _gripper(file, flange[kept][0], facts, assumptions)
    tcp = carried(flange, gripper.tcp)[kept]
    target, lag = _target(action, rows, kept, gripper, tcp, rate, facts, assumptions)
    closure = _closure(state, "gripper_position", rows) if "gripper_position" in state else None
    return Log(
        file=file.filename,
        name=name,
        format=NAME,
        rate=rate,
        time=time,
        tcp_pose=tcp,
        gripper_closed=_closed(action, closure, rows, facts, assumptions)[kept],
        target=target,
        gripper_width=None if closure is None else (1.0 - closure[kept]) * gripper.max_width,
        joint_positions=None if joints is None else joints[kept],
        lag=lag,
        instruction=text(file, "language_instruction") or text(file, "current_task") or "",
        facts=tuple(facts),
        assumptions=tuple(assumptions),
    )


def _verdict(file: h5py.File) -> str:
    success, failure = number(file, "success"), number(file, "failure")
    if success is None and failure is None:
        return "The file does not say whether the operator judged it a success."
    return f"The operator judged it a {'success' if success else 'failure'}."


def _poses(group: h5py.Group, name: str, rows: int | None) -> Array:
    """Poses (T, 7) from dataset ``name`` of positions and Euler angles (T, 6)."""
    where = f"{group.name.lstrip('/')}/{name}"
    check_rows(group, name)
    values = numbers(group, name, (6,), rows)
    check_reach(values[:, :3], where)
    return poses_from_euler(values, where)


def _time(file: h5py.File, rows: int, facts: list[str], assumptions: list[str]) -> tuple[Array, float]:
    """Time (T,) in seconds, and the nominal rate in Hz."""
    where = "observation/timestamp/robot_state"
    stamps = file.get(where)
    if isinstance(stamps, h5py.Group) and "read_start" in stamps:
        source, values = "read_start", numbers(stamps, "read_start", (), rows)
    elif isinstance(stamps, h5py.Group) and "robot_timestamp_seconds" in stamps:
        source, values = "robot_timestamp_*", numbers(stamps, "robot_timestamp_seconds", (), rows)
        if "robot_timestamp_nanos" in stamps:
            values = (values - values[0]) + 1e-9 * numbers(stamps, "robot_timestamp_nanos", (), rows)
    else:
        assumptions.append(f"There are {RATE:g} rows per second, DROID's rate: the file has no time stamps.")
        return np.arange(rows) / RATE, RATE
    time, unit = clock(values, f"{where}/{source}")
    steps = np.diff(time)
    measured = float(1.0 / np.median(steps))
    rate = RATE if abs(measured - RATE) < 0.1 * RATE else round(measured, 2)
    facts.append(f"Time is {source} in {unit}: {measured:.2f} Hz, the longest step {steps.max():.2f} s.")
    return time, rate


def _enabled(file: h5py.File, rows: int) -> BoolArray:
    """(T,) True in rows in which the operator had enabled movement."""
    info = file.get("observation/controller_info")
    if not isinstance(info, h5py.Group) or "movement_enabled" not in info:
        return np.ones(rows, dtype=bool)
    enabled = numbers(info, "movement_enabled", (), rows) > 0.5
    if enabled.sum() < 2:
        raise LogError(f"movement was enabled in {enabled.sum()} of {rows} rows: nothing was demonstrated")
    return enabled


def _without_gaps(time: Array, kept: BoolArray, rate: float) -> Array:
    """Time in seconds of the ``kept`` rows; a gap of dropped rows becomes one nominal step."""
    indices = np.flatnonzero(kept)
    steps = np.where(np.diff(indices) == 1, np.diff(time[kept]), 1.0 / rate)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _gripper(file: h5py.File, start: Array, facts: list[str], assumptions: list[str]) -> Gripper:
    """Identify the gripper on the flange, whose first pose is ``start`` (7,).

    DROID's arms carry a Robotiq 2F-85 aligned with the flange's axes, and start with the flange aligned with the base
    (joint 7 at 0). A Franka Hand is mounted at 45 degrees, so its arm starts with the flange turned by 45 degrees.
    """
    named = text(file, "gripper")
    if named is not None:
        if named not in GRIPPERS:
            raise LogError(f"the attribute 'gripper' is {named!r}; known are {', '.join(GRIPPERS)}")
        facts.append(f"The gripper is {GRIPPERS[named].description}, as the file's attribute says.")
        return GRIPPERS[named]
    rotation = Rotation.from_quat(start[3:]).as_matrix()
    heading = np.degrees(np.arctan2(rotation[1, 0], rotation[0, 0]))
    askew = abs((heading + 45.0) % 90.0 - 45.0)
    gripper = ROBOTIQ_2F85 if askew < 22.5 else FRANKA_HAND
    assumptions.append(
        f"The gripper is {gripper.description}, its fingertips meeting {1000 * gripper.tcp[2]:.0f} mm from the flange, "
        f"because the flange starts {askew:.0f} degrees off the base's axes (0 is usual for a Robotiq 2F-85, 45 for a "
        "Franka Hand; an attribute 'gripper' of the file would decide)."
    )
    return gripper


def _target(
    action: h5py.Group,
    rows: int,
    kept: BoolArray,
    gripper: Gripper,
    tcp: Array,
    rate: float,
    facts: list[str],
    assumptions: list[str],
) -> tuple[Array | None, float]:
    """Commanded TCP poses of the kept rows if they are absolute, else ``None``; and their lag in seconds."""
    if "cartesian_position" in action:
        source, flange = "cartesian_position", _poses(action, "cartesian_position", rows)
    elif "joint_position" in action:
        source, joints = "joint_position", numbers(action, "joint_position", (7,), rows)
        check_joints(joints, "action/joint_position", beyond=JOINT_STEP)
        flange = flange_pose(joints)
    elif {"cartesian_velocity", "joint_velocity"} & set(action):
        assumptions.append("Commands are velocities only: the measured poses stand for them.")
        return None, 0.0
    else:
        raise LogError(
            "the action space is unknown: action holds none of cartesian_position, joint_position, cartesian_velocity "
            f"and joint_velocity (it has {', '.join(action) or 'nothing'})"
        )
    target = carried(flange, gripper.tcp)[kept]
    return follow(target, tcp, f"action/{source}", rate, COMMAND_DISTANCE, facts, assumptions)


def _closure(group: h5py.Group, name: str, rows: int) -> Array:
    """Gripper closure (T,) from 0 (open) to 1 (closed)."""
    closure = numbers(group, name, (), rows)
    if closure.min() < -0.1 or closure.max() > 1.1:
        raise LogError(
            f"{group.name}/{name} goes from {closure.min():.4g} to {closure.max():.4g}; expected 0 (open) to 1 (closed)"
        )
    return np.clip(closure, 0.0, 1.0)


def _closed(
    action: h5py.Group, closure: Array | None, rows: int, facts: list[str], assumptions: list[str]
) -> BoolArray:
    """(T,) True in rows whose command asks for closed fingers."""
    trigger = action.get("target_gripper_position")
    if isinstance(trigger, h5py.Dataset) and trigger.shape == (rows,):
        facts.append("The gripper's command is action/target_gripper_position: above 0.5 it asks for closed fingers.")
        return _closure(action, "target_gripper_position", rows) > 0.5
    velocities = [name for name in ("gripper_delta", "gripper_velocity") if name in action]
    if "gripper_position" in action:
        source, command = "gripper_position", _closure(action, "gripper_position", rows)
    elif velocities and closure is not None:
        # In position mode DROID stores the velocity as gripper_delta.
        source, velocity = velocities[0], numbers(action, velocities[0], (), rows)
        command = closure + GRIPPER_STEP * np.clip(velocity, -1.0, 1.0)
    elif closure is not None:
        assumptions.append("There is no command of the gripper: fingers measured more than half closed stand for it.")
        return closure > 0.5
    else:
        raise LogError("neither action nor observation/robot_state tells what the gripper did")
    facts.append(
        f"The gripper's command is action/{source} (0 open, 1 closed): above 0.5, or pressing fingers that are still, "
        "it asks for closed fingers."
    )
    if closure is None:
        return command > 0.5
    # Around a wide object the fingers stay half open, with a velocity command only just ahead of them.
    pressing = (command - closure > PUSHING) & (np.abs(np.gradient(closure)) < STILL)
    held: BoolArray = binary_opening(pressing, np.ones(STILL_ROWS))
    return (command > 0.5) | held
