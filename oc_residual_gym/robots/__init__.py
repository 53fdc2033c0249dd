"""The FR3 as a robosuite robot model."""

import logging
import os
import sys
import types

_IRRELEVANT = (
    "No private macro file",
    "It is recommended to use a private",
    "To setup, run: python",
    "Could not import robosuite_models",
    "Could not load the mink",
)


def _is_relevant(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_IRRELEVANT)


# robosuite warns at import about options that nothing here uses.
logging.getLogger("robosuite_logs").addFilter(_is_relevant)

REQUESTED_GL = os.environ.get("MUJOCO_GL")
"""The OpenGL backend that the user asked for; importing robosuite overwrites the environment variable."""

# robosuite imports OpenCV, which needs the system's libGL, for its own windows only: without it all else works.
try:
    import cv2  # noqa: F401
except ImportError:
    sys.modules["cv2"] = types.ModuleType("cv2")
