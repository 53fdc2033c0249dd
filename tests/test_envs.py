"""What the environments promise whatever the task; the rest is in test_tasks_contract.py."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import oc_residual_gym


def test_version_names_the_release():
    assert oc_residual_gym.__version__.count(".") == 2


def test_success_in_the_very_last_step_ends_both_ways_in_both_forms():
    """As Gymnasium's TimeLimit has it: terminated and truncated."""
    options = {"base_policy": "expert", "errors": "clean", "split": "val"}
    single = gym.make("OCResidual-Lift-v0", **options)
    single.reset(seed=0)
    needed = 1
    while not single.step(np.zeros(7))[2]:
        needed += 1
    single = gym.make("OCResidual-Lift-v0", max_episode_steps=needed, **options)
    vector = gym.make_vec("OCResidual-Lift-v0", num_envs=1, max_episode_steps=needed, **options)
    single.reset(seed=0)
    vector.reset(seed=0)
    for _ in range(needed):
        alone, many = single.step(np.zeros(7)), vector.step(np.zeros((1, 7)))
    assert alone[2:4] == (True, True) == (many[2][0], many[3][0])
    assert alone[4]["failure"] is None and many[4]["failure"][0] is None
