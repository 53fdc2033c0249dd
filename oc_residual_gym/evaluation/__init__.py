"""Evaluation: episodes on an explicit list of (task, seed) rows, their statistics, and results on disk."""


class SettingsError(ValueError):
    """Something that was asked for does not exist or does not fit; the message says what would."""
