"""Residual policies: training with Stable-Baselines3, and publishing the results."""

POLICY_FILE, REPORT_FILE = "policy.onnx", "report.json"
"""Files of a finished training: the policy, and the report on how it was trained."""
