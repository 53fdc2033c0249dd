"""Training of base policies and comparison runs: ``python -m baselines``, from a clone of the repository."""


class BaselineError(Exception):
    """What was asked for cannot be done; the message says what is wrong, where, and what to do."""
