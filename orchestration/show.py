"""Show the comparison of a finished experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from configs import DistillConfig
from orchestration.console import Console
from orchestration.report import Report, print_report, read_report


def show_finished(config: DistillConfig, *, stream: TextIO) -> Report | None:
    """Print the comparison if the experiment is finished."""
    report = read_report(run_directory(config))
    if report is not None:
        console = Console(stream)
        console.say(f"Experiment {config.name} is finished.")
        show_report(report, config, console=console)
    return report


def show_report(report: Report, config: DistillConfig, *, console: Console) -> None:
    """Print a comparison and where everything lies."""
    directory = run_directory(config)
    print_report(report, console, samples=config.evaluation.samples_shown)
    console.say(f"Everything is in {directory} (report.md, report.json, config.yaml, views, logs).")
    console.say("Compare runs in the browser: make ui")


def run_directory(config: DistillConfig) -> Path:
    """Where an experiment keeps its report, views and logs; named by what changes its numbers."""
    return config.runtime.run_root / f"{config.name}-{config.digest()[:10]}"
