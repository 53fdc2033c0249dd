"""Digests of the compiled models and of seeded trajectories. They change when the physics changes, not when code does.

After an intended change of physics, ``python tests/golden/record.py`` rewrites the files beside it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from operator import attrgetter
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from oc_residual_gym.registration import env_id
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.scene import build_scene

FOLDER = Path(__file__).parent
MODELS_FILE, TRAJECTORIES_FILE = FOLDER / "models.json", FOLDER / "trajectories.json"
DOMAINS, ERRORS = ("nominal", "twin"), ("clean", "paper", "tracker")
STEPS = 100
# Where names and paths are stored.
UNPHYSICAL = ("name", "names", "paths")


def model_digests(task: str) -> dict[str, str]:
    """Array of the task's compiled model, or group of its settings, to the start of its SHA-256."""
    model = build_scene(TASKS[task]).model
    digests = {}
    for name in sorted(n for n in dir(model) if not n.startswith(("_", *UNPHYSICAL)) and not n.endswith("pathadr")):
        value = getattr(model, name)
        if isinstance(value, np.ndarray) and value.size:
            digests[name] = _sha256(str(value.shape), value.tobytes())
    for group in ("opt", "stat", "vis.headlight", "vis.map", "vis.quality", "vis.global_", "vis.rgba", "vis.scale"):
        settings = attrgetter(group)(model)
        values = {n: np.asarray(getattr(settings, n)).tolist() for n in sorted(dir(settings)) if not n.startswith("_")}
        plain = {n: v for n, v in values.items() if isinstance(v, (int, float, list))}
        digests[group] = _sha256(json.dumps(plain, sort_keys=True))
    return digests


def trajectory(task: str, domain: str, errors: str) -> dict[str, Any]:
    """Digest of all that 100 steps of the expert under small random corrections give, and where they end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gym.make(env_id(task), base_policy="expert", domain=domain, errors=errors, split="val")
    rng = np.random.default_rng(0)
    observation, info = env.reset(seed=3)
    digest = hashlib.sha256(observation.tobytes() + info["critic_state"].tobytes())
    for _ in range(STEPS):
        action = rng.uniform(-0.3, 0.3, 7).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        digest.update(observation.tobytes() + np.float64(reward).tobytes() + bytes([terminated, truncated]))
        digest.update(info["critic_state"].tobytes() + info["executed_target"].tobytes())
    env.close()
    return {"sha256": digest.hexdigest(), "critic_state": info["critic_state"].tolist()}


def _sha256(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def main() -> None:
    """Write both files."""
    from importlib import metadata
    from platform import libc_ver

    models = {task: model_digests(task) for task in TASKS}
    made_with = {"mujoco": mujoco.__version__, "numpy": metadata.version("numpy"), "libc": " ".join(libc_ver())}
    cases = [(task, domain, errors) for task in TASKS for domain in DOMAINS for errors in ERRORS]
    trajectories = {", ".join(case): trajectory(*case) for case in cases}
    MODELS_FILE.write_text(json.dumps({"made_with": made_with, "models": models}, indent=1) + "\n")
    TRAJECTORIES_FILE.write_text(json.dumps({"made_with": made_with, "trajectories": trajectories}, indent=1) + "\n")


if __name__ == "__main__":
    main()
