"""Metrics of a student against its teacher, in numpy and independent of the training code."""

from __future__ import annotations

from evaluation.text import rouge_l

__all__ = ["rouge_l"]
