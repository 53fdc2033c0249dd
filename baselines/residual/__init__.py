"""Residual policies: their training with Stable-Baselines3, and what is published of it."""

POLICY_FILE, REPORT_FILE = "policy.onnx", "report.json"
"""Files of a finished training: the policy, and what it was made with."""
