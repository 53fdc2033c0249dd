"""The leaderboard: entries, their verification by re-running, and the site.

Run from a clone: ``python -m leaderboard``.
"""


class LeaderboardError(Exception):
    """A user error, or a mistake in an entry; the message says what is wrong, where, and what to do."""
