"""Training and comparison of base and residual policies: ``python -m baselines``, from a clone of the repository."""


class BaselineError(Exception):
    """A request cannot be carried out; the message says what is wrong, where, and what to do."""
