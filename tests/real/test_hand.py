"""The hand, without a robot: "done" counts only if the fingers moved, and a width must be a number."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("franky", reason="a robot needs franky-control")

import franky

from oc_residual_gym.errors import RobotStopped, StopReason
from oc_residual_gym.real.hand import FrankaHand


class Gripper:
    """A hand whose fingers are where a test puts them; it answers "done" to everything."""

    max_width, width = 0.08, 0.08
    stuck = False
    holds = 0.0
    """Width of the object between the fingers."""

    def __init__(self, host: str):
        self.commands: list[str] = []

    def move_async(self, width: float, speed: float) -> Any:
        return self._done("open", width)

    def grasp_async(self, width: float, speed: float, force: float, epsilon_outer: float) -> Any:
        return self._done("close", max(width, self.holds))

    def stop_async(self) -> Any:
        return self._done("stop", self.width)

    def _done(self, command: str, width: float) -> Any:
        self.commands.append(command)
        if not self.stuck:
            self.width = width
        return SimpleNamespace(wait=lambda seconds: True, get=lambda: True)


Connect = Callable[..., FrankaHand]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Connects to a hand with the given attributes."""
    monkeypatch.setattr(franky, "Gripper", Gripper)
    monkeypatch.setattr("oc_residual_gym.real.hand.MOVED_LIMIT", 0.05)
    hands: list[FrankaHand] = []

    def connected(**attributes: Any) -> FrankaHand:
        for name, value in attributes.items():
            monkeypatch.setattr(Gripper, name, value)
        hands.append(FrankaHand("nowhere"))
        return hands[-1]

    yield connected
    for hand in hands:
        hand.close()


@pytest.mark.parametrize(("closed", "width"), [(False, 0.03), (False, 0.07), (True, 0.08)])
def test_done_without_motion_is_a_fault(connect: Connect, closed: bool, width: float) -> None:
    hand = connect(width=width, stuck=True)
    hand.command(closed)
    with pytest.raises(RobotStopped, match=f"{'close' if closed else 'open'}.* {1e3 * width:.0f} mm apart") as stopped:
        hand.wait()
    assert stopped.value.reason is StopReason.GRIPPER_BLOCKED


@pytest.mark.parametrize(
    ("closed", "state"),
    [
        (True, {"width": 0.08, "holds": 0.0}),  # nothing to grasp
        (True, {"width": 0.08, "holds": 0.075}),  # the cup, the widest object
        (True, {"width": 0.04, "holds": 0.04, "stuck": True}),  # held already
        (True, {"width": 0.0, "stuck": True}),  # closed already
        (False, {"width": 0.08, "stuck": True}),  # open already
        (False, {"width": 0.0}),
    ],
)
def test_a_hand_where_it_should_be_is_not_at_fault(connect: Connect, closed: bool, state: dict[str, Any]) -> None:
    hand = connect(**state)
    hand.command(closed)
    hand.wait()
    assert hand.fault is None


def test_a_hand_that_shows_its_width_late_is_not_at_fault(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oc_residual_gym.real.hand.MOVED_LIMIT", 5.0)
    hand = connect(width=0.0, stuck=True)
    hand.command(False)
    time.sleep(0.05)
    hand._gripper.width = 0.08
    hand.wait()


@pytest.mark.parametrize("width", [np.nan, np.inf])
def test_a_width_that_is_no_number_stops_the_arm(connect: Connect, width: float) -> None:
    hand = connect()
    hand.command(True)
    hand.wait()
    hand._gripper.width = width
    deadline = time.monotonic() + 5.0
    while hand.fault is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hand.fault is not None and hand.fault[0] is StopReason.READING_INVALID
    assert np.isfinite(hand.width)  # the last good one: it goes into observations
    hand._gripper.width = 0.0
    time.sleep(0.05)
    hand.recover()
    hand.command(False)
    hand.wait()


@pytest.mark.parametrize("name", ["width", "max_width"])
def test_a_hand_that_reports_no_number_is_refused(connect: Connect, name: str) -> None:
    with pytest.raises(RobotStopped, match=r"hand's (width|opening) was reported as nan") as stopped:
        connect(**{name: np.nan})
    assert stopped.value.reason is StopReason.READING_INVALID
