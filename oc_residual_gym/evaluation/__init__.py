"""Evaluation: episodes for an explicit list of (task, seed) rows, their statistics, and results on disk."""
