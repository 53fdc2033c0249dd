"""Residual policies: their training with Stable-Baselines3, and what is published of it."""

POLICY_FILE, REPORT_FILE = "policy.onnx", "report.json"
"""Of a finished training: the policy, and what it was made with."""
ALGORITHMS = ("sac", "td3", "ppo")
