"""``--base auto``: the base policy to compare on where none is given."""

from __future__ import annotations

import sys
from pathlib import Path

from oc_residual_gym.check import INSTALL_GL, rendering
from oc_residual_gym.errors import SettingsError
from oc_residual_gym.policies import DEFAULT_BASE
from oc_residual_gym.policies.onnx_policy import load_onnx
from oc_residual_gym.residuals import TRAINED

AUTO = "auto"
SEEING_BASE = "vla"
"""The base policy of the headline results. It sees camera images, which need OpenGL."""


def auto_base(residual: str) -> str:
    """The base policy on which to compare ``residual``.

    A policy of your own is compared on the base policy that its file names, by default on the tasks' own. Shipped ones
    are compared on "vla", or where OpenGL does not work on the tasks' own; that is said on stderr.

    Raises:
        SettingsError: the files of ``residual`` name several base policies, or cannot be read.
    """
    if residual not in TRAINED:
        return _named_base(Path(residual)) or DEFAULT_BASE
    if rendering().ready:
        return SEEING_BASE
    print(
        f"The base policy is {DEFAULT_BASE!r}: {SEEING_BASE!r}, that of the headline results, sees images, and no "
        f"OpenGL library works here. To get one on Debian or Ubuntu: {INSTALL_GL}",
        file=sys.stderr,
    )
    return DEFAULT_BASE


def _named_base(path: Path) -> str | None:
    """The base policy that the residual policies in ``path`` were trained on, where the files say so."""
    files = sorted(path.glob("*.onnx")) if path.is_dir() else [path] if path.is_file() else []
    try:
        named = {file: load_onnx(file).metadata.get("base") for file in files}
    except ValueError as error:
        raise SettingsError(str(error)) from error
    bases = sorted({base for base in named.values() if base})
    if len(bases) > 1:
        raise SettingsError(f"the policies in {path} were trained on {' and '.join(bases)}: choose one with --base")
    return bases[0] if bases else None
