"""Publish the object poses of FoundationPose, or of any other tracker, to a robot cell.

    python publish_foundationpose.py --bind 'tcp://*:5555' --calibration shoulder-1

It needs pyzmq, NumPy and SciPy, and runs on the computer with the camera and the GPU, never on the one that controls
the robot. Copy it next to your tracker and fill in ``Tracker``. ``--demo`` publishes a made-up block instead, to try
the connection. The messages are documented in ``docs/pose_messages.md``.
"""

import argparse
import contextlib
import json
import time

import numpy as np
import zmq
from scipy.spatial.transform import Rotation


class Tracker:
    """Where your tracker goes in."""

    objects = ("block",)
    """Names as the task has them."""

    def update(self):
        """Wait for the next image and track every object in it.

        Returns:
            The time of the image in seconds of ``time.monotonic()``, and for each object the 4x4 matrix of its pose in
            the camera's optical frame, or None where it is lost.
        """
        # With FoundationPose, an estimator for each object, registered once with the object's mask:
        #
        #   color, depth = camera.next_frame()
        #   taken = time.monotonic() - camera_latency      # exposure and transfer: 0.02 to 0.05 s for a RealSense
        #   pose = estimator.track_one(rgb=color, depth=depth, K=intrinsics, iteration=2)   # 4x4, metres
        #   lost = rendering_of(pose) does not fit the depth image   # FoundationPose itself never says so
        #   return taken, {"block": None if lost else pose}
        #
        # FoundationPose's mesh frame must be the task's object frame: docs/pose_messages.md has a table.
        raise NotImplementedError("fill in your tracker here, or try --demo")


class Demo:
    """A block that lies still on the table, as the camera of shoulder-1.yaml sees it; noisy, and lost now and then."""

    objects = ("block",)

    def update(self):
        time.sleep(1 / 30)
        taken = time.monotonic() - 0.05
        pose = np.eye(4)
        noise = Rotation.from_rotvec(np.random.normal(0.0, 0.005, 3))  # noqa: NPY002
        pose[:3, :3] = (noise * Rotation.from_rotvec([2.108, -0.717, 0.365])).as_matrix()
        pose[:3, 3] = np.random.normal([-0.040, 0.123, 1.068], 0.001)  # noqa: NPY002
        return taken, {"block": pose if int(5 * taken) % 10 else None}


def entry(pose, age):
    """What a message says of one object."""
    if pose is None:
        return {"status": "lost", "age": age}
    quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()  # xyzw, of unit length
    return {"status": "tracking", "age": age, "position": pose[:3, 3].tolist(), "quaternion": quaternion.tolist()}


def main():
    parser = argparse.ArgumentParser(description="publish object poses by ZeroMQ")
    parser.add_argument("--bind", default="tcp://127.0.0.1:5555", help="where robots connect; tcp://*:5555 for others")
    parser.add_argument("--calibration", default="", help="id of the calibration that the robot's cell should use")
    parser.add_argument("--demo", action="store_true", help="publish a made-up block")
    options = parser.parse_args()

    socket = zmq.Context().socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 1)  # an old pose is worth nothing
    socket.bind(options.bind)
    tracker = Demo() if options.demo else Tracker()
    print(f"publishing {', '.join(tracker.objects)} at {options.bind}; Ctrl+C ends it")
    while True:
        taken, poses = tracker.update()
        age = time.monotonic() - taken
        message = {
            "schema": "oc-residual-poses",
            "version": 1,
            "frame": "camera",
            "calibration": options.calibration,
            "objects": {name: entry(poses.get(name), age) for name in tracker.objects},
        }
        socket.send_string(json.dumps(message))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
