"""OpenGL contexts for offscreen pictures. A context belongs to the process and the thread that made it."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from typing import Any

import mujoco
import numpy as np

from oc_residual_gym.errors import RenderError

_HELP = {
    "egl": "on Debian or Ubuntu: apt-get install libegl1 libgl1-mesa-dri",
    "osmesa": "on Debian or Ubuntu: apt-get install libosmesa6",
    "glfw": "a window needs a display; to render without one set MUJOCO_GL=egl",
}
_FORKED = (
    "cannot render in this process: it was forked from one that had already rendered, and OpenGL does not survive a "
    'fork. Start it with the context "spawn": gym.make_vec(..., vectorization_mode="async", '
    'vector_kwargs={"context": "spawn"}), SubprocVecEnv(..., start_method="spawn") or '
    'multiprocessing.get_context("spawn")'
)

_loading = threading.Lock()
_in_use = False
"""Whether this process has used an OpenGL library."""
_inherited = False
"""Whether this process was forked from one that had. The library's threads are gone, so that its calls would hang."""


def _after_fork() -> None:
    global _inherited
    egl = sys.modules.get("mujoco.egl")  # other packages, such as mujoco.Renderer, use it too
    _inherited = _inherited or _in_use or getattr(egl, "EGL_DISPLAY", None) is not None


os.register_at_fork(after_in_child=_after_fork)


def gl_context(width: int, height: int) -> Any:
    """An OpenGL context for offscreen images, made current.

    Tries the backend in the environment variable ``MUJOCO_GL`` first, then EGL and OSMesa.

    Raises:
        RenderError: no backend works, and the message names the packages to install; or this process was forked from
            one that had rendered.
    """
    global _in_use
    if _inherited:
        raise RenderError(_FORKED)
    _in_use = True
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    backends = ["egl", "osmesa"] if sys.platform == "linux" else ["glfw"]
    if wanted in _HELP:
        backends = [wanted, *(b for b in backends if b != wanted)]
    problems = []
    with _loading:
        for backend in backends:
            try:
                context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
                context.make_current()
                return context
            except Exception as error:  # the backends raise all sorts where a library is missing
                problems.append(f"{backend}: {error} ({_HELP[backend]})")
                # PyOpenGL keeps what it loaded first: let the next backend choose anew.
                os.environ.pop("PYOPENGL_PLATFORM", None)
                for module in [m for m in sys.modules if m == "OpenGL" or m.startswith("OpenGL.")]:
                    del sys.modules[module]
    raise RenderError("cannot render, no OpenGL library works. Install one of these. " + "; ".join(problems))


class Canvas:
    """Draws pictures of one size of one model, in the thread that made it, and is freed in that thread.

    Args:
        model: what is drawn.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.

    Raises:
        RenderError: see :func:`gl_context`.
    """

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        self._owner = _here()
        self._gl: Any = gl_context(width, height)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def draw(self, scene: mujoco.MjvScene) -> np.ndarray:
        """(height, width, 3) uint8 picture of the scene.

        Raises:
            RenderError: another thread or process made this canvas.
        """
        if self._owner != _here():
            raise RenderError(_FORKED if _inherited else "cannot render in this thread: another one made the renderer")
        self._gl.make_current()
        mujoco.mjr_render(self._rectangle, scene, self._context)
        pixels = np.empty((self._rectangle.height, self._rectangle.width, 3), np.uint8)
        mujoco.mjr_readPixels(pixels, None, self._rectangle, self._context)
        return pixels[::-1].copy()

    def __del__(self) -> None:
        parts = [part for part in map(self.__dict__.get, ("_context", "_gl")) if part is not None]
        if self._owner == _here():
            if parts:
                self._gl.make_current()  # or the buffers of the context that is current now would be freed
            for part in parts:
                part.free()
        else:
            # Here their own destructors would hang, or free the buffers of another context: never run them.
            for part in parts:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(part))


def _here() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()
