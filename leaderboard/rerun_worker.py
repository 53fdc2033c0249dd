"""Child process of ``verify``: runs rows of one cell again with the evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm import tqdm

from leaderboard.limits import Emit, PolicyFailure, serve
from oc_residual_gym.errors import RenderError, SettingsError
from oc_residual_gym.evaluation.episodes import resume
from oc_residual_gym.evaluation.evaluator import evaluate
from oc_residual_gym.evaluation.settings import EvaluationSettings
from oc_residual_gym.files import Record


def rerun(request: Record, emit: Emit) -> None:
    """Run the seeds of ``request`` that its folder does not hold yet; send one message per episode.

    Raises:
        PolicyFailure: a policy failed; the message says in which episode.
    """
    out = Path(request["out"])
    try:
        settings = EvaluationSettings((request["task"],), **request["settings"])
    except SettingsError as error:
        raise PolicyFailure(str(error)) from error
    resume(out, settings.identity)  # not the policy's fault if the folder has other rows
    rows = [(request["task"], seed) for seed in request["seeds"]]
    try:
        evaluate(settings, out, worlds=request["worlds"], rows=rows, bar=_Teller(emit))
    except SettingsError as error:
        if isinstance(error.__cause__, RenderError):
            raise
        raise PolicyFailure(str(error)) from error
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            raise PolicyFailure(f"{type(error).__name__}: {error}") from error
        raise


class _Teller(tqdm):
    """A progress bar that sends its progress to the parent, which draws it."""

    def __init__(self, emit: Emit):
        super().__init__(disable=True)
        self._emit = emit

    def update(self, n: float | None = 1) -> Any:
        self._emit({"episodes": n})


if __name__ == "__main__":
    serve(rerun)
