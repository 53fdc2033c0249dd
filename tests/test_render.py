"""Pictures: of the right size, of the right world, for policies and for people."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.worlds.render import CAMERAS, POLICY_CAMERAS, POLICY_IMAGE_SIZE


@pytest.fixture(autouse=True)
def _needs_opengl():
    from oc_residual_gym.errors import RenderError
    from oc_residual_gym.worlds.opengl import gl_context

    try:
        gl_context(8, 8).free()
    except RenderError as error:
        pytest.skip(str(error))


def test_vector_env_renders_each_world():
    env = gym.make_vec("OCResidual-Lift-v0", num_envs=3, render_mode="rgb_array", render_size=(60, 80))
    env.reset(seed=0)
    images = env.render()
    assert len(images) == 3
    assert not np.array_equal(images[0], images[1])


def test_record_video_writes_a_file(tmp_path):
    pytest.importorskip("moviepy", reason="gymnasium.wrappers.RecordVideo needs moviepy")
    env = gym.make("OCResidual-Lift-v0", render_mode="rgb_array", render_size=(120, 160), max_episode_steps=5)
    env = gym.wrappers.RecordVideo(env, str(tmp_path), episode_trigger=lambda episode: True)
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros(7))
    env.close()
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 1000


def test_policies_get_images_of_their_own_world_when_they_ask():
    seen = []

    def looks(view):
        seen.append({camera: image.copy() for camera, image in view.images.items()})
        return np.repeat(view.previous_target[:, None], 16, axis=1)

    looks.needs = ("images",)
    worlds = ResidualWorlds("PickPlace", 2, base_policy=looks, errors="clean")
    worlds.reset(np.arange(2), [0, 1])
    assert set(seen[0]) == set(POLICY_CAMERAS)
    for camera in POLICY_CAMERAS:
        images = seen[0][camera]
        assert images.shape == (2, *POLICY_IMAGE_SIZE, 3)
        for world in range(2):
            np.testing.assert_array_equal(images[world], worlds.simulation.render(world, camera, POLICY_IMAGE_SIZE))
    assert not np.array_equal(seen[0]["shoulder"][0], seen[0]["shoulder"][1])


def test_twin_moves_the_cameras():
    pictures = []
    for domain in ("nominal", "twin"):
        worlds = ResidualWorlds("Lift", 1, domain=domain)
        worlds.reset(np.array([0]), [0])
        pictures.append(worlds.simulation.render(0, "shoulder", POLICY_IMAGE_SIZE).astype(int))
    assert 1 < np.abs(pictures[0] - pictures[1]).mean() < 40


def test_unknown_camera_is_answered_with_the_valid_ones():
    worlds = ResidualWorlds("Lift", 1)
    worlds.reset(np.array([0]), [0])
    with pytest.raises(ValueError, match=", ".join(CAMERAS)):
        worlds.simulation.render(0, "behind", (64, 64))
