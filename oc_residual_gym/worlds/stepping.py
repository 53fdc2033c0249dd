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
    diverged: BoolArray,
) -> None:
    """Copy states and readings after a control step, except for worlds whose physics diverged.

    Args:
        worlds: (n,) indices of the worlds that were stepped.
        period: seconds of simulated time that the control step must have taken.
        states_out: (N, S, nstate) states after each physics step; the last but one ends the control step.
        sensors_out: (N, S, nsensor) sensors before each physics step, so the last entry belongs to that state.
        columns: (R,) sensor column of each reading.
        tcp_column, contact_column: first column of the TCP's position and of the contact counts in the readings.
        wrench_column: first sensor column of the net contact on the hand: force, torque and point of application.
        wrench_bias: (N, 6) added to the wrench estimate, N and Nm.
        state, readings, contacts, wrench, peak_force: (N, ...) written.
        diverged: (N,) set for worlds whose state is not finite or whose time has not advanced: after a MuJoCo warning
            (bad or huge state, buffers full), the rollout repeats a state.
    """
    last = states_out.shape[1] - 2
    for n in worlds:
        if states_out[n, last, 0] - state[n, 0] < 0.99 * period or not np.isfinite(states_out[n, last]).all():
            diverged[n] = True
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
            contact = sensors_out[n, step, wrench_column : wrench_column + 9]
            # The sensor reports the force of the hand on the other bodies.
            a, b, c = -contact[0], -contact[1], -contact[2]
            u, v, w = contact[6] - x, contact[7] - y, contact[8] - z
            total[0] += a
            total[1] += b
            total[2] += c
            total[3] += -contact[3] + v * c - w * b
            total[4] += -contact[4] + w * a - u * c
            total[5] += -contact[5] + u * b - v * a
            peak = max(peak, a * a + b * b + c * c)
        for i in range(6):
            wrench[n, i] = total[i] / (last + 1) + wrench_bias[n, i]
        peak_force[n] = math.sqrt(peak)
