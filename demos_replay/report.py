"""The report of a replay job as readable text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oc_residual_gym.errors import outside_text
from oc_residual_gym.tasks import TASKS


def table(report: Mapping[str, Any]) -> str:
    """One line per demonstration, and the totals."""
    demos, lines = report["demos"], []
    width = max(len(entry["name"]) for entry in demos)
    for entry in demos:
        line = f"{entry['name']:{width}} {entry['status']:8}"
        if entry.get("tcp_drift_mm"):
            drift, turn = entry["tcp_drift_mm"], entry["tcp_drift_degrees"]
            line += f" TCP drift {drift['mean']:5.1f} mm ({drift['max']:.1f} at most), {turn['mean']:.1f} degrees"
            line += "".join(
                f"; {name} {d['end']:.1f} mm at the end" for name, d in entry["object_drift_mm"].items() if d
            )
        lines.append(outside_text(line + (f"   {entry['reason']}" if "reason" in entry else ""), 2000))
    count = {status: sum(entry["status"] == status for entry in demos) for status in ("success", "failed", "skipped")}
    total = f"{report['task']}: {count['success']} of {len(demos)} succeed"
    late = sum(entry["status"] == "success" and not entry["within_time_limit"] for entry in demos)
    if late:
        total += f" ({late} of them after the task's time limit of {TASKS[report['task']].max_episode_steps} steps)"
    lines.append(f"{total}, {count['failed']} fail, {count['skipped']} skipped")
    return "\n".join(lines)


def assumptions(report: Mapping[str, Any]) -> Sequence[str]:
    """Every assumption made for any demonstration, without duplicates."""
    return list(dict.fromkeys(outside_text(text) for entry in report["demos"] for text in entry.get("assumptions", ())))
