"""Pictures in threads and in other processes: OpenGL contexts belong to the process and the thread that made them."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from oc_residual_gym.envs.core import ResidualWorlds
from oc_residual_gym.errors import RenderError
from oc_residual_gym.tasks import TASKS
from oc_residual_gym.worlds.opengl import gl_context
from oc_residual_gym.worlds.render import POLICY_IMAGE_SIZE, SceneRenderer, free_renderers, shared_renderer

FORKED = """
import multiprocessing, os, sys
import gymnasium as gym, numpy as np
import oc_residual_gym
from oc_residual_gym.errors import RenderError

def first_observation(context):
    env = gym.make_vec(
        "OCResidual-Lift-v0", 2, "async", base_policy="vla", split="val", vector_kwargs={"context": context}
    )
    try:
        return env.reset(seed=0)[0]
    finally:
        env.close(terminate=True)

if __name__ == "__main__":
    parent = gym.make("OCResidual-Lift-v0", base_policy="vla", split="val")
    alone, _ = parent.reset(seed=0)  # renders
    try:
        first_observation("fork")
    except RenderError as error:
        print("fork:", error)
    print("spawn:", np.array_equal(first_observation("spawn")[0], alone))
"""


@pytest.fixture(autouse=True)
def _needs_opengl() -> None:
    try:
        gl_context(8, 8).free()
    except RenderError as error:
        pytest.skip(str(error))


@pytest.fixture
def picture() -> Callable[[], np.ndarray]:
    """Draws one picture of one world, in the calling thread."""
    worlds = ResidualWorlds("Lift", 1, base_policy="hold")
    worlds.reset(np.array([0]), [0])
    return lambda: worlds.simulation.render(0, "shoulder", POLICY_IMAGE_SIZE)


def in_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a thread of its own that has ended."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    (result,) = results
    return result


def test_a_child_forked_after_rendering_says_spawn_and_a_spawned_one_works(tmp_path: Any) -> None:
    """The limit ends a child that hangs, as every one did."""
    (tmp_path / "forked.py").write_text(FORKED)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", tmp_path / "forked.py"], capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    fork, spawn = [line for line in run.stdout.splitlines() if line.startswith(("fork:", "spawn:"))]
    assert 'vector_kwargs={"context": "spawn"}' in fork
    assert spawn == "spawn: True"


def test_threads_draw_the_same_picture(picture: Callable[[], np.ndarray]) -> None:
    alone = picture()
    together = threading.Barrier(3)

    def draw() -> np.ndarray:
        together.wait()
        return picture()

    with ThreadPoolExecutor(3) as pool:
        for image in [future.result() for future in [pool.submit(draw) for _ in range(3)]]:
            np.testing.assert_array_equal(image, alone)
    np.testing.assert_array_equal(picture(), alone)


def test_a_pool_of_threads_runs_policies_that_see() -> None:
    def run(seed: int) -> np.ndarray:
        env = gym.make("OCResidual-Lift-v0", base_policy="vla", split="val")
        env.reset(seed=seed)
        last = [env.step(np.zeros(7))[0] for _ in range(18)][-1]  # a second chunk, from new pictures
        env.close()
        return last

    alone = [run(seed) for seed in range(3)]
    with ThreadPoolExecutor(2) as pool:
        np.testing.assert_array_equal(list(pool.map(run, range(3))), alone)


def test_a_threads_renderers_are_freed_in_it_when_it_ends(picture: Callable[[], np.ndarray]) -> None:
    def draw() -> tuple[Any, Any]:
        picture()
        renderer = shared_renderer(TASKS["Lift"], "light", POLICY_IMAGE_SIZE)
        return weakref.ref(renderer), renderer._canvas._gl

    renderer, context = in_thread(draw)
    assert renderer() is None
    assert context._context is None, "the OpenGL context was not freed"


def test_freeing_one_renderer_leaves_the_others_pictures_alone(picture: Callable[[], np.ndarray]) -> None:
    """OpenGL names its buffers by numbers per context: freed in the wrong one, another renderer's are gone."""
    other = SceneRenderer(TASKS["Lift"], "light", POLICY_IMAGE_SIZE)
    before = picture()
    del other
    np.testing.assert_array_equal(picture(), before)


def test_a_renderer_of_another_thread_is_refused(picture: Callable[[], np.ndarray]) -> None:
    worlds = ResidualWorlds("Lift", 1, base_policy="hold")
    worlds.reset(np.array([0]), [0])
    free_renderers()
    theirs = in_thread(lambda: SceneRenderer(TASKS["Lift"], "light", POLICY_IMAGE_SIZE))
    with pytest.raises(RenderError, match="another one made the renderer"):
        theirs.image(worlds.mujoco, 0, "shoulder")
    picture()
