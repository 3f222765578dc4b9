"""Metrics of a student against its teacher, in numpy and independent of the training code."""

from __future__ import annotations

from evaluation.held_out import HeldOutMetrics, held_out_metrics
from evaluation.text import rouge_l

__all__ = ["HeldOutMetrics", "held_out_metrics", "rouge_l"]
