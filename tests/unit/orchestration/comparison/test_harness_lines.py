"""Results of the harness as lines: every metric with its error, group or task."""

from __future__ import annotations

from orchestration.comparison.harness_lines import HarnessLine, lines_of

RESULTS = {
    "results": {
        "facts": {
            "name": "facts", "alias": "facts", "sample_len": 4,
            "acc,none": 0.75, "acc_stderr,none": 0.25, "em,strict": 1, "em_stderr,strict": "N/A", "bypass,none": None,
        },
        "all": {"alias": "all", "acc,none": 0.5, "acc_stderr,none": 0.1, "sample_count": {"acc,none": 4}},
    },
    "versions": {"facts": 1.0, "all": "2"},
    "n-shot": {"facts": 3},
    "n-samples": {"facts": {"original": 9, "effective": 4}},
}  # fmt: skip


def test_every_metric_is_a_line() -> None:
    assert lines_of(RESULTS) == (
        HarnessLine("facts", "acc", "none", 0.75, 0.25, "1.0", 3, 4),
        HarnessLine("facts", "em", "strict", 1.0, None, "1.0", 3, 4),
        HarnessLine("all", "acc", "none", 0.5, 0.1, "2", None, None),
    )
