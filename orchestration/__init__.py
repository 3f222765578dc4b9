"""The pipeline: plan, fill, train, evaluate, compare. Wires the other folders together; nobody imports it."""

from __future__ import annotations

from orchestration.own_packages import import_own_packages

# Before the first import of another of our folders: those have everyday names.
import_own_packages()

from orchestration.entry import run_pipeline  # noqa: E402

__all__ = ["run_pipeline"]
