"""Teleoperation logs, replayed in simulation: readers, dynamic replay, recording, and writers of datasets."""

from pathlib import Path

LOGS = Path(__file__).parent / "logs"
"""Logs that come with the package, one file a task: synthetic, see the README there."""
