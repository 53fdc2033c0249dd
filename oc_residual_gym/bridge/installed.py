"""Import of robosuite without its side effects on the whole process."""

from __future__ import annotations

import logging
import os
import sys
import types
from importlib.util import find_spec

MISSING = 'this needs robosuite: pip install "oc-residual-gym[robosuite]"'

_IRRELEVANT = (
    "No private macro file",
    "It is recommended to use a private",
    "To setup, run: python",
    "Could not import robosuite_models",
    "Could not load the mink",
)


def import_robosuite() -> None:
    """Import robosuite without what its import does to the whole process.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    if find_spec("robosuite") is None:
        raise ImportError(MISSING, name="robosuite")
    # robosuite warns at import about options that nothing here uses.
    logging.getLogger("robosuite_logs").addFilter(_is_relevant)
    # It imports OpenCV, which needs the system's libGL, for its own windows only: without it all else works.
    try:
        import cv2  # noqa: F401
    except ImportError:
        sys.modules["cv2"] = types.ModuleType("cv2")
    requested = os.environ.get("MUJOCO_GL")
    import robosuite  # noqa: F401

    # It chooses an OpenGL backend for the process and its children, in which MuJoCo then fails to import where there is
    # none at all: leave the choice to whoever renders.
    if requested is None:
        os.environ.pop("MUJOCO_GL", None)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_IRRELEVANT)
