"""What lm-evaluation-harness found, as lines of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STDERR = "_stderr"


@dataclass(frozen=True, slots=True)
class HarnessLine:
    """A metric of a task or group, as the harness reports it.

    `how` is the filter that answers went through ("none", "strict-match"); `stderr` is None where it gives none, as are
    `shots` and `rows` of a group.
    """

    task: str
    metric: str
    how: str
    value: float
    stderr: float | None
    version: str
    shots: int | None
    rows: int | None


def lines_of(results: Mapping[str, Any]) -> tuple[HarnessLine, ...]:
    """Every metric of what `lm_eval.evaluator.evaluate` returns, in its order."""
    lines = []
    for task, values in results["results"].items():
        rows = results.get("n-samples", {}).get(task, {}).get("effective")
        for key, value in values.items():
            metric, comma, how = key.partition(",")
            # The rest are names and counts.
            if not comma or metric.endswith(STDERR) or not isinstance(value, int | float):
                continue
            stderr = values.get(f"{metric}{STDERR},{how}")
            lines.append(
                HarnessLine(
                    task=task,
                    metric=metric,
                    how=how,
                    value=float(value),
                    stderr=float(stderr) if isinstance(stderr, int | float) else None,
                    version=str(results.get("versions", {}).get(task, "")),
                    shots=results.get("n-shot", {}).get(task),
                    rows=rows,
                )
            )
    return tuple(lines)
