"""Compiled loops over the worlds, before and after the physics of a control step: controls in, readings out."""

from __future__ import annotations

import math

import numpy as np

from oc_residual_gym.compiled import njit
from oc_residual_gym.robots.constants import MAX_OPENING
from oc_residual_gym.states import Array, BoolArray, IntArray


@njit(
    "void(int64[:],int64,float64[:,:],float64[:,:],float64[:,:],float64[:],float64[:],boolean[:],float64[:],"
    "int64,int64,int64,int64,float64[:,:,:])"
)
def fill_controls(
    worlds: IntArray,
    substeps: int,
    targets: Array,
    torques: Array,
    poses: Array,
    widths: Array,
    travels: Array,
    closed: BoolArray,
    openings: Array,
    position_column: int,
    quat_column: int,
    posture_column: int,
    gripper_column: int,
    controls: Array,
) -> None:
    """Write the controls (N, S, C) of all physics steps of a control step.

    The target pose moves along the chord from the previous target; the hand's command moves at the hand's speed.

    Args:
        worlds: (n,) indices of the worlds to write.
        substeps: physics steps until the target is reached; later steps stay there.
        targets: (N, 8) position, quaternion xyzw, opening.
        torques: (N, 7) posture torque, Nm.
        poses: (N, 7) target reached in the last step: position, quaternion wxyz; updated.
        widths: (N,) measured distance between the fingers, metres.
        travels: (N,) metres that the hand's command moves per control step.
        closed: (N,) whether the hand is commanded to close; updated.
        openings: (N,) the hand's command in the last step, metres; updated.
        position_column, quat_column, posture_column, gripper_column: first column of each part of the controls.
        controls: (N, S, C) written.
    """
    start, end = np.empty(7), np.empty(7)
    for n in worlds:
        start[:] = poses[n]
        end[:3] = targets[n, :3]
        end[3] = targets[n, 6]
        end[4:] = targets[n, 3:6]
        if start[3] * end[3] + start[4] * end[4] + start[5] * end[5] + start[6] * end[6] < 0.0:
            end[3:] *= -1.0
        closing = targets[n, 7] < 0.5
        if closing != closed[n]:
            # When the hand reverses, its command starts at the measured width, not at the last command.
            openings[n] = widths[n]
        travel = -travels[n] if closing else travels[n]
        opening = openings[n]
        for step in range(controls.shape[1]):
            fraction = min((step + 1) / substeps, 1.0)
            row = controls[n, step]
            for i in range(3):
                row[position_column + i] = start[i] + fraction * (end[i] - start[i])
            for i in range(4):
                row[quat_column + i] = start[3 + i] + fraction * (end[3 + i] - start[3 + i])
            for i in range(7):
                row[posture_column + i] = torques[n, i]
            openings[n] = min(max(opening + fraction * travel, 0.0), MAX_OPENING)
            row[gripper_column] = openings[n]
        poses[n] = end
        closed[n] = closing


@njit()
def _contact_wrench(contact: Array, x: float, y: float, z: float, wrench: Array) -> None:
    """Write the wrench (6,) about the point (x, y, z) that acts on the arm, from a net contact sensor (9,).

    The sensor reports the force of the arm on the other bodies, its torque, and the point about which that is.
    """
    a, b, c = -contact[0], -contact[1], -contact[2]
    u, v, w = contact[6] - x, contact[7] - y, contact[8] - z
    wrench[0], wrench[1], wrench[2] = a, b, c
    wrench[3] = -contact[3] + v * c - w * b
    wrench[4] = -contact[4] + w * a - u * c
    wrench[5] = -contact[5] + u * b - v * a


@njit(
    "void(int64[:],float64,float64[:,:,:],float64[:,:,:],int64[:],int64,int64,int64,float64[:,:],float64[:,:],"
    "float64[:,:],boolean[:,:],float64[:,:],float64[:],boolean[:])"
)
def take_readings(
    worlds: IntArray,
    period: float,
    states_out: Array,
    sensors_out: Array,
    columns: IntArray,
    tcp_column: int,
    contact_column: int,
    wrench_column: int,
    wrench_bias: Array,
    state: Array,
    readings: Array,
    contacts: BoolArray,
    wrench: Array,
    peak_force: Array,
    stopped: BoolArray,
) -> None:
    """Copy states and readings after a control step, except for worlds that had stopped or whose physics diverged.

    Args:
        worlds: (n,) indices of the worlds that were stepped.
        period: seconds of simulated time that the control step must have taken.
        states_out: (N, S, nstate) states after each physics step; the last but one ends the control step.
        sensors_out: (N, S, nsensor) sensors before each physics step, so the last entry belongs to that state.
        columns: (R,) sensor column of each reading.
        tcp_column, contact_column: first column of the TCP's position and of the contact counts in the readings.
        wrench_column: first sensor column of the net contact on arm and hand: force, torque and point of application.
        wrench_bias: (N, 6) added to the wrench estimate, N and Nm.
        state, readings, contacts, wrench, peak_force: (N, ...) written.
        stopped: (N,) set for worlds whose state is not finite or whose time has not advanced: after a MuJoCo warning
            (bad or huge state, buffers full), the rollout repeats a state.
    """
    last = states_out.shape[1] - 2
    acting = np.empty(6)
    for n in worlds:
        if stopped[n]:
            continue
        if states_out[n, last, 0] - state[n, 0] < 0.99 * period or not np.isfinite(states_out[n, last]).all():
            stopped[n] = True
            continue
        state[n] = states_out[n, last]
        for i in range(len(columns)):
            readings[n, i] = sensors_out[n, last + 1, columns[i]]
        for i in range(contacts.shape[1]):
            contacts[n, i] = readings[n, contact_column + i] > 0.0
        x, y, z = readings[n, tcp_column], readings[n, tcp_column + 1], readings[n, tcp_column + 2]
        total = np.zeros(6)
        peak = 0.0
        for step in range(1, last + 2):
            _contact_wrench(sensors_out[n, step, wrench_column : wrench_column + 9], x, y, z, acting)
            for i in range(6):
                total[i] += acting[i]
            peak = max(peak, acting[0] * acting[0] + acting[1] * acting[1] + acting[2] * acting[2])
        for i in range(6):
            wrench[n, i] = total[i] / (last + 1) + wrench_bias[n, i]
        peak_force[n] = math.sqrt(peak)


@njit(
    "void(int64[:],float64[:,:,:],int64,float64[:,:],float64[:,:,:],float64[:,:,:],float64[:,:],float64,"
    "float64[:],float64[:],float64[:,:],boolean[:],boolean[:])"
)
def check_reflex(
    worlds: IntArray,
    sensors_out: Array,
    wrench_column: int,
    tcp: Array,
    axes: Array,
    anchors: Array,
    bias: Array,
    gain: float,
    wrench_limits: Array,
    torque_limits: Array,
    filtered: Array,
    reflex: BoolArray,
    stopped: BoolArray,
) -> None:
    """Stop worlds whose robot feels more than its reflex allows: the robot's own check, after every physics step.

    The external joint torques are those of the wrench, as if all contacts were on the hand: ``J^T w``.

    Args:
        worlds: (n,) indices of the worlds that were stepped.
        sensors_out: (N, S, nsensor) sensors before each physics step.
        wrench_column: first sensor column of the net contact on arm and hand.
        tcp: (N, 7) pose of the TCP, base frame; only its position, in metres, is used.
        axes, anchors: (N, 7, 3) unit vectors along the joint axes and points on them, base frame, metres.
        bias: (N, 6) bias of the robot's estimate, N and Nm.
        gain: share of a new value in the low-pass filter, per physics step.
        wrench_limits, torque_limits: (6,) and (7,) thresholds on wrench and joint torques, N and Nm.
        filtered: (N, 6) filtered contact wrench about the TCP, without bias; updated.
        reflex: (N,) set for worlds whose estimate exceeds a threshold.
        stopped: (N,) worlds that are already stopped are left alone; set like ``reflex``.
    """
    acting, arms = np.empty(6), np.empty((7, 6))
    for n in worlds:
        if stopped[n]:
            continue
        x, y, z = tcp[n, 0], tcp[n, 1], tcp[n, 2]
        for j in range(7):
            a, b, c = axes[n, j, 0], axes[n, j, 1], axes[n, j, 2]
            u, v, w = x - anchors[n, j, 0], y - anchors[n, j, 1], z - anchors[n, j, 2]
            arms[j, 0], arms[j, 1], arms[j, 2] = b * w - c * v, c * u - a * w, a * v - b * u
            arms[j, 3], arms[j, 4], arms[j, 5] = a, b, c
        for step in range(1, sensors_out.shape[1]):
            _contact_wrench(sensors_out[n, step, wrench_column : wrench_column + 9], x, y, z, acting)
            for i in range(6):
                filtered[n, i] += gain * (acting[i] - filtered[n, i])
                acting[i] = filtered[n, i] + bias[n, i]
                if abs(acting[i]) > wrench_limits[i]:
                    reflex[n] = True
            for j in range(7):
                torque = 0.0
                for i in range(6):
                    torque += arms[j, i] * acting[i]
                if abs(torque) > torque_limits[j]:
                    reflex[n] = True
        stopped[n] = reflex[n]
