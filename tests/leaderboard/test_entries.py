"""The entries in the repository are complete, and their claims were verified."""

from __future__ import annotations

import pytest

pytest.importorskip("jsonschema", reason="needs the extra [leaderboard]")

from leaderboard.entry import Entry, load_entries, verification_of
from leaderboard.validate import check_files


@pytest.mark.parametrize("entry", load_entries(), ids=lambda entry: entry.id)
def test_an_entry_is_whole_and_verified(entry: Entry) -> None:
    assert check_files(entry) == []
    record = verification_of(entry)
    assert record is not None, "run `python -m leaderboard verify`: the entry was changed since, or never verified"
    assert record["verdict"] in ("accepted", "deviating")
    assert record["rows"] == record["total"] == sum(len(entry.rows_of(cell)) for cell in entry.cells)


def test_the_base_policies_alone_and_the_oracle_are_references() -> None:
    references = {entry.content["residual"]["name"] for entry in load_entries() if entry.content["reference"]}
    assert references == {"zero", "oracle"}
