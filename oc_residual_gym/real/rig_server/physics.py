"""Physics of arm, hand and scene: franka-sim's, extended to match our cells."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import mujoco
import numpy as np
from franka_sim.mujoco_franka_sim import (
    ARM_INITIAL_Q,
    ARM_POSITION_KD,
    ARM_VELOCITY_KV,
    SELF_COLLISION_MIN_LINK_SEPARATION,
    MujocoFrankaSim,
)

TRUTH_EVERY = 5
"""Physics steps of 1 ms between published true states."""
HAND_STIFFNESS, HAND_DAMPING = 4000.0, 40.0
"""N/m and N s/m on the distance between the fingers, as for the hand in our simulation."""
JOINT_DAMPING = np.array([150.0, 150.0, 120.0, 120.0, 40.0, 40.0, 40.0])
"""Damping of franka-sim's joint servo in Nm s/rad. Its own values, up to 450, make an arm with our rotor inertias
chatter."""

# As in oc_residual_gym.geometry, which this Python cannot import.
WXYZ_FROM_XYZW, XYZW_FROM_WXYZ = [3, 0, 1, 2], [1, 2, 3, 0]


class SceneSim(MujocoFrankaSim):
    """franka-sim's physics with our hand's drive, objects with weight, a contact wrench and a view of the state."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(enable_hand=True)
        ARM_POSITION_KD[:] = ARM_VELOCITY_KV[:] = JOINT_DAMPING
        ARM_INITIAL_Q[:] = settings["joints"]
        self.settings = settings
        hand = settings["hand"]
        self.finger_speed, self.finger_force = hand["speed"], hand["force"]
        self._finger_command = self.max_finger_width
        self._finger_goal = self.max_finger_width
        self._tool = np.array([0.0, 0.0, hand["tcp"]])
        self._steps = 0
        self._placing: dict[str, Any] | None = None
        self._contact = np.zeros(6)  # torque, then force, as in MuJoCo
        self._exerted = np.zeros(6)
        self.view: dict[str, Any] = {}
        self.clock = threading.Lock()  # simulated time stops while it is held
        self.arrivals: deque[tuple[float, dict[str, np.ndarray]]] = deque(maxlen=100)

    def _configure_model(self) -> None:
        super()._configure_model()
        model = self.model
        # The default in later versions of MuJoCo. Without it, a block on the plate has a single contact and rocks.
        model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_NATIVECCD | mujoco.mjtEnableBit.mjENBL_MULTICCD
        self._hand_bodies = [
            i for i in range(model.nbody) if _below(model, i, model.body(f"{self.prefix}hand_mount").id)
        ]
        self._hand_root = model.body_rootid[self._hand_bodies[0]]
        self._bodies = {}
        if self.settings["full_scene"]:
            # franka-sim compensates gravity for all bodies, and has a floor at the height of our table top.
            arm = model.body(f"{self.prefix}link0").id
            for i in range(1, model.nbody):
                if not _below(model, i, arm):
                    model.body_gravcomp[i] = 0.0
            floor = model.geom("ground_plane").id
            model.geom_contype[floor] = model.geom_conaffinity[floor] = 0
            self._bodies = {name: model.body(b["model"]).id for name, b in self.settings["bodies"].items()}
            self._place(self.settings)

    def _bind_self_collision(self) -> None:
        """As in franka-sim, but each of our links has several shapes; their margins are in the model."""
        model, shapes = self.model, {}
        for geom in range(model.ngeom):
            link, watch, _ = model.geom(geom).name.removeprefix(f"{self.prefix}link").partition("_watch")
            if watch:
                shapes[geom] = int(link)
        self._self_collision_pairs = {
            (min(a, b), max(a, b)): (f"link{i}", f"link{j}")
            for a, i in shapes.items()
            for b, j in shapes.items()
            if j - i >= SELF_COLLISION_MIN_LINK_SEPARATION
        }

    def place(self, start: dict[str, Any]) -> None:
        """Make the physics thread move the objects to ``start``."""
        self._placing = start

    def _place(self, start: dict[str, Any]) -> None:
        model, data = self.model, self.data
        for entry in start["bodies"].values():
            body = model.body(entry["model"])
            position, quat = np.array(entry["pose"][:3]), np.array(entry["pose"][3:])[WXYZ_FROM_XYZW]
            joint = body.jntadr[0]
            if body.jntnum[0] == 0:
                model.body_pos[body.id], model.body_quat[body.id] = position, quat
            elif model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
                at, velocity = model.jnt_qposadr[joint], model.jnt_dofadr[joint]
                data.qpos[at : at + 7] = [*position, *quat]
                data.qvel[velocity : velocity + 6] = 0.0
        for slide in start["slides"].values():
            joint = model.joint(slide["joint"])
            data.qpos[joint.qposadr[0]], data.qvel[joint.dofadr[0]] = slide["opening"], 0.0

    def finger_control_force(self) -> np.ndarray:
        """Force of one motor on the distance between the fingers; its command moves at the hand's speed."""
        goal = float(np.clip(self.latest_finger_positions, 0.0, self.max_finger_width / 2).sum())
        positions, velocities = self.data.qpos[self.finger_qpos_adr], self.data.qvel[self.finger_dofs_idx]
        width, speed = float(positions.sum()), float(velocities.sum())
        if goal != self._finger_goal:
            # Start at the fingers' present width, not at the last command's.
            self._finger_goal, self._finger_command = goal, width
        travel = self.finger_speed * self.dt
        self._finger_command += min(max(goal - self._finger_command, -travel), travel)
        force = HAND_STIFFNESS * (self._finger_command - width) - HAND_DAMPING * speed
        return np.full(2, min(max(force, -self.finger_force), self.finger_force))

    def _apply_control(self) -> None:
        with self.clock:
            pass
        placing, self._placing = self._placing, None
        if placing is not None:
            self.settings |= placing
            if self.settings["full_scene"]:
                self._place(placing)
        super()._apply_control()

    def _read_and_publish_state(self) -> None:
        super()._read_and_publish_state()
        snapshot = self._state_snapshot
        if self.data.ncon > 0:
            mujoco.mj_rnePostConstraint(self.model, self.data)
            self._contact[:] = self.data.cfrc_ext[self._hand_bodies].sum(axis=0)
        else:
            self._contact[:] = 0.0
        # A real FR3 reports the wrench that it exerts on its surroundings, about frame K, here the end effector's.
        exerted = -self._contact_about(snapshot["O_T_EE"][12:15])
        self._exerted += (exerted - self._exerted) * (self.dt / self.settings["wrench_filter"])
        snapshot["O_F_ext_hat_K"] = self._exerted.copy()
        axes = snapshot["O_T_EE"].reshape(4, 4)[:3, :3]  # its transpose is the rotation
        snapshot["K_F_ext_hat_K"] = np.concatenate([axes @ self._exerted[:3], axes @ self._exerted[3:]])
        snapshot["tau_ext_hat_filtered"] = snapshot["O_J_EE"].T @ self._exerted
        if self._steps % TRUTH_EVERY == 0:
            tcp = self.data.xpos[self.ee_body_id] + self.data.xmat[self.ee_body_id].reshape(3, 3) @ self._tool
            self._take_view(snapshot, tcp)
        self._steps += 1

    def _contact_about(self, point: np.ndarray) -> np.ndarray:
        """(6,) force and torque of all contacts on the hand, about ``point`` (3,)."""
        a, b, c, f, g, h = self._contact.tolist()
        x, y, z = (self.data.subtree_com[self._hand_root] - point).tolist()
        return np.array([f, g, h, a + y * h - z * g, b + z * f - x * h, c + x * g - y * f])

    def _take_view(self, snapshot: dict[str, Any], tcp: np.ndarray) -> None:
        """Copy the true state for the publishing threads; only this thread may read the physics."""
        model, data, stamp = self.model, self.data, time.monotonic()
        poses, velocities, buffer = {}, {}, np.empty(6)
        for name, body in self._bodies.items():
            poses[name] = np.concatenate([data.xpos[body], data.xquat[body][XYZW_FROM_WXYZ]])
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body, buffer, 0)
            velocities[name] = np.concatenate([buffer[3:], buffer[:3]])
        if not self._bodies:
            poses = {name: np.array(b["pose"]) for name, b in self.settings["bodies"].items()}
            velocities = {name: np.zeros(6) for name in poses}
        slides = {}
        for name, slide in self.settings["slides"].items():
            slides[name] = [slide["opening"], 0.0]
            if self._bodies:
                joint = data.joint(slide["joint"])
                slides[name] = [float(joint.qpos[0]), float(joint.qvel[0])]
        self.view = {
            "stamp": stamp,
            "time": float(data.time),
            "q": snapshot["q"],
            "dq": snapshot["dq"],
            "tcp": tcp,
            "fingers": self._finger_snapshot["q"],
            "wrench": self._contact_about(tcp),
            "qpos": poses,
            "qvel": velocities,
            "slides": slides,
        }
        self.arrivals.append((stamp, poses))


def _below(model: mujoco.MjModel, body: int, root: int) -> bool:
    while body > root:
        body = int(model.body_parentid[body])
    return body == root
