"""The pipeline: plan, fill, train, evaluate, compare. Wires the other folders together; nobody imports it."""

from __future__ import annotations

from orchestration.entry import run_pipeline

__all__ = ["run_pipeline"]
