"""Inputs of policies: the view of a base policy, and the true state for scripted experts."""

from __future__ import annotations

import numpy as np

from oc_residual_gym.envs.actions import Latch
from oc_residual_gym.perception.filter import PoseFilter
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.states import Array, IntArray
from oc_residual_gym.tasks.base import Snapshot
from oc_residual_gym.worlds.base import Simulation, Tracker, World
from oc_residual_gym.worlds.render import POLICY_CAMERAS


def policy_view(
    world: World,
    tracker: Tracker,
    seen: PoseFilter,
    latch: Latch,
    executed: Array,
    worlds: IntArray,
    needs: frozenset[str],
) -> PolicyView:
    """What a base policy with these ``needs`` sees in ``worlds`` (n,).

    Args:
        world: the N worlds.
        tracker: source of the wrench noise.
        seen: filtered object poses.
        latch: gripper state.
        executed: (N, 8) last executed targets.
        worlds: (n,) indices of the worlds that are due for a new chunk.
        needs: any of "objects", "images" and "truth"; "truth" exists in simulation only.
    """
    task, robot = world.task, world.robot
    objects = images = truth = None
    if "objects" in needs:
        objects = {o.name: seen.poses[worlds, i] for i, o in enumerate(task.objects)}
    if "images" in needs:
        images = {c: np.stack([world.image(int(w), c) for w in worlds]) for c in POLICY_CAMERAS}
    if "truth" in needs:
        simulation = simulated(world)
        truth = [snapshot(simulation, int(w), latch, executed) for w in worlds]
    return PolicyView(
        worlds=worlds,
        instruction=task.instruction,
        tcp_pose=robot.tcp_pose[worlds],
        joint_positions=robot.joint_positions[worlds],
        gripper_width=robot.gripper_width[worlds],
        gripper_closed=latch.closed[worlds],
        wrench=(robot.wrench + tracker.wrench_noise())[worlds],
        previous_target=executed[worlds],
        objects=objects,
        images=images,
        truth=truth,
    )


def snapshot(simulation: Simulation, world: int, latch: Latch, executed: Array) -> Snapshot:
    """True state of one world, as its scripted expert sees it."""
    true = simulation.true
    return Snapshot(
        poses={k: v[world].copy() for k, v in true.poses.items()},
        velocities={k: v[world].copy() for k, v in true.velocities.items()},
        contacts={k: bool(v[world]) for k, v in true.contacts.items()},
        slides={k: v[world].copy() for k, v in true.slides.items()},
        parameters={k: float(v[world]) for k, v in true.parameters.items()},
        table_height=float(true.table_height[world]),
        tcp_pose=true.tcp_pose[world].copy(),
        gripper_width=float(true.gripper_width[world]),
        gripper_closed=bool(latch.closed[world]),
        target=executed[world].copy(),
    )


def simulated(world: World) -> Simulation:
    """Return ``world``. Raises ``ValueError`` if the robot is real."""
    if not isinstance(world, Simulation):
        raise ValueError("this needs simulated worlds, and the environment runs a real robot")
    return world
