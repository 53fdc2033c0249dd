"""The leaderboard: entries, their verification by re-running, and the site.

Run from a clone: ``python -m leaderboard``.
"""


class LeaderboardError(Exception):
    """A mistake in what was asked for, or in an entry; the message says what, where, and what to do."""
