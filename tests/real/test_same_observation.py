"""Fed with the same states, the simulated and the real world give the same observation, field by field."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.real.arm import DryArm
from oc_residual_gym.real.arm_state import ArmState
from oc_residual_gym.real.cell import Cell, Poses, Robot
from oc_residual_gym.real.hand import DryHand
from oc_residual_gym.real.world import FR3World
from oc_residual_gym.states import RobotState

ONE = np.zeros(1, np.int64)
STEPS = 40
CELL = Cell("test", Robot("nowhere", speed_cap=0.2), Poses("tcp://nowhere:1"))


@dataclass
class Recorded:
    """What a simulated episode measured, moment by moment."""

    states: list[ArmState] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    seen: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    def add(self, robot: RobotState, seen: tuple[np.ndarray, np.ndarray]) -> None:
        pose = robot.tcp_pose[0].copy()
        rest: dict[str, Any] = dict(stiffness_frame_offset=0.0, mass=0.73, success_rate=1.0, stop=None)
        joints, speeds, wrench = (x[0].copy() for x in (robot.joint_positions, robot.joint_velocities, robot.wrench))
        self.states.append(ArmState(0.0, joints, speeds, pose, wrench, pose, **rest))
        self.widths.append(float(robot.gripper_width[0]))
        self.seen.append(seen)


class RecordedTracker:
    """Shows a real world what the simulation's tracker saw."""

    newest_stamp = np.inf

    def fault(self) -> None:
        return None

    def __init__(self, recorded: Recorded):
        self._recorded, self.moment = recorded, 0

    def reset(self, worlds: Any, generators: Any, physics: Any) -> None:
        pass

    def observe(self, tcp_pose: Any, closed: Any, worlds: Any) -> tuple[np.ndarray, np.ndarray]:
        self.moment += 1
        return self._recorded.seen[self.moment - 1]

    def wrench_noise(self) -> np.ndarray:
        return np.zeros((1, 6))


def test_every_field_of_the_observation(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (STEPS, 1, 7))
    recorded, expected = Recorded(), []
    simulated = ResidualWorlds(task, 1, base_policy="bc", split="val", errors="tracker")
    monkeypatch.setattr(simulated.tracker, "wrench_noise", lambda: np.zeros((1, 6)))
    observe = simulated.tracker.observe

    def observed(*arguments: Any) -> Any:
        seen = observe(*arguments)
        recorded.add(simulated.world.robot, seen)
        return seen

    monkeypatch.setattr(simulated.tracker, "observe", observed)
    simulated.reset(ONE, [0])
    expected.append(simulated.observation.copy())
    for action in actions:
        simulated.step(action)
        expected.append(simulated.observation.copy())
    simulated.close()

    tracker = RecordedTracker(recorded)
    # The state after the first reading of a tracker is the one it was taken in.
    monkeypatch.setattr(DryArm, "state", lambda self: recorded.states[min(tracker.moment, STEPS)])
    width = property(lambda self: recorded.widths[min(tracker.moment, STEPS)], lambda self, value: None)
    monkeypatch.setattr(DryHand, "width", width, raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with FR3World(CELL, task, tracker, dry_run=True) as world:  # type: ignore[arg-type]
        real = ResidualWorlds(task, 1, base_policy="bc", split="val", world=world)
        real.reset(ONE, [0])
        got = [real.observation.copy()]
        for action in actions:
            real.step(action)
            got.append(real.observation.copy())
            assert not real.truncated[0]
    for entry in simulated.observation_layout:
        there, here = (np.concatenate(rows)[:, entry.slice] for rows in (expected, got))
        np.testing.assert_allclose(here, there, atol=2e-4, err_msg=entry.name)


def test_the_guard_of_conventions_stops_the_robot_before_it_moves() -> None:
    def wxyz(view: PolicyView) -> np.ndarray:
        return np.repeat(view.previous_target[:, None], 16, axis=1)[..., [0, 1, 2, 6, 3, 4, 5, 7]]

    pose = np.array([[[0.5, 0.0, 0.02, 1.0, 0.0, 0.0, 0.0]]])
    tracker = RecordedTracker(Recorded(seen=[(pose, np.ones((1, 1), bool))]))
    with FR3World(CELL, "Lift", tracker, dry_run=True) as world:  # type: ignore[arg-type]
        core = ResidualWorlds("Lift", 1, base_policy=wxyz, split="val", world=world)
        core.reset(ONE, [0])
        assert "wxyz? Reorder to xyzw" in core.base_policy_problem[0]
        assert world.stopped[0] and world.stop_reason(0) == core.failure[0] == "base_policy_failed"
