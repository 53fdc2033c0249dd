"""Check an ``entry.json`` or a row against ``schema.json``; each problem names its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from oc_residual_gym.tasks import SHIPPED_TASKS

SCHEMA = json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))
SCHEMA["$defs"]["task"]["enum"] = list(SHIPPED_TASKS)
_CHECKER = Draft202012Validator.FORMAT_CHECKER
_ENTRY = Draft202012Validator(SCHEMA, format_checker=_CHECKER)
_ROW = Draft202012Validator({"$ref": "#/$defs/row", "$defs": SCHEMA["$defs"]})
_LONGEST = 200
"""Maximum characters of a message, which may quote the submitted text."""


def entry_problems(content: Any) -> list[str]:
    """Problems in the content of an entry.json."""
    return [_said(error) for error in sorted(_ENTRY.iter_errors(content), key=lambda error: error.json_path)]


def row_problems(row: Any) -> list[str]:
    """Problems in one line of a rows file."""
    return [_said(error) for error in _ROW.iter_errors(row)]


def _said(error: ValidationError) -> str:
    message = error.message
    if error.validator == "not":  # its own message would be a pattern
        message = f"{error.instance!r} is not valid text: {error.schema['description']}"  # type: ignore[index]
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
    return f"{error.json_path}: {message}"
