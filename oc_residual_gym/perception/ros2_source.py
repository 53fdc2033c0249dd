"""Object poses from ROS 2: ``geometry_msgs/PoseStamped`` on one topic per object. Imports ``rclpy`` when used.

``rclpy`` comes with a ROS 2 distribution (Humble or newer), not from PyPI: source the distribution's setup file, and
use its Python. PoseStamped has no status: a lost object is one whose topic is silent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from oc_residual_gym.errors import MessageError, SettingsError
from oc_residual_gym.perception.listener import Listener
from oc_residual_gym.perception.messages import OLDEST, PoseMessage, TrackedPose, checked_pose

BASE_FRAMES = ("base", "fr3_link0", "panda_link0")
"""Values of ``header.frame_id`` for the robot's base frame; any other value means the camera's frame."""
CLOCK_TOLERANCE = 0.02
"""Seconds by which an image's stamp may lie in the future; synchronised clocks differ by less."""


class Ros2PoseSource(Listener):
    """Subscriber to the topics ``/<prefix>/<object>``.

    Args:
        prefix: prefix of the topics.
        objects: names of the objects to listen for.

    Raises:
        SettingsError: ``rclpy`` cannot be imported.
    """

    def __init__(self, prefix: str, objects: Sequence[str]) -> None:
        prefix = prefix.strip("/")
        super().__init__(f"the ROS 2 topics /{prefix}/<object>", objects)
        try:
            import rclpy
            from geometry_msgs.msg import PoseStamped
            from rclpy.executors import SingleThreadedExecutor
            from rclpy.qos import qos_profile_sensor_data
        except ImportError as error:
            raise SettingsError(
                f"{error}: poses by ROS 2 need its Python packages; source /opt/ros/<distribution>/setup.bash first, "
                "and run a Python of the distribution's own version"
            ) from error
        # With its own context, rclpy does not handle Ctrl+C.
        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("oc_residual_poses", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._subscriptions = [
            self._node.create_subscription(
                PoseStamped, f"/{prefix}/{name}", partial(self._receive, name), qos_profile_sensor_data
            )
            for name in objects
        ]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="poses", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._node.destroy_node()
        self._context.try_shutdown()

    def _listen(self) -> None:
        while not self._closing.is_set() and self._context.ok():
            self._executor.spin_once(timeout_sec=0.05)

    def _receive(self, name: str, message: Any) -> None:
        received, now = time.monotonic(), 1e-9 * self._node.get_clock().now().nanoseconds
        try:
            self.take(read_pose_stamped(name, message, now, received))
        except MessageError as error:
            self.refuse(f"object {name!r}: {error}")


def read_pose_stamped(name: str, message: Any, now: float, received: float) -> PoseMessage:
    """Convert one ``geometry_msgs/PoseStamped``.

    Args:
        name: name of the object.
        message: the message; its header holds the time of the image.
        now: seconds of the ROS clock.
        received: the same moment in seconds of ``time.monotonic()``.

    Raises:
        MessageError: its time or its pose is invalid.
    """
    stamp, frame = message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec, message.header.frame_id
    age = now - stamp
    if stamp == 0.0 or not frame:
        raise MessageError("header.stamp or header.frame_id is not set; give the image's time and frame")
    if not -CLOCK_TOLERANCE <= age <= OLDEST:
        raise MessageError(f"header.stamp is {age:.3f} s ago: synchronise the clocks of the two computers")
    point, turn = message.pose.position, message.pose.orientation
    pose = checked_pose(np.array([point.x, point.y, point.z]), np.array([turn.x, turn.y, turn.z, turn.w]))
    reading = TrackedPose(pose, received - max(age, 0.0), "tracking")
    return PoseMessage("base" if frame.lstrip("/") in BASE_FRAMES else "camera", "", {name: reading})
