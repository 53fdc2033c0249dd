"""SimWorld: N simulated FR3 worlds, stepped together on threads. No world affects another one, bit for bit."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from oc_residual_gym.errors import StopReason
from oc_residual_gym.geometry import WXYZ_FROM_XYZW, XYZW_FROM_WXYZ
from oc_residual_gym.robots.constants import FINGER_SPEED, MAX_OPENING
from oc_residual_gym.robots.reflex import WRENCH_FILTER
from oc_residual_gym.states import CONTROL_FREQUENCY, Array, BoolArray, IntArray, RobotState, TrueState
from oc_residual_gym.tasks.base import InitialState, Task
from oc_residual_gym.worlds.domains import DOMAINS, Domain, EpisodePhysics, ModelIndex, apply_physics
from oc_residual_gym.worlds.impedance import posture_torque
from oc_residual_gym.worlds.scene import HAND_MASS, PHYSICS_TIMESTEP, TCP_SITE, Scene, build_scene
from oc_residual_gym.worlds.stepping import check_reflex, fill_controls, take_readings
from oc_residual_gym.worlds.visuals import Visuals

SUBSTEPS = round(1.0 / (CONTROL_FREQUENCY * PHYSICS_TIMESTEP))
"""Physics steps per control step."""

_CONTROL = (
    mujoco.mjtState.mjSTATE_CTRL.value
    | mujoco.mjtState.mjSTATE_MOCAP_POS.value
    | mujoco.mjtState.mjSTATE_MOCAP_QUAT.value
)
# One extra physics step: MuJoCo computes sensors before a step, so the readings after step 25 come with step 26.
_STEPS = SUBSTEPS + 1
_POSE_WXYZ = np.array([0, 1, 2, 6, 3, 4, 5])


class SimWorld:
    """N simulated worlds of one task.

    Args:
        task: task whose scene is simulated.
        num_worlds: N.
        domain: distribution of the episodes' physics, and thresholds of the robot's reflex. In a nominal domain, all
            worlds share one model.
        threads: number of threads that step the worlds; by default one per core, at most one per world.
    """

    speed = 1.0

    def __init__(self, task: Task, num_worlds: int, *, domain: Domain = DOMAINS["nominal"], threads: int | None = None):
        self.task = task
        self.num_worlds = num_worlds
        self.scene = build_scene(task)
        model = self.scene.model
        self._shared_physics = domain.is_nominal
        self.models = [model if self._shared_physics else copy.copy(model) for _ in range(num_worlds)]
        self.physics = [EpisodePhysics()] * num_worlds
        self._index = _model_index(self.scene)
        cores = os.cpu_count() or 1 if threads is None else threads
        self._threads = min(cores, num_worlds) if num_worlds > 1 else 0
        self._rollout = Rollout(nthread=self._threads)
        self._data = [mujoco.MjData(model) for _ in range(max(1, self._threads))]
        self._state_size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value)
        self._reflex_limits = domain.reflex.wrench, domain.reflex.torques
        self._allocate(model, domain.latency[1])

    def _allocate(self, model: mujoco.MjModel, max_latency: int) -> None:
        n, scene = self.num_worlds, self.scene
        self.stopped: BoolArray = np.zeros(n, bool)
        """(N,) whether physics has diverged or the robot's reflex has stopped the arm. The world then stays still."""
        self.peak_contact_force = np.zeros(n)
        """(N,) largest net contact force on arm and hand within the last step, in newtons."""
        self._state = np.zeros((n, self._state_size))
        self._control = np.zeros((n, _STEPS, model.nu + 7 * model.nmocap))
        self._states_out = np.zeros((n, _STEPS, self._state_size))
        self._sensors_out = np.zeros((n, _STEPS, model.nsensordata))
        self._everyone = np.arange(n)
        self._target = np.zeros((n, 7))  # position, quaternion wxyz
        self._pending = np.zeros((n, max_latency + 1, 8))
        self._latency = np.zeros(n, np.int64)
        self._wrench_bias = np.zeros((n, 6))
        self._robots_bias = np.zeros((n, 6))
        self._felt = np.zeros((n, 6))
        self._reflex = np.zeros(n, bool)
        self._finger_travel = np.zeros(n)
        self._gripper_command = np.zeros(n)
        self._gripper_closed = np.zeros(n, bool)
        # Columns of a control row: ctrl, then all mocap positions, then all mocap quaternions.
        self._posture_column = model.actuator(_motor(1)).id
        self._gripper_column = model.actuator("gripper").id
        self._target_position, self._target_quat = _mocap_columns(model, "target")
        self._fixture_columns = {name: _mocap_columns(model, f"{name}_main") for name in scene.fixtures}
        self._allocate_readings()

    def _allocate_readings(self) -> None:
        """Allocate ``_readings``, which one gather per step fills; the states below are views of it."""
        n, sensors, bodies = self.num_worlds, self.scene.sensors, self.scene.bodies
        columns: list[int] = []
        views: dict[str, slice] = {}
        for group, source in sensors.items():
            if group == "wrench":
                continue
            indices = list(range(source.start, source.stop))
            if group in ("tcp_pose", "poses"):
                frames = np.reshape(indices, (-1, 7))
                indices = np.concatenate([frames[:, :3], frames[:, 3:][:, XYZW_FROM_WXYZ]], axis=1).ravel().tolist()
            views[group] = slice(len(columns), len(columns) + len(indices))
            columns += indices
        self._columns = np.array(columns)
        self._readings = np.zeros((n, len(columns)))
        values = {group: self._readings[:, view] for group, view in views.items()}
        self._joint_axes = values["joint_axes"].reshape(n, 7, 3)
        self._joint_anchors = values["joint_anchors"].reshape(n, 7, 3)
        self._wrench_column = sensors["wrench"].start
        self._tcp_column = views["tcp_pose"].start
        self._contact_column = views["contacts"].start if "contacts" in views else 0
        self.robot = RobotState(
            joint_positions=values["joint_positions"],
            joint_velocities=values["joint_velocities"],
            tcp_pose=values["tcp_pose"],
            tcp_velocity=values["tcp_velocity"],
            gripper_width=values["gripper_width"][:, 0],
            wrench=np.zeros((n, 6)),
        )
        self._contact_counts = values.get("contacts", np.zeros((n, 0)))
        self._contacts = np.zeros(self._contact_counts.shape, bool)
        poses = values["poses"].reshape(n, len(bodies), 7)
        velocities = values["velocities"].reshape(n, len(bodies), 6)
        slides = values.get("slides", np.zeros((n, 0))).reshape(n, -1, 2)
        self._parameters: dict[str, Array] = {}
        self.true = TrueState(
            poses={b: poses[:, i] for i, b in enumerate(bodies)},
            velocities={b: velocities[:, i] for i, b in enumerate(bodies)},
            contacts={c: self._contacts[:, i] for i, c in enumerate(self.task.contacts)},
            slides={d: slides[:, i] for i, d in enumerate(self.scene.drawers)},
            parameters=self._parameters,
            table_height=np.zeros(n),
            tcp_pose=self.robot.tcp_pose,
            gripper_width=self.robot.gripper_width,
        )

    @property
    def critic_state(self) -> Array:
        """(N, 13 B + C) true poses (B x 7), velocities (B x 6) and contacts (C), as a copy; privileged."""
        blocks = [*self.true.poses.values(), *self.true.velocities.values(), self._contacts]
        return np.concatenate(blocks, axis=1)

    def reset(self, worlds: IntArray, starts: Sequence[InitialState], physics: Sequence[EpisodePhysics]) -> None:
        """Start an episode in each of ``worlds``. No model is compiled, and no other world is touched."""
        for world, start, episode in zip(worlds, starts, physics, strict=True):
            self._reset_one(int(world), start, episode)
        self._sense(worlds)
        self.robot.wrench[worlds] = self._wrench_bias[worlds]
        self.peak_contact_force[worlds] = 0.0
        self._felt[worlds] = 0.0
        self._reflex[worlds] = self.stopped[worlds] = False
        tcp_pose = self.robot.tcp_pose[worlds]
        self._target[worlds] = tcp_pose[:, _POSE_WXYZ]
        self._pending[worlds, :, :7] = tcp_pose[:, None]
        self._pending[worlds, :, 7] = ~self._gripper_closed[worlds, None]

    def place(self, world: int, qpos: Array, qvel: Array) -> None:
        """Set the state of ``world`` to that of a simulation run elsewhere: (nq,), (nv,). Fixtures do not move."""
        self._state[world, 1 : 1 + len(qpos) + len(qvel)] = np.concatenate([qpos, qvel])
        self._sense(np.array([world]))

    def _sense(self, worlds: IntArray) -> None:
        """Take readings in the current state of ``worlds``, without advancing it."""
        self._run(worlds, 1)
        self._readings[worlds] = self._sensors_out[worlds, 0][:, self._columns]
        self._contacts[worlds] = self._contact_counts[worlds] > 0

    def _reset_one(self, world: int, start: InitialState, physics: EpisodePhysics) -> None:
        scene = self.scene
        self.physics[world] = physics
        if not self._shared_physics:
            apply_physics(physics, scene.model, self.models[world], self._index)
        self._latency[world] = physics.latency
        self._wrench_bias[world] = self._robots_bias[world] = physics.wrench_bias
        # A cell tares its readings at home, where the payload's error shows too; the robot's own check is not tared.
        self._robots_bias[world, 2] += physics.payload * scene.model.opt.gravity[2]
        self._finger_travel[world] = FINGER_SPEED * physics.gripper_speed / CONTROL_FREQUENCY
        self._gripper_closed[world] = start.gripper_closed
        self._gripper_command[world] = 0.0 if start.gripper_closed else MAX_OPENING
        self.true.table_height[world] = physics.table_height
        for name, value in start.parameters.items():
            self._parameters.setdefault(name, np.zeros(self.num_worlds))[world] = value
        qpos = scene.home.copy()
        if start.gripper_closed:
            qpos[scene.finger_qpos] = 0.0
        lift = np.array([0.0, 0.0, physics.table_height])
        for name, address in scene.free_qpos.items():
            pose = start.poses[name]
            qpos[address : address + 3] = pose[:3] + lift
            qpos[address + 3 : address + 7] = pose[3:][WXYZ_FROM_XYZW]
        for name, opening in start.slides.items():
            qpos[scene.slide_qpos[name]] = opening
        row = self._control[world]
        for name, (position, quat) in self._fixture_columns.items():
            row[:, position] = start.poses[name][:3] + lift
            row[:, quat] = start.poses[name][3:][WXYZ_FROM_XYZW]
        self._state[world] = 0.0
        self._state[world, 1 : 1 + len(qpos)] = qpos

    def step(self, targets: Array, worlds: IntArray | None = None) -> None:
        """Track ``targets`` (N, 8) for one control step in ``worlds`` (default: all); the other worlds stay still.

        Targets are interpolated over the step: positions linearly, rotations along the chord of the quaternions.
        """
        rows: slice | IntArray = slice(None) if worlds is None else worlds
        self._command(targets, rows)
        self._run(worlds, _STEPS)
        self._read(rows)

    def _command(self, targets: Array, rows: slice | IntArray) -> None:
        """Fill the controls from the targets (delayed by the domain's latency) and the posture torque."""
        if not self._shared_physics:
            self._pending[rows, 1:] = self._pending[rows, :-1]
            self._pending[rows, 0] = targets[rows]
            targets = self._pending[np.arange(self.num_worlds), self._latency]
        robot = self.robot
        torques = posture_torque(
            self._joint_axes,
            self._joint_anchors,
            robot.tcp_pose[:, :3],
            robot.joint_positions,
            robot.joint_velocities,
        )
        fill_controls(
            self._everyone[rows],
            SUBSTEPS,
            targets,
            torques,
            self._target,
            robot.gripper_width,
            self._finger_travel,
            self._gripper_closed,
            self._gripper_command,
            self._target_position.start,
            self._target_quat.start,
            self._posture_column,
            self._gripper_column,
            self._control,
        )

    def _run(self, worlds: IntArray | None, steps: int) -> None:
        """Run physics steps in the given worlds, from ``_state`` under ``_control``, into the output buffers."""
        if worlds is None and steps == _STEPS:
            models, state, control = self.models, self._state, self._control
            states_out, sensors_out = self._states_out, self._sensors_out
        else:
            rows = np.arange(self.num_worlds) if worlds is None else worlds
            models = [self.models[i] for i in rows]
            state, control = self._state[rows], np.ascontiguousarray(self._control[rows, :steps])
            states_out = np.empty((len(rows), steps, self._state_size))
            sensors_out = np.empty((len(rows), steps, self._sensors_out.shape[2]))
        self._rollout.rollout(
            models,
            self._data,
            state,
            control,
            control_spec=_CONTROL,
            skip_checks=True,
            nstep=steps,
            state=states_out,
            sensordata=sensors_out,
        )
        if states_out is not self._states_out:
            self._states_out[rows, :steps] = states_out
            self._sensors_out[rows, :steps] = sensors_out

    def _read(self, rows: slice | IntArray) -> None:
        """Copy states and readings from the output buffers, and stop worlds that diverged or whose reflex has acted."""
        take_readings(
            self._everyone[rows],
            1.0 / CONTROL_FREQUENCY,
            self._states_out,
            self._sensors_out,
            self._columns,
            self._tcp_column,
            self._contact_column,
            self._wrench_column,
            self._wrench_bias,
            self._state,
            self._readings,
            self._contacts,
            self.robot.wrench,
            self.peak_contact_force,
            self.stopped,
        )
        check_reflex(
            self._everyone[rows],
            self._sensors_out,
            self._wrench_column,
            self.robot.tcp_pose,
            self._joint_axes,
            self._joint_anchors,
            self._robots_bias,
            PHYSICS_TIMESTEP / WRENCH_FILTER,
            *self._reflex_limits,
            self._felt,
            self._reflex,
            self.stopped,
        )

    def physics_state(self, world: int) -> tuple[Array, Array, Array]:
        """Inputs of a renderer: joint positions (nq,), and positions (M, 3) and wxyz (M, 4) of the mocap bodies."""
        model = self.scene.model
        mocap = self._control[world, -1, model.nu :]
        quats = 3 * model.nmocap
        return self._state[world, 1 : 1 + model.nq], mocap[:quats].reshape(-1, 3), mocap[quats:].reshape(-1, 4)

    def stop_reason(self, world: int) -> str:
        """Return "diverged" or "robot_reflex" if the world has stopped, else ""."""
        if self._reflex[world]:
            return str(StopReason.ROBOT_REFLEX)
        return "diverged" if self.stopped[world] else ""

    def image(self, world: int, camera: str) -> NDArray[np.uint8]:
        """Image (128, 128, 3) of a policy camera, "shoulder" or "wrist"."""
        from oc_residual_gym.worlds.render import POLICY_IMAGE_SIZE

        return self.render(world, camera, POLICY_IMAGE_SIZE)

    def render(self, world: int, camera: str, size: tuple[int, int], visuals: Visuals = "light") -> NDArray[np.uint8]:
        """Image (height, width, 3) of one world; see :class:`oc_residual_gym.worlds.render.SceneRenderer`."""
        from oc_residual_gym.worlds.render import shared_renderer

        return shared_renderer(self.task, visuals, size).image(self, world, camera)

    def close(self) -> None:
        """Stop the threads."""
        self._rollout.close()


def _motor(joint: int) -> str:
    return f"robot0_torq_j{joint}"


def _mocap_columns(model: mujoco.MjModel, body: str) -> tuple[slice, slice]:
    """Columns of the controls that hold the position and the quaternion of a mocap body."""
    mocap = int(model.body(body).mocapid[0])
    position = model.nu + 3 * mocap
    quat = model.nu + 3 * model.nmocap + 4 * mocap
    return slice(position, position + 3), slice(quat, quat + 4)


def _model_index(scene: Scene) -> ModelIndex:
    model = scene.model
    movable = [scene.body_ids[b] for b in scene.bodies if b not in scene.fixtures]
    return ModelIndex(
        object_bodies=np.array(movable, int),
        hand_body=model.body(HAND_MASS).id,
        table_body=model.body("table").id,
        tcp_site=model.site(TCP_SITE).id,
        arm_dofs=np.array([model.jnt_dofadr[model.joint(f"robot0_joint{i}").id] for i in range(1, 8)]),
        slide_dofs=np.array(
            [model.jnt_dofadr[model.jnt_qposadr.tolist().index(a)] for a in scene.slide_qpos.values()], int
        ),
        impedance_actuators=np.array([model.actuator(f"impedance{i}").id for i in range(6)]),
        gripper_actuator=model.actuator("gripper").id,
    )
