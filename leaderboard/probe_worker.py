"""Child process of ``probe``: checks that one policy file answers as an evaluation needs it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from leaderboard.limits import Emit, PolicyFailure, serve
from oc_residual_gym.envs.observation import ObservationBuilder
from oc_residual_gym.files import Record
from oc_residual_gym.policies.base import PolicyView
from oc_residual_gym.policies.onnx_policy import OnnxBasePolicy
from oc_residual_gym.residuals.onnx import OnnxResidual
from oc_residual_gym.states import Array
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.tasks.base import Task

INPUTS, BATCH = 64, 8
"""Number of made-up inputs, given all at once, ``BATCH`` at a time, and one by one."""
STEPS = 3
"""Control steps of a made-up episode of a residual policy: what it remembers counts too."""
PERIOD = 0.05
"""Seconds per control step: a policy has to keep up with it."""
_LOW, _HIGH = (0.3, -0.3, 0.02), (0.65, 0.3, 0.5)
"""Range of positions of TCP and objects, metres in the base frame."""

Answer = Callable[[int, int], np.ndarray]
"""Function of two indices that returns the policy's answers for the inputs between them."""


def probe(request: Record, emit: Emit) -> None:
    """Try the file of ``request``. Raises ``PolicyFailure`` for the first problem."""
    task = TASKS[request["task"]]
    try:
        answer, steps = (_base if request["kind"] == "base" else _residual)(request["file"], task)
        emit({"done": "loaded"})
        whole = answer(0, INPUTS)
        emit({"done": "all at once"})
        _check(whole, answer(0, INPUTS), "when asked twice")
        emit({"done": "again"})
        batches = [answer(i, i + BATCH) for i in range(0, INPUTS, BATCH)]
        _check(whole, np.concatenate(batches), f"for {BATCH} inputs at a time and for {INPUTS}")
        emit({"done": "in batches"})
        seconds, single = [], []
        for i in range(INPUTS):
            began = time.perf_counter()
            single.append(answer(i, i + 1))
            seconds.append(time.perf_counter() - began)
        _check(whole, np.concatenate(single), f"for one input at a time and for {INPUTS}")
    except (PolicyFailure, MemoryError):
        raise
    except Exception as error:
        raise PolicyFailure(f"{type(error).__name__}: {error}") from error
    if np.median(seconds) > PERIOD * steps:
        raise PolicyFailure(
            f"it takes {np.median(seconds):.3f} s for an answer, and control at 20 Hz leaves {PERIOD * steps:.2f} s"
        )


def _check(whole: np.ndarray, other: np.ndarray, where: str) -> None:
    if not np.array_equal(whole, other):
        difference = np.abs(whole - other).max()
        raise PolicyFailure(
            f"its answers differ {where} (by up to {difference:.3g}): an episode must depend on its row alone, so the "
            "same input must always have the same answer"
        )


def _residual(file: str, task: Task) -> tuple[Answer, int]:
    """The policy, and the number of control steps that one answer covers."""
    policy = OnnxResidual(file, f"for {task.name}")
    layout = ObservationBuilder(tuple(item.name for item in task.objects)).layout
    policy.check([f.name for f in layout], layout[-1].stop)
    size = (STEPS, INPUTS, layout[-1].stop)
    observations = np.random.default_rng(0).uniform(-2.0, 2.0, size).astype(np.float32)

    def answer(start: int, stop: int) -> np.ndarray:
        policy.reset()
        actions = np.concatenate([policy(step[start:stop]) for step in observations], axis=1)
        if not np.isfinite(actions).all():
            raise PolicyFailure("its answer holds NaN; it must be 7 finite numbers for every observation")
        return actions

    return answer, STEPS


def _base(file: str, task: Task) -> tuple[Answer, int]:
    policy = OnnxBasePolicy(file, f"for {task.name}")
    view = _view(task)

    def answer(start: int, stop: int) -> np.ndarray:
        chunks = policy.predict(_part(view, start, stop))
        if chunks.shape != (stop - start, policy.horizon, 8):
            raise PolicyFailure(f"its answer has shape {chunks.shape}; expected {(stop - start, policy.horizon, 8)}")
        if not np.isfinite(chunks).all() or not np.linalg.norm(chunks[..., 3:7], axis=-1).min() > 1e-6:
            raise PolicyFailure("its answer holds NaN, infinity or a quaternion of no length; targets must be poses")
        return chunks

    return answer, policy.horizon


def _view(task: Task) -> PolicyView:
    """Made-up inputs for a base policy."""
    rng = np.random.default_rng(0)
    return PolicyView(
        worlds=np.arange(INPUTS),
        instruction=task.instruction,
        tcp_pose=_poses(rng),
        joint_positions=rng.uniform(-1.0, 1.0, (INPUTS, 7)),
        gripper_width=rng.uniform(0.0, 0.08, INPUTS),
        gripper_closed=rng.random(INPUTS) < 0.5,
        wrench=rng.normal(0.0, 2.0, (INPUTS, 6)),
        previous_target=np.concatenate([_poses(rng), rng.integers(0, 2, (INPUTS, 1))], axis=1),
        objects={item.name: _poses(rng) for item in task.objects},
        images={name: rng.integers(0, 256, (INPUTS, 128, 128, 3), np.uint8) for name in ("shoulder", "wrist")},
    )


def _part(view: PolicyView, start: int, stop: int) -> PolicyView:
    """The inputs of ``view`` from ``start`` to ``stop``."""
    part = slice(start, stop)
    assert view.objects is not None and view.images is not None
    return PolicyView(
        worlds=view.worlds[part],
        instruction=view.instruction,
        tcp_pose=view.tcp_pose[part],
        joint_positions=view.joint_positions[part],
        gripper_width=view.gripper_width[part],
        gripper_closed=view.gripper_closed[part],
        wrench=view.wrench[part],
        previous_target=view.previous_target[part],
        objects={name: poses[part] for name, poses in view.objects.items()},
        images={name: images[part] for name, images in view.images.items()},
    )


def _poses(rng: np.random.Generator) -> Array:
    """Poses (INPUTS, 7): positions within reach, random rotations."""
    quaternions = rng.normal(size=(INPUTS, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    return np.concatenate([rng.uniform(_LOW, _HIGH, (INPUTS, 3)), quaternions], axis=1)


if __name__ == "__main__":
    serve(probe)
