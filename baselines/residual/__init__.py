"""Training of residual policies with Stable-Baselines3: ``python -m baselines train-residual``."""
