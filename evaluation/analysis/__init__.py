"""What a student took over from its teacher, example by example (the questions of Sucik 2020).

Pure functions over what two models made of one task's test rows. An average hides what is of interest: whether the
student makes the mistakes of its teacher, where it loses most, and whether it knows more than keywords.
"""

from __future__ import annotations

from evaluation.analysis.agreement import HitTable
from evaluation.analysis.confidence import Correlation
from evaluation.analysis.gaps import Gap
from evaluation.analysis.minimal_pairs import PairsAnswered
from evaluation.analysis.retention import Retention, Slice
from evaluation.analysis.tables import Against, Comparison, MetricTable, StudentAnalysis, compare_runs
from evaluation.analysis.task import TaskAnalysis, analyse

__all__ = [
    "Against",
    "Comparison",
    "Correlation",
    "Gap",
    "HitTable",
    "MetricTable",
    "PairsAnswered",
    "Retention",
    "Slice",
    "StudentAnalysis",
    "TaskAnalysis",
    "analyse",
    "compare_runs",
]
