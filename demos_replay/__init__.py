"""Teleoperation logs, replayed in simulation: readers, dynamic replay, recording, and writers of datasets."""

from pathlib import Path

LOGS = Path(__file__).parent / "logs"
"""Synthetic logs that ship with the package, one file per task; see the README in that folder."""
