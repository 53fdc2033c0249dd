"""Evaluation: episodes on an explicit list of (task, seed) rows, their statistics, and results on disk."""
