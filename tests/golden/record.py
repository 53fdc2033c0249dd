"""Digests of the compiled models and of seeded trajectories. They change when the physics changes, not when code does.

After an intended change of physics, ``python tests/golden/record.py`` rewrites the files beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from operator import attrgetter
from pathlib import Path
from platform import libc_ver
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
BILLIARDS = """<mujoco><worldbody><geom type="plane" size="1 1 0.1"/>
<body pos="0 0 0.3"><freejoint/><geom type="box" size="0.05 0.03 0.02"/></body>
<body pos="0.03 0.02 0.5" euler="20 30 40"><freejoint/><geom type="cylinder" size="0.03 0.05"/></body>
</worldbody></mujoco>"""
"""Two bodies that fall on each other."""
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


def made_with() -> dict[str, str]:
    """Versions and this machine's rounding, on which the bits of a trajectory depend."""
    versions = {"mujoco": mujoco.__version__, "numpy": np.__version__, "libc": " ".join(libc_ver())}
    return versions | {"rounding": _rounding()}


def _rounding() -> str:
    """Digest of results whose last bit depends on the processor: none of them comes from this project's code."""
    x = np.linspace(0.1, 3.0, 1000)
    functions = [np.sin(x), np.cos(x), np.exp(x), np.arctan2(x, 1.0), np.hypot(x, 1.0)]
    products = [x @ x, np.linalg.norm(x[:3]), np.outer(x[:40], x[:40]) @ x[:40]]
    scalars = [f(value) for f in (math.sin, math.cos, math.tanh, math.exp) for value in x.tolist()]
    model = mujoco.MjModel.from_xml_string(BILLIARDS)
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data, 500)
    return _sha256(*(np.asarray(part).tobytes() for part in [*functions, *products, scalars, data.qpos]))


def main() -> None:
    """Write both files."""
    models = {task: model_digests(task) for task in TASKS}
    cases = [(task, domain, errors) for task in TASKS for domain in DOMAINS for errors in ERRORS]
    trajectories = {", ".join(case): trajectory(*case) for case in cases}
    MODELS_FILE.write_text(json.dumps({"made_with": made_with(), "models": models}, indent=1) + "\n")
    TRAJECTORIES_FILE.write_text(json.dumps({"made_with": made_with(), "trajectories": trajectories}, indent=1) + "\n")


if __name__ == "__main__":
    main()
